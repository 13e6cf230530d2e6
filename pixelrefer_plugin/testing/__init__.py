"""The conformance kit: what every adapter, every backbone and every pair of them must do.

For plugin authors, and for this project's own tests:

    from pixelrefer_plugin.testing import check_adapter, check_backbone

    def test_my_backbone():
        check_backbone("my_backbone")
"""

from .adapter_checks import ADAPTER_CHECKS
from .backbone_checks import BACKBONE_CHECKS
from .conformance import PAIR_CHECKS, check_adapter, check_backbone
from .pairs import Pair, make_pair
from .tokenizer import CHATML_TEMPLATE, CHATML_TOKENS, tiny_tokenizer

__all__ = [
    "ADAPTER_CHECKS",
    "BACKBONE_CHECKS",
    "CHATML_TEMPLATE",
    "CHATML_TOKENS",
    "PAIR_CHECKS",
    "Pair",
    "check_adapter",
    "check_backbone",
    "make_pair",
    "tiny_tokenizer",
]
