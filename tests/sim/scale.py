"""How a broker's rules behave with many more peers than one machine can connect.

Run once in a while, by hand; docs/scaling.md has the figures::

    python -m tests.sim.scale --producers 10000 --consumers 1000

Real cores of the broker and of every peer, joined on a manual clock; every message travels encoded.
Producers are greedy: each always has more to publish. Half of them come at once, the others one by
one during the first 100 ms, so that those who come early find an empty broker.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Sequence

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import PeerId
from telemq.protocol import Frames, FromPeer
from tests.support.fakelink import MS, SECOND, Network

__all__ = ["main"]

RECORDS, BYTES = 500, 500


def _limits(producers: int, peers: int) -> BrokerLimits:
    """Room for three messages of each producer, so that credit is what all wait for."""
    return BrokerLimits(
        capacity_records=3 * producers * RECORDS,
        capacity_bytes=3 * producers * BYTES,
        message_bytes_max=10_000,
        credit_records_max=100_000,
        credit_bytes_max=500_000,
        lease_ns=30 * SECOND,
        attempts_max=20,
        retry_ns=100 * MS,
        retry_ns_max=10 * SECOND,
        heartbeat_ns=SECOND,
        peers_max=2 * peers,
        errors_max=20,
        errors_ns=SECOND,
    )


class _Timed(BrokerCore):
    """A broker that adds up what its decisions took."""

    seconds = 0.0

    def receive(self, id: PeerId, message: FromPeer, frames: Frames, now_ns: int) -> list[Outgoing]:
        began = time.perf_counter()
        out = super().receive(id, message, frames, now_ns)
        self.seconds += time.perf_counter() - began
        return out

    def advance(self, now_ns: int) -> list[Outgoing]:
        began = time.perf_counter()
        out = super().advance(now_ns)
        self.seconds += time.perf_counter() - began
        return out

    def check(self) -> None:
        """Nothing: it looks at everything; here the promises are taken as proven."""


def main(words: Sequence[str] | None = None) -> None:
    """Run one simulation and print what it saw."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--producers", type=int, default=10_000)
    parser.add_argument("--consumers", type=int, default=1_000)
    parser.add_argument("--messages", type=int, default=20, help="a producer, on average")
    given = parser.parse_args(words)
    producers, total = given.producers, given.producers * given.messages
    network = Network(_limits(producers, producers + given.consumers), 1, check_every=5003)
    network.core = core = _Timed(network.limits, b"0")
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(given.consumers):
        network.add_consumer(credit_records=5000, credit_bytes=5000, service_ns=20 * MS)

    def arrive(number: int) -> None:
        backlog = [(f"{number}#{n}", RECORDS, BYTES) for n in range(3 * given.messages)]
        network.add_producer(backlog, window_records=20 * RECORDS)

    for number in range(producers):
        late_ns = 0 if number % 2 else number * 100 * MS // producers
        network.at(late_ns, lambda number=number: arrive(number))  # type: ignore[misc]
    began = time.perf_counter()
    marks = []
    for share in (0.1, 0.25, 1.0):
        limit = int(share * total)
        assert network.run(lambda limit=limit: core._counters.settled >= limit, 10**13)  # type: ignore[misc]
        confirmed = [len(producer.confirmed) for producer in network.producers]
        marks.append((share, confirmed))
    took_s = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(
        f"{producers} producers, {given.consumers} consumers: {network.events:,} events of the "
        f"broker took it {core.seconds:.1f} s ({network.events / core.seconds:,.0f}/s), of "
        f"{took_s:.0f} s for all; {network.now / 1e9:.1f} s simulated, "
        f"{(peak - peak_before) / 1024:,.0f} MB with all peers"
    )
    for share, confirmed in marks:
        print(
            f"  after {share:.0%}: confirmed per producer {min(confirmed)} to {max(confirmed)}, "
            f"mean {statistics.mean(confirmed):.1f}, deviation {statistics.pstdev(confirmed):.2f}"
        )


if __name__ == "__main__":
    main()
