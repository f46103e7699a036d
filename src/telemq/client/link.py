"""What a streamer and a collector hold of a broker: a link that publishes, a link that consumes.

One thread owns a link; only `wake` may be called from others. Nothing happens between calls: see
`telemq.client.connection`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, Literal

import zmq

from telemq.client.connection import Connection
from telemq.client.consumer import ConsumerCore, ConsumerStats
from telemq.client.producer import ProducerCore, ProducerStats
from telemq.client.session import Confirmed, Delivered, Delivery, Lost
from telemq.client.settling import Settling
from telemq.clock import monotonic_ns
from telemq.keys import LinkKeys
from telemq.protocol import Payload

__all__ = ["ConsumerLink", "ProducerLink"]


class ProducerLink(Connection):
    """Publishes messages to one broker, and keeps each until the broker confirms it.

    Args:
        endpoint: the broker's endpoint for producers.
        name: for the broker's log.
        window_records: most unconfirmed records.
        window_bytes: most unconfirmed payload bytes.
        context: to share with other links of the same thread; by default the link has its own.
        keys: for a broker that has keys, or None.

    Raises:
        SettingError: the endpoint is malformed.
    """

    _core: ProducerCore

    def __init__(
        self,
        endpoint: str,
        *,
        name: str,
        window_records: int,
        window_bytes: int,
        context: zmq.Context[Any] | None = None,
        keys: LinkKeys | None = None,
    ) -> None:
        core = ProducerCore(
            name, window_records=window_records, window_bytes=window_bytes, seed=_seed()
        )
        super().__init__(endpoint, core, context, keys)

    def room_records(self) -> int:
        """Tell how many more records may be published; 0 when the window is full."""
        return self._core.room_records()

    def publish(
        self,
        id: str,
        records: int,
        payload: Payload,
        *,
        key: str = "",
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Hand over a message; it is sent when there is credit and kept until it is confirmed.

        Messages are sent together: at the next `poll`, or once enough of them wait.

        Raises:
            LocalProtocolError: that id is kept already, or the message is too large.
        """
        if self._core.keep(id, records, payload, key, metadata):
            self.flush()

    def flush(self) -> None:
        """Send what there is credit for now, rather than at the next `poll`."""
        self._run(self._core.flush(monotonic_ns()))

    def forget(self, id: str) -> None:
        """Drop a message that somebody else sees to now."""
        self._core.forget(id)

    def poll(self, timeout_s: float) -> list[str]:
        """Do all input and output; give the ids confirmed since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.

        Raises:
            LocalProtocolError: a kept message is larger than this broker takes.
        """
        confirmed = [c.ids for c in self._poll(timeout_s) if isinstance(c, Confirmed)]
        return confirmed[0] if len(confirmed) == 1 else list(chain.from_iterable(confirmed))

    def unconfirmed(self) -> int:
        """Tell how many messages are kept."""
        stats = self._core.stats()
        return stats.waiting_messages + stats.sent_messages

    def stats(self) -> ProducerStats:
        """Give a frozen snapshot."""
        return self._core.stats()


class ConsumerLink(Connection):
    """Receives messages from one broker and settles them.

    Args:
        endpoint: the broker's endpoint for consumers.
        name: for the broker's log.
        credit_records: most records delivered and not settled.
        credit_bytes: most payload bytes delivered and not settled.
        context: to share with other links of the same thread; by default the link has its own.
        keys: for a broker that has keys, or None.

    Raises:
        SettingError: the endpoint is malformed.
    """

    _core: ConsumerCore

    def __init__(
        self,
        endpoint: str,
        *,
        name: str,
        credit_records: int,
        credit_bytes: int,
        context: zmq.Context[Any] | None = None,
        keys: LinkKeys | None = None,
    ) -> None:
        self._lost: list[Delivery] = []
        self._settling = Settling(credit_records, credit_bytes)
        core = ConsumerCore(
            name, credit_records=credit_records, credit_bytes=credit_bytes, seed=_seed()
        )
        super().__init__(endpoint, core, context, keys)

    def close(self) -> None:
        """Say what was settled, then BYE, and free everything."""
        self._say_settled()
        super().close()

    def next_deadline_ns(self) -> int | None:
        """Give when a `poll` is due although nothing came; None when it never is."""
        deadlines = (super().next_deadline_ns(), self._settling.deadline_ns())
        return min((d for d in deadlines if d is not None), default=None)

    def poll(self, timeout_s: float) -> list[Delivery]:
        """Do all input and output; give the messages delivered since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.
        """
        results = self._poll(timeout_s)
        lost = {d for c in results if isinstance(c, Lost) for d in c.deliveries}
        # What the owner was done with comes again, too, but is nothing to the owner any more.
        self._lost = list(lost.difference(self._settling.take())) if lost else []
        came = [c.deliveries for c in results if isinstance(c, Delivered)]
        if lost:
            return [d for deliveries in came for d in deliveries if d not in lost]
        return came[0] if len(came) == 1 else list(chain.from_iterable(came))

    def lost(self) -> Sequence[Delivery]:
        """Give what, as the last `poll` found, will be delivered again, to us or to another."""
        return self._lost

    def settle(
        self,
        deliveries: Iterable[Delivery],
        outcome: Literal["ok", "retry", "bury"] = "ok",
        reason: str = "",
    ) -> None:
        """Be done with deliveries; those of a session that is over are ignored.

        The broker hears of it by one of the next calls of `poll`, within two milliseconds.
        """
        now_ns = monotonic_ns()
        if outcome != "ok":
            self._run(self._core.settle(deliveries, outcome, reason, now_ns))
            return
        self._settling.add(deliveries, now_ns)
        if self._settling.is_due(now_ns):
            self._say_settled()

    def renew(self, deliveries: Iterable[Delivery]) -> None:
        """Let the leases of these deliveries begin anew."""
        self._run(self._core.renew(deliveries, monotonic_ns()))

    def allow(self, records: int, size_bytes: int) -> None:
        """Hold at most this much from now on."""
        self._settling.allow(records, size_bytes)
        self._run(self._core.allow(records, size_bytes, monotonic_ns()))

    def pause(self) -> None:
        """Take no more deliveries; what was delivered may still be settled."""
        self._settling.allow(0, 0)
        self._run(self._core.pause(monotonic_ns()))

    def stats(self) -> ConsumerStats:
        """Give a frozen snapshot."""
        return self._core.stats()

    def _advance(self, now_ns: int) -> None:
        super()._advance(now_ns)
        if self._settling.is_due(now_ns):
            self._say_settled()

    def _say_settled(self) -> None:
        self._run(self._core.settle(self._settling.take(), "ok", "", monotonic_ns()))


def _seed() -> int:
    return int.from_bytes(os.urandom(8), "big")
