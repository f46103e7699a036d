"""Fault 15: a whole fleet loses its broker at once and comes back."""

from __future__ import annotations

import time
from contextlib import closing

import pytest

from telemq.client.link import ConsumerLink, ProducerLink
from tests.support.brokers import DEADLINE_S
from tests.support.crowd import Consumers, Producers
from tests.support.services import running_broker_process

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

CLIENTS = 500
#: The table says ten seconds; a shared machine gets twice that.
BACK_WITHIN_S = 20.0


def test_fault_15_five_hundred_clients_come_back_after_a_restart() -> None:
    """The broker is updated: SIGKILL, and a new one at the same addresses."""
    with (
        running_broker_process() as (broker, front, back),
        closing(Producers(front, CLIENTS - 20, 20)) as producers,
        closing(Consumers(back, 20)) as consumers,
    ):
        links: list[ProducerLink | ConsumerLink] = [*producers.links, *consumers.links]

        def step() -> None:
            producers.step(0.001)
            consumers.step(0.001)

        end = time.monotonic() + DEADLINE_S
        while not all(link.connected for link in links) or not consumers.seen:
            assert time.monotonic() < end, "they did not all connect"
            step()
        broker.kill()
        began = time.monotonic()
        with running_broker_process(producers=front, consumers=back) as (after, _, _):
            came_back: dict[ProducerLink | ConsumerLink, float] = {}
            old = {link: link.stats().sessions for link in links}
            while len(came_back) < CLIENTS:
                took_s = time.monotonic() - began
                assert took_s < BACK_WITHIN_S, f"{len(came_back)} are back"
                step()
                for link in links:
                    if link not in came_back and link.stats().sessions > old[link]:
                        came_back[link] = took_s
            end = time.monotonic() + DEADLINE_S
            while not producers.done:
                assert time.monotonic() < end, "not all is confirmed"
                step()
            sessions = after.metric("telemq_broker_sessions_total")
            pauses = {link._core.session.pause_ns for link in links}
    times = sorted(came_back.values())
    print(
        f"{CLIENTS} clients back after {times[0]:.1f} to {times[-1]:.1f} s, half of them by "
        f"{times[CLIENTS // 2]:.1f} s; {sessions:.0f} sessions; "
        f"{len(pauses)} different pauses of {min(pauses) / 1e6:.1f} to {max(pauses) / 1e6:.1f} ms"
    )
    assert producers.ids() == set(consumers.seen), "lost"
    # Without backoff each would have tried many times. When they are back hangs on the new broker's
    # start and on this machine; the pauses that they chose do not. There are 256 to choose from:
    # 500 clients choose fewer than 150 different ones once in the age of the universe.
    assert sessions < 2 * CLIENTS
    assert len(pauses) > 150
    assert min(pauses) > 0
