"""A thousand peers on one broker and a manual clock, through minutes of deaths and hangs."""

from __future__ import annotations

import statistics

import pytest

from telemq.broker.limits import BrokerLimits
from tests.support.fakelink import MS, SECOND, FakeProducer, Network, Trouble

PRODUCERS, CONSUMERS, MESSAGES = 900, 100, 20
RECORDS, BYTES = 10, 50
#: Room for about three messages of each producer, so that credit is what everybody waits for.
LIMITS = BrokerLimits(
    capacity_records=3 * PRODUCERS * RECORDS,
    capacity_bytes=3 * PRODUCERS * BYTES,
    message_bytes_max=1000,
    credit_records_max=1000,
    credit_bytes_max=10_000,
    lease_ns=10 * SECOND,
    attempts_max=10_000,
    heartbeat_ns=SECOND,
    peers_max=2000,
    retry_ns=100_000_000,
    retry_ns_max=1_000_000_000,
    errors_max=20,
    errors_ns=1_000_000_000,
)


class _Fleet:
    """The peers, and what goes wrong with them."""

    def __init__(self, seed: int) -> None:
        self.network = Network(
            LIMITS, seed, Trouble(loss=2e-4, cut=2e-4, delay_ns=5 * MS), check_every=499
        )
        self.random = self.network.random
        for i in range(PRODUCERS):
            backlog = [(f"{i}#{n}", RECORDS, BYTES) for n in range(MESSAGES)]
            self.network.add_producer(backlog, window_records=40)
        for i in range(CONSUMERS):
            self._hire(slow=i % 10 == 0)
        self.deaths = self.hangs = 0

    def trouble(self) -> None:
        """Forty times a second somebody dies or hangs, until nothing is left to do."""
        chance = self.random.random()
        if chance < 0.3:
            self._hand_over(self.random.choice([p for p in self.network.producers if p.alive]))
        elif chance < 0.6:
            consumers = self.network.consumers
            victim = self.random.choice(consumers)
            consumers.remove(victim)
            self.network.kill(victim)
            self._hire(slow=False)
            self.deaths += 1
        else:
            peer = self.random.choice([*self.network.producers, *self.network.consumers])
            if peer.alive and not peer.hung:
                self.network.hang(peer, self.random.randint(SECOND, 15 * SECOND))
                self.hangs += 1
        if not self.network.all_confirmed():
            self.network.at(self.network.now + 25 * MS, self.trouble)

    def _hire(self, slow: bool) -> None:
        service_ns = SECOND if slow else 20 * MS
        self.network.add_consumer(credit_records=100, credit_bytes=500, service_ns=service_ns)

    def _hand_over(self, producer: FakeProducer) -> None:
        """One dies; another takes over what was not confirmed, under the same ids."""
        self.deaths += 1
        self.network.kill(producer)
        name = (producer.confirmed or [entry[0] for entry in producer.backlog] or [""])[0]
        stream = name.partition("#")[0]
        done = {id for p in self.network.producers for id in p.confirmed}
        ids = [f"{stream}#{n}" for n in range(MESSAGES)] if stream else []
        self.network.add_producer([(id, RECORDS, BYTES) for id in ids if id not in done])


@pytest.mark.parametrize("seed", [20250718, 7])
def test_thousand_peers_lose_nothing(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """A busy data centre on a bad day."""
    fleet = _Fleet(seed)
    network = fleet.network
    network.at(SECOND, fleet.trouble)
    began = {f"{i}#{n}" for i in range(PRODUCERS) for n in range(MESSAGES)}
    finished = network.run(network.all_confirmed, 1000 * SECOND)
    network.core.check()
    stats = network.core.stats()
    with capsys.disabled():
        print(
            f"\nseed {seed}: {network.now / 1e9:.1f} s, {network.events} events, "
            f"{fleet.deaths} deaths, {fleet.hangs} hangs, {stats.counters}"
        )
    assert finished
    assert began <= network.ledger.keys(), "a message was lost"
    counters = stats.counters
    assert counters.accepted == counters.settled + stats.ready_messages + stats.leased_messages
    assert not {"over_credit", "too_large", "bad_message", "role"} & counters.refused.keys()
    assert fleet.deaths > 20
    assert fleet.hangs > 20
    assert 0 < counters.redelivered
    assert 0 < counters.duplicates


@pytest.mark.parametrize("seed", [1])
def test_equal_producers_get_equal_shares(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody is left behind while there is too little room for all."""
    network = Network(LIMITS, seed, check_every=997)
    for i in range(PRODUCERS):
        network.add_producer([(f"{i}#{n}", RECORDS, BYTES) for n in range(1000)])
    for _ in range(CONSUMERS):
        network.add_consumer(credit_records=100, credit_bytes=500, service_ns=20 * MS)
    counters = network.core._counters
    # Whoever came first found an empty broker, and got more.
    assert network.run(lambda: counters.settled > 3_000, 1000 * SECOND)
    before = [len(p.confirmed) for p in network.producers]
    assert network.run(lambda: counters.settled > 12_000, 1000 * SECOND)
    shares = [len(p.confirmed) - b for p, b in zip(network.producers, before, strict=True)]
    mean, spread = statistics.mean(shares), statistics.pstdev(shares)
    with capsys.disabled():
        print(
            f"\nseed {seed}: {network.now / 1e9:.1f} s, confirmed per producer "
            f"{min(shares)} to {max(shares)}, mean {mean:.1f}, deviation {spread:.2f}"
        )
    assert max(shares) <= 2 * mean
    assert min(shares) >= mean / 2
