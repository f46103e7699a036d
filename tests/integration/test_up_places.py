"""Ports and processes of `telemq up`, with real sockets."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from telemq.errors import BusyError
from telemq.settings import CollectorSettings, UpSettings
from telemq.up.programs import STOP_ORDER, places, programs, share
from telemq.up.workers import worker_settings


def _port(address: str) -> int:
    return int(address.rpartition(":")[2])


def test_every_place_gets_a_port_of_its_own() -> None:
    """Nothing is asked for but that it runs."""
    where = places(UpSettings(streamers=3, collectors=4, api_port=0))
    addresses = [
        *(where.producers, where.consumers, where.api, where.broker_ops),
        *where.streamer_ops,
        *where.collector_ops,
    ]
    assert 11 == len(set(addresses))
    # Ports that Linux gives to outgoing connections could be taken while a child restarts.
    assert all(_port(address) < 32_768 for address in addresses)


@pytest.mark.parametrize(
    ("flag", "field"), [("--api-port", "api_port"), ("--broker-port", "broker_port")]
)
def test_busy_port_is_named_with_its_flag(flag: str, field: str) -> None:
    """Another program listens on 8080."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        settings = UpSettings(**{"api_port": 0, field: port})
        with pytest.raises(BusyError, match=f"{flag}: port {port} is in use"):
            places(settings)


def test_busy_port_of_consumers_is_named_too() -> None:
    """The port after --broker-port is taken."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        with pytest.raises(BusyError, match=f"--broker-port: port {port} is in use"):
            places(UpSettings(api_port=0, broker_port=port - 1))


def test_ports_asked_for_are_kept() -> None:
    """A firewall lets three ports through."""
    port = _port(places(UpSettings(api_port=0)).broker_ops)
    where = places(UpSettings(api_port=port, broker_port=port + 1))
    assert f"127.0.0.1:{port}" == where.api
    assert (f"127.0.0.1:{port + 1}", f"127.0.0.1:{port + 2}") == (where.producers, where.consumers)


def test_dsn_goes_by_environment_only() -> None:
    """Everybody can read everybody's command lines."""
    settings = UpSettings(api_port=0, streamers=2, collectors=2)
    plan = programs(
        settings, places(settings), command=("telemq",), csv=Path("/a.csv"), dsn="pw=hunter2"
    )
    names = ["broker", "collector-1", "collector-2", "api", "maintain", "streamer-1", "streamer-2"]
    assert names == [p.name for p in plan]
    for program in plan:
        assert "hunter2" not in " ".join(program.argv)
        assert "pw=hunter2" == program.env["TELEMQ_DSN"]
    assert set(STOP_ORDER) == {p.group for p in plan}


def test_rate_is_split_among_streamers() -> None:
    """--rate is what all of them do together."""
    settings = UpSettings(api_port=0, streamers=4, rate=1000)
    plan = programs(settings, places(settings), command=(), csv=Path("/a.csv"), dsn="")
    rates = [word for p in plan for word in p.argv if word.startswith("--rate=")]
    assert ["--rate=250.0"] * 4 == rates


def test_only_streamers_with_rows_have_an_end() -> None:
    """Somebody sends a SIGTERM to the broker of a run with --rows."""
    for rows, ends in ((0, set()), (5, {"streamer"})):
        settings = UpSettings(api_port=0, rows=rows)
        plan = programs(settings, places(settings), command=(), csv=Path("/a.csv"), dsn="")
        assert ends == {p.group for p in plan if p.ends}


def test_what_is_kept_is_said_to_maintenance_and_collectors() -> None:
    """Somebody types `telemq up --keep-raw --keep-days 30 --partition-hours 6`."""
    settings = UpSettings(api_port=0, keep_raw=True, keep_days=30, partition_hours=6)
    plan = programs(settings, places(settings), command=(), csv=Path("/a.csv"), dsn="")
    (maintain,) = (p for p in plan if p.name == "maintain")
    assert {"--keep-raw", "--keep-days=30", "--partition-hours=6"} <= set(maintain.argv)
    (collector,) = (p for p in plan if p.group == "collector")
    assert "--partition-hours=6" in collector.argv


def test_shares_of_a_drain_add_up() -> None:
    """--drain-s is the limit of all groups together."""
    assert 30 == sum(share(group, 30) for group in STOP_ORDER)


def test_workers_listen_side_by_side() -> None:
    """Somebody types `telemq collect --workers 3`."""
    own = worker_settings(CollectorSettings(workers=3, ops_address="127.0.0.1:9603"))
    assert ["127.0.0.1:9603", "127.0.0.1:9604", "127.0.0.1:9605"] == [s.ops_address for s in own]
    assert [1, 1, 1] == [s.workers for s in own]
    picked = worker_settings(CollectorSettings(workers=2, ops_address="[::1]:0"))
    assert ["[::1]:0", "[::1]:0"] == [s.ops_address for s in picked]
