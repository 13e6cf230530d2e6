"""The version of the contract between the host and its plugins, which a plugin's module says it is written for."""

from __future__ import annotations

from typing import Any

from ..errors import shown

PLUGIN_API = 1
"""One more wherever a plugin that is written for the contract before would fail."""

NOT_SAID: Any = object()
"""In place of a plugin's number, where its module has none."""


def api_defect(found: Any, *, module: str, distribution: str) -> str:
    """Why a plugin with this number cannot be used, and which side to upgrade; empty where it can.

    Args:
        found: the plugin's number, or `NOT_SAID`.
        module: the module of its entry point.
        distribution: what to upgrade the plugin by.
    """
    upgrade = f"Upgrade it: pip install --upgrade {distribution}"
    if found is NOT_SAID:
        return (
            f"does not say which contract it is written for: expected the line PLUGIN_API = {PLUGIN_API} in {module}, "
            f"got none. It was written before plugins had to say so, or its author forgot the line. {upgrade}. Its "
            "author adds the line after reading docs/plugins.md"
        )
    if type(found) is not int:
        return f"has PLUGIN_API = {shown(found)} in {module}, expected a whole number: {PLUGIN_API}. {upgrade}"
    versions = f"is written for PLUGIN_API {shown(found)}, pixelrefer-plugin has {PLUGIN_API}"
    if found > PLUGIN_API:
        return f"{versions}. Upgrade pixelrefer-plugin: pip install --upgrade pixelrefer-plugin"
    return f"{versions}. {upgrade}" if found < PLUGIN_API else ""
