"""What `telemq top` works out from two snapshots: rates, order and trouble."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from telemq.broker.stats import BrokerStats, BrokerStatus, Counters, PeerStats
from telemq.watch.numbers import BrokerView, Totals, Watched, ordered, room_used, totals


def peer(name: str, role: str = "consumer", **changed: Any) -> PeerStats:
    """A peer that is well."""
    calm = PeerStats(
        role=role,
        name=name,
        session=f"{role} {name}",
        age_s=100,
        silent_s=0.5,
        credit_records=10,
        credit_bytes=10,
        held_messages=1,
        held_records=5,
        done_messages=10,
        done_records=100,
    )
    return msgspec.structs.replace(calm, **changed)


def status(
    uptime_s: float, *peers: PeerStats, accepted: int = 0, settled: int = 0, **changed: Any
) -> BrokerStatus:
    """A broker with these peers, half full in bytes."""
    values = {
        "ready_messages": 2,
        "ready_records": 20,
        "ready_bytes": 200,
        "leased_messages": 1,
        "leased_records": 10,
        "leased_bytes": 200,
        "granted_records": 5,
        "granted_bytes": 100,
        "capacity_records": 1000,
        "capacity_bytes": 1000,
        "producers": 3,
        "consumers": 2,
        "producers_waiting": 0,
        "oldest_ns": 1_500_000_000,
        "draining": False,
    }
    counters = Counters(accepted_records=accepted, settled_records=settled, redelivered=7, buried=1)
    return BrokerStatus(
        version="1",
        uptime_s=uptime_s,
        heartbeat_s=1.0,
        stats=BrokerStats(counters=counters, **{**values, **changed}),
        peers=peers,
        peers_left_out=0,
    )


def view(*statuses: BrokerStatus, url: str = "http://b:1") -> BrokerView:
    """What is shown after these readings, one after the other."""
    watched = Watched(url)
    shown = BrokerView(url)
    for one in statuses:
        shown = watched.take(one)
    return shown


def test_rates_are_between_two_snapshots_by_the_brokers_clock() -> None:
    """The everyday case: two readings, 4 s apart."""
    shown = view(
        status(10, peer("a"), accepted=1000, settled=100),
        status(14, peer("a", done_records=180), accepted=3000, settled=900),
    )
    assert shown.rates is not None
    assert (500.0, 200.0, 0.0) == (
        *(shown.rates.accepted, shown.rates.settled),
        shown.rates.redelivered_messages,
    )
    assert 20.0 == shown.peers[0].per_s


def test_first_snapshot_has_no_rates() -> None:
    """`telemq top` was just started."""
    shown = view(status(10, peer("a")))
    assert shown.rates is None
    assert shown.peers[0].per_s is None


def test_same_snapshot_read_twice_keeps_the_rates() -> None:
    """Somebody else's page asked just before us: the broker makes one snapshot a second."""
    shown = view(status(10, accepted=0), status(12, accepted=100), status(12, accepted=100))
    assert shown.rates is not None
    assert 50.0 == shown.rates.accepted


def test_restarted_broker_has_no_rates_until_its_second_snapshot() -> None:
    """Counters fell to zero: a negative rate would be nonsense."""
    readings = [status(100, accepted=10**6), status(2, accepted=10), status(4, accepted=30)]
    assert view(*readings[:2]).rates is None
    shown = view(*readings).rates
    assert shown is not None
    assert 10.0 == shown.accepted


def test_broker_that_was_not_read_for_a_while_has_the_rate_over_that_time() -> None:
    """The network was gone for a minute; the broker was not."""
    watched = Watched("http://b:1")
    watched.take(status(10, accepted=0))
    gone = watched.take(None, "no answer within 3 s")
    assert ("no answer within 3 s", None) == (gone.fault, gone.status)
    back = watched.take(status(70, accepted=600))
    assert back.rates is not None
    assert 10.0 == back.rates.accepted


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (peer("a"), peer("a", done_records=101), ""),
        (peer("a"), peer("a", silent_s=3.0), "silent for 3 s"),
        (peer("a"), peer("a"), "settles nothing"),
        (peer("a", held_messages=0), peer("a", held_messages=0), ""),
        (peer("a", held_messages=0), peer("a"), ""),
        (peer("a"), peer("a", done_records=101, redelivered=3), "gave 3 back"),
        (None, peer("a", credit_records=0), "takes nothing"),
        (
            peer("p", "producer", wish_records=5),
            peer("p", "producer", wish_records=5),
            "waits for room",
        ),
        (
            peer("p", "producer", wish_records=5),
            peer("p", "producer", wish_records=5, done_records=101),
            "",
        ),
        (peer("p", "producer"), peer("p", "producer"), ""),
    ],
)
def test_trouble_is_named(before: PeerStats | None, now: PeerStats, told: str) -> None:
    """An operator looks for the one among hundreds that is not well."""
    first = status(10, *([before] if before else []))
    assert told == view(first, status(12, now)).peers[0].trouble


def test_trouble_comes_first_or_the_fastest() -> None:
    """Two ways to look at a thousand peers."""
    names = {"slow": 110, "fast": 300, "stuck": 100}
    shown = view(
        status(10, *(peer(name) for name in names)),
        status(12, *(peer(name, done_records=done) for name, done in names.items())),
    )
    by_trouble = [p.stats.name for _, p in ordered([shown], "trouble")]
    assert ["stuck", "fast", "slow"] == by_trouble
    assert ["fast", "slow", "stuck"] == [p.stats.name for _, p in ordered([shown], "rate")]


def test_brokers_are_added_up_without_those_that_could_not_be_read() -> None:
    """Several brokers share the work, and one of them is down."""
    one = view(status(10), status(12, accepted=100, settled=50))
    other = view(status(5, peer("a", silent_s=9)), url="http://c:1")
    down = BrokerView("http://d:1", "connection refused")
    assert Totals(
        brokers=2,
        ready_records=40,
        leased_records=20,
        oldest_s=1.5,
        redelivered=14,
        buried=2,
        producers=6,
        consumers=4,
        accepted_per_s=50.0,
        settled_per_s=25.0,
        peers_in_trouble=1,
    ) == totals([one, other, down])
    assert totals([down]).accepted_per_s is None


def test_room_is_as_full_as_the_fuller_of_records_and_bytes() -> None:
    """Few large messages fill a broker, or many small ones."""
    assert 0.5 == room_used(status(1).stats)
    assert 0.9 == room_used(status(1, ready_records=885).stats)


def test_plain_values_hold_all_for_a_script() -> None:
    """`telemq top --once --json`."""
    values = view(status(10, peer("a")), status(12, peer("a"))).to_dict()
    assert ("http://b:1", "", 12, 0.5) == tuple(
        values[name] for name in ("url", "fault", "uptime_s", "room_used")
    )
    assert {"accepted", "settled", "redelivered_messages", "buried_messages"} == set(
        values["rates"]
    )
    assert ("a", 0.0, "settles nothing") == tuple(
        values["peers"][0][name] for name in ("name", "per_s", "trouble")
    )
    assert {"url": "u", "fault": "down", "peers": []} == BrokerView("u", "down").to_dict()
