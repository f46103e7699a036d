"""Freed memory is kept for the next batch, and the start is not looked at again."""

from __future__ import annotations

import subprocess
import sys

import pytest

_FAULTS = """
import resource
from telemq.memory import keep_freed_memory
if {keep}:
    assert keep_freed_memory()

def fill():
    for batch in [bytearray(b"x") * 100_000 for _ in range(400)]:
        pass

fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keep: bool) -> int:
    code = _FAULTS.format(keep=keep)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_of_a_window_is_not_fetched_page_by_page_again() -> None:
    """Batches come and go all day: 40 MB of them are 10,000 pages a time."""
    assert faults(keep=True) * 10 < faults(keep=False)


_TRACKED = """
import gc
from telemq.memory import pass_over_what_is_loaded
loaded = len(gc.get_objects())
pass_over_what_is_loaded()
print(loaded, len(gc.get_objects()))
"""


def test_garbage_collector_passes_over_what_was_loaded() -> None:
    """A look at every class and function is a pause of all deliveries."""
    done = subprocess.run(
        [sys.executable, "-c", _TRACKED], capture_output=True, text=True, check=True, timeout=60
    )
    loaded, left = map(int, done.stdout.split())
    assert left * 10 < loaded
