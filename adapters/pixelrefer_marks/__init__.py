"""Regions as marks on a copy of the picture: outlines, tints and numbers. Nothing is trained.

Set-of-mark prompting: Yang et al. 2023, arXiv:2310.11441, which draws numbered masks that a model then calls by number.
"""

from collections.abc import Callable

from pixelrefer_plugin.authoring import AdapterSpec, hookimpl

PLUGIN_API = 1


@hookimpl
def register_adapters(register: Callable[[AdapterSpec], None]) -> None:
    from .config import MarksConfig
    from .pointer import MarksPointer

    register(AdapterSpec(name="marks", config=MarksConfig, pointer=MarksPointer))
