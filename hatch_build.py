"""Build hook: puts the API documentation's browser assets into the wheel (filled in by gateway)."""

from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class AssetsHook(BuildHookInterface[Any]):
    """See the module."""
