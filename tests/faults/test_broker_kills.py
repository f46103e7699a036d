"""Fault 1 at the level of the protocol: the broker is killed 20 times under load."""

from __future__ import annotations

import random
import time
from collections import Counter
from pathlib import Path

import pytest

from telemq.client.link import ConsumerLink, ProducerLink
from tests.support.killable import KillableBroker, killable_broker

pytestmark = [pytest.mark.faults, pytest.mark.timeout(300)]

KILLS = 20
#: Confirms between two kills: it is under load each time, not just starting.
CONFIRMS = 150
_WITHIN_S = 60.0


class Load:
    """Two producers and a slow consumer, in one loop.

    Attributes:
        published: ids handed to a producer.
        confirmed: ids that a producer was told to forget.
        received: deliveries by id: the ledger.
    """

    def __init__(self, broker: KillableBroker) -> None:
        self.published: list[str] = []
        self.confirmed: Counter[str] = Counter()
        self.received: Counter[str] = Counter()
        self._producers = [
            ProducerLink(broker.producers, name=f"p{n}", window_records=200, window_bytes=10**6)
            for n in range(2)
        ]
        # So little credit that the broker always holds much more than was delivered.
        self._consumer = ConsumerLink(
            broker.consumers, name="c", credit_records=20, credit_bytes=10**6
        )

    def turn(self, *, publish: bool = True) -> None:
        """Do a little of everything."""
        for producer in self._producers:
            while publish and producer.room_records() > 0:
                id = f"s#{len(self.published)}"
                producer.publish(id, 1, id.encode() * 20)
                self.published.append(id)
            self.confirmed.update(producer.poll(0))
        deliveries = self._consumer.poll(0.001)
        for delivery in deliveries:
            assert delivery.id.encode() * 20 == bytes(delivery.payload)
            self.received[delivery.id] += 1
        self._consumer.settle(deliveries)

    def finish(self) -> None:
        """Go on until all that was published is confirmed and received."""
        end = time.monotonic() + _WITHIN_S
        while len(self.confirmed) < len(self.published) or set(self.received) < set(self.published):
            assert time.monotonic() < end, f"lost: {set(self.published) - set(self.received)}"
            self.turn(publish=False)

    def close(self) -> None:
        for link in (*self._producers, self._consumer):
            link.close()


@pytest.mark.parametrize("journaled", [False, True], ids=["memory", "journal"])
def test_fault_1_broker_killed_20_times_loses_nothing(journaled: bool, tmp_path: Path) -> None:
    """The machine of the broker runs out of memory again and again.

    With a journal, its confirms come before anybody has the message, and producers forget: only
    the journal can bring it back.
    """
    seed = 7
    choose = random.Random(seed)
    flags = (f"--journal={tmp_path}", "--journal-segment-bytes=65536") if journaled else ()
    with killable_broker(*flags) as broker:
        load = Load(broker)
        early = 0
        try:
            for _ in range(KILLS):
                aim = len(load.confirmed) + CONFIRMS
                end = time.monotonic() + _WITHIN_S
                while len(load.confirmed) < aim:
                    assert time.monotonic() < end, "the producers wait in vain"
                    load.turn()
                for _ in range(choose.randrange(20)):
                    load.turn()
                broker.kill()
                early += len(set(load.confirmed) - set(load.received))
                broker.start()
            load.finish()
        finally:
            load.close()
    doubled = sum(n - 1 for n in load.received.values())
    print(
        f"seed {seed}, journal {journaled}: {KILLS} kills, {len(load.published)} messages, "
        f"{early // KILLS} confirmed and not received at a kill, {doubled} received again"
    )
    assert set(load.published) == set(load.received) == set(load.confirmed)
    assert {1} == set(load.confirmed.values())
    # Without a journal nothing is confirmed before it is received; with one, much is.
    assert (early > KILLS) if journaled else (early == 0)
