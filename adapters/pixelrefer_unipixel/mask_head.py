"""From the decoder's hidden state to SAM 2's prompt (`<seg>`). Knows widths only."""

from torch import Tensor, nn

from .layers import linear


class MaskHead(nn.Module):
    """Makes prompt tokens for SAM 2 of the hidden state that predicts a `<seg>`.

    Args:
        decoder_width: width D of the hidden states.
        sam_width: width S of SAM 2's prompt tokens.
        prompt_tokens: how many of them each object gets.
    """

    def __init__(self, *, decoder_width: int, sam_width: int, prompt_tokens: int) -> None:
        super().__init__()
        self.prompt_tokens = prompt_tokens
        self.mlp = nn.Sequential(
            nn.RMSNorm(decoder_width, eps=1e-6),
            linear(decoder_width, decoder_width),
            nn.GELU(),
            linear(decoder_width, prompt_tokens * sam_width),
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """`(objects, prompt_tokens, S)` from hidden states `(objects, D)`, those before the decoder's final norm."""
        return self.mlp(hidden).unflatten(-1, (self.prompt_tokens, -1))
