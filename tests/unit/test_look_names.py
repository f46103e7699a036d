"""Which GPUs and metrics a person means, and what is told when there is none."""

from __future__ import annotations

import pytest

from telemq.errors import SettingError
from telemq.look.names import check_metrics, find_gpus, near
from tests.unit.test_look_board import gpu

FLEET = [gpu(n) for n in range(24)]


@pytest.mark.parametrize(
    ("words", "ids"),
    [
        (["GPU-7"], [7]),
        (["host-1/3"], [11]),
        (["host-1/*"], list(range(8, 16))),
        (["GPU-1?"], list(range(10, 20))),
        (["3"], [3, 11, 19]),
        (["host-2/0", "GPU-0", "host-0/0"], [0, 16]),
        (["*"], list(range(24))),
    ],
)
def test_gpus_are_named_by_uuid_place_pattern_or_index(words: list[str], ids: list[int]) -> None:
    """Copied from a log, from `telemq gpus`, or as somebody says it."""
    assert ids == [g.id for g in find_gpus(words, reversed(FLEET))]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("hsot-1/3", r"near are host-1/3, .* \(48 in all\)"),
        ("GPU-77", "near are GPU-7,"),
        ("gpu-12", "near are GPU-12 …"),
        ("9", "near are GPU-9, "),
        ("zzz", r"near are GPU-0, host-0/0, GPU-1 … \(48 in all\)"),
    ],
)
def test_gpu_that_there_is_not_is_refused_with_near_ones(word: str, told: str) -> None:
    """A typing error."""
    with pytest.raises(SettingError, match=f"GPU: '{word}' .*{told}"):
        find_gpus(["GPU-1", word], FLEET)


def test_empty_database_says_so() -> None:
    """Before the first record."""
    with pytest.raises(SettingError, match="the database has none yet"):
        find_gpus(["*"], [])


def test_metric_that_none_of_them_has_is_refused_with_near_ones() -> None:
    """People leave the long prefix out."""
    known = {"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_POWER_USAGE"}
    check_metrics(known, known)
    check_metrics([], [])
    with pytest.raises(SettingError, match=r"one of DCGM_FI_DEV_GPU_UTIL … \(3 in all\)"):
        check_metrics(["DCGM_FI_DEV_GPU_TEMP", "gpu_util"], known)
    with pytest.raises(SettingError, match="have no metrics"):
        check_metrics(["x"], [])


def test_near_names_are_few_and_say_how_many_there_are() -> None:
    """Ten thousand GPUs do not fit into an error."""
    assert "a-1, a-2" == near("a-1", ["a-1", "a-2"])
    assert "host-0, host-1, host-2 … (10,000 in all)" == near(
        "x", [f"host-{n}" for n in range(10_000)]
    )
