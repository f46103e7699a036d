"""What a service frees it keeps, and does not fetch again page by page."""

import os
import subprocess
import sys

import pytest

from telemq.malloc import keep_freed

#: Page faults of fifty payloads of 1 MiB, one after the other, when all that may adapt has.
_PROGRAM = """
import resource, sys
from telemq.malloc import keep_freed

if sys.argv[1] == "keep":
    assert keep_freed()
kept = [bytearray(2**20) for _ in range(20)]
del kept
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(50):
    payload = [bytearray(2**20), bytearray(2**20)]
    del payload
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

glibc = pytest.mark.skipif(
    not (sys.platform == "linux" and os.confstr("CS_GNU_LIBC_VERSION")), reason="glibc only"
)


def faults(mode: str) -> int:
    command = [sys.executable, "-c", _PROGRAM, mode]
    return int(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)


@glibc
def test_payload_after_payload_costs_no_page_faults() -> None:
    """A collector's messages, or a broker's; the control without shows that they would."""
    assert faults("keep") < 500
    assert faults("usual") > 5000


def test_other_libraries_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Alpine's musl, or macOS: they have no such names, and nothing is called."""

    def unknown(_name: str) -> None:
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(os, "confstr", unknown)
    assert not keep_freed()
