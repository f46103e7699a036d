"""Which GPUs and metrics a person means; pure. What nothing has is refused, with near names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from telemq.errors import SettingError
from telemq.look.place import by_place, place_of

if TYPE_CHECKING:
    from telemq.store.recent import Gpu  # with psycopg, which no rule needs

__all__ = ["check_metrics", "find_gpus", "near"]

_NEAR = 3


def find_gpus(words: Sequence[str], gpus: Iterable[Gpu]) -> list[Gpu]:
    """Give the GPUs that are meant, each once, in the order of hosts and indexes.

    Args:
        words: each a UUID, ``HOST/INDEX``, or a pattern of one of these with ``*`` and ``?``; or an
            index, which means that one on every host.
        gpus: all that there are.

    Raises:
        SettingError: one of the words is no GPU's.
    """
    known = sorted(gpus, key=by_place)
    meant: dict[int, Gpu] = {}
    for word in words:
        found = [gpu for gpu in known if _is(word, gpu)]
        if not found:
            names = [name for gpu in known for name in (gpu.uuid, place_of(gpu))]
            raise SettingError("GPU", word, _gpu_accepted(word, names))
        meant.update((gpu.id, gpu) for gpu in found)
    return [gpu for gpu in known if gpu.id in meant]


def check_metrics(wanted: Iterable[str], known: Iterable[str]) -> None:
    """Refuse a metric that none of the GPUs has.

    Raises:
        SettingError: with near names.
    """
    names = sorted(known)
    for metric in wanted:
        if metric not in names:
            told = f"one of {near(metric, names)}" if names else "none: these GPUs have no metrics"
            raise SettingError("--metric", metric, told)


def near(word: str, names: Sequence[str]) -> str:
    """List those names that are likest to a word, and how many there are."""
    # What was begun, or is a part of it, is nearer than what has as many letters in common.
    low = word.lower()
    alike = [name for name in names if low in name.lower()][:_NEAR]
    alike += get_close_matches(word, names, _NEAR, cutoff=0.5)
    shown = list(dict.fromkeys(alike))[:_NEAR] or list(names[:_NEAR])
    more = f" … ({len(names):,} in all)" if len(names) > len(shown) else ""
    return ", ".join(shown) + more


def _is(word: str, gpu: Gpu) -> bool:
    return word == gpu.gpu_id or any(fnmatchcase(name, word) for name in (gpu.uuid, place_of(gpu)))


def _gpu_accepted(word: str, names: Sequence[str]) -> str:
    if not names:
        return "a GPU, and the database has none yet"
    return (
        "a UUID, HOST/INDEX, a pattern of these, or an index; "
        f"near are {near(word, names)}, and telemq gpus shows all"
    )
