"""Where a GPU is, as people write it and in the order in which they count; pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from telemq.store.recent import Gpu  # with psycopg, which no rule needs

__all__ = ["by_place", "place_of"]


def place_of(gpu: Gpu) -> str:
    """Give ``HOST/INDEX``."""
    return f"{gpu.hostname}/{gpu.gpu_id}"


def by_place(gpu: Gpu) -> tuple[Any, ...]:
    """Order of hosts, and of the GPUs of a host: ``host-2`` before ``host-10``."""
    return _natural(gpu.hostname), _natural(gpu.gpu_id), gpu.uuid


def _natural(text: str) -> list[tuple[int, int, str]]:
    return [
        (0, int(part), "") if part.isdecimal() and len(part) < 20 else (1, 0, part)
        for part in re.split(r"(\d+)", text, flags=re.ASCII)
    ]
