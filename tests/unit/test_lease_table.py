"""Leases by number: found by any of theirs, whatever was cut or ended around them."""

from __future__ import annotations

from typing import cast
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from telemq.broker import lease as lease_module
from telemq.broker.bundle import Bundle
from telemq.broker.lease import Lease, LeaseTable
from telemq.broker.peers import Consumer
from telemq.protocol import Packed

_CONSUMERS = [cast("Consumer", object()) for _ in range(2)]  # the table only compares them


def bundle(count: int) -> Bundle:
    messages = tuple(Packed(f"m{n}", 2, 3, "", {}) for n in range(count))
    return Bundle(messages, bytes(3 * count), 2 * count, 3 * count, 1, 0, "", 0)


_steps = st.lists(st.tuples(st.sampled_from("aacr"), st.integers(0, 255), st.integers(0, 255)))


@given(_steps)
def test_each_number_finds_its_lease_as_long_as_that_is_live(
    steps: list[tuple[str, int, int]],
) -> None:
    """Consumers settle in any order, some messages of a bundle or all."""
    with patch.object(lease_module, "_OVER_MAX", 2):
        table, live = LeaseTable(10), list[Lease]()
        for kind, a, b in steps:
            one = live[a % len(live)] if live else None
            if kind == "a" or one is None:
                live.append(table.add(bundle(1 + a % 5), _CONSUMERS[b % 2], 0))
            elif kind == "r":
                live.remove(one)
                table.remove(one)
            elif len(one.bundle) > 1:
                live.remove(one)
                live += table.split(one, *one.bundle.cut(1 + b % (len(one.bundle) - 1)))
            numbers = {n: lease for lease in live for n in range(lease.first, lease.end)}
            for number in range(table._next + 2):
                lease = numbers.get(number)
                for consumer in _CONSUMERS:
                    wanted = lease if lease and lease.consumer is consumer else None
                    assert wanted is table.held(number, consumer)
            assert {id(lease) for lease in live} == set(map(id, table.all()))
            assert len(numbers) == table.messages
            assert (2 * len(numbers), 3 * len(numbers)) == (table.records, table.size_bytes)
            assert len(table._firsts) <= 2 * len(live) + 3


def test_numbers_of_what_is_over_are_not_kept_for_ever() -> None:
    """A broker that runs for years, with one message at a time."""
    table, consumer = LeaseTable(10), _CONSUMERS[0]
    for _ in range(3000):
        table.remove(table.add(bundle(3), consumer, 0))
    assert len(table._firsts) <= 1001
    assert 0 == table.messages == table.records == table.size_bytes
