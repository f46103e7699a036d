"""Which endpoints only this machine reaches: those need no keys."""

from __future__ import annotations

import pytest

from telemq.endpoint import is_local


@pytest.mark.parametrize(
    "endpoint",
    ["tcp://127.0.0.1:5601", "tcp://localhost:*", "tcp://[::1]:0", "ipc:///run/q", "inproc://q"],
)
def test_local(endpoint: str) -> None:
    assert is_local(endpoint)


@pytest.mark.parametrize(
    "endpoint",
    [
        "tcp://0.0.0.0:5601",
        "tcp://*:5601",
        "tcp://[::]:5601",
        "tcp://10.0.0.7:5601",
        "tcp://localhost.example.com:5601",
        "tcp://127.0.0.1",
        "",
    ],
)
def test_others_reach_it_or_it_is_not_understood(endpoint: str) -> None:
    assert not is_local(endpoint)
