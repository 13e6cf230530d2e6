"""The linear layer that the new parts of UniPixel are made of."""

from torch import nn


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A linear layer that starts as the official code's do: Xavier's uniform weights, no bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_uniform_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
