"""The conformance kit: what every plugin must do, of each kind, and every pair of an adapter and a backbone.

For plugin authors, and for this project's own tests:

    from pixelrefer_plugin.testing import check_adapter, check_backbone

    def test_my_backbone():
        check_backbone("my_backbone")
"""

from typing import TYPE_CHECKING

from ..exports import lazy_exports

if TYPE_CHECKING:
    from .adapter_checks import ADAPTER_CHECKS as ADAPTER_CHECKS
    from .adapter_checks import POINTER_CHECKS as POINTER_CHECKS
    from .backbone_checks import BACKBONE_CHECKS as BACKBONE_CHECKS
    from .benchmark_checks import BENCHMARK_CHECKS as BENCHMARK_CHECKS
    from .benchmark_checks import BenchmarkCase as BenchmarkCase
    from .benchmark_checks import OfflineTools as OfflineTools
    from .benchmark_checks import check_benchmark as check_benchmark
    from .conformance import PAIR_CHECKS as PAIR_CHECKS
    from .conformance import POINTER_PAIR_CHECKS as POINTER_PAIR_CHECKS
    from .conformance import check_adapter as check_adapter
    from .conformance import check_backbone as check_backbone
    from .conformance import checks_of_adapter as checks_of_adapter
    from .conformance import checks_of_pair as checks_of_pair
    from .data_format_checks import DATA_FORMAT_CHECKS as DATA_FORMAT_CHECKS
    from .data_format_checks import FormatCase as FormatCase
    from .data_format_checks import check_data_format as check_data_format
    from .pairs import Pair as Pair
    from .pairs import make_pair as make_pair
    from .pictures import TINY_HW as TINY_HW
    from .pictures import write_tiny_picture as write_tiny_picture
    from .pictures import write_tiny_video as write_tiny_video
    from .region_source_checks import REGION_SOURCE_CHECKS as REGION_SOURCE_CHECKS
    from .region_source_checks import SourceCase as SourceCase
    from .region_source_checks import check_region_source as check_region_source
    from .tokenizer import CHATML_TEMPLATE as CHATML_TEMPLATE
    from .tokenizer import CHATML_TOKENS as CHATML_TOKENS
    from .tokenizer import TINY_CORPUS as TINY_CORPUS
    from .tokenizer import tiny_tokenizer as tiny_tokenizer

__all__, __getattr__, __dir__ = lazy_exports(__name__)
