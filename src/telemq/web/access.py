"""What a route says of who may ask it."""

from __future__ import annotations

__all__ = ["OPEN"]

#: As the ``opt`` of a route: for everybody, as often as they like. Pages, assets and health.
OPEN = {"open": True}
