"""A producer at several brokers that share nothing: the work is spread by credit.

It gives each broker one message more than it has credit for; the broker's grant then brings
the next. So work goes where there is room, and at most one message waits at a broker that has none.
One that has waited too long is offered to another. What a broker was sent and did not confirm when
its session ended goes to any other under the same ids; should the first have kept it after all, the
ledger knows it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import zmq

from telemq.client.link import ProducerLink
from telemq.client.producer import ProducerStats
from telemq.engine.brokers import Brokers, ManyEnd
from telemq.engine.resolve import Resolver, addresses
from telemq.errors import LocalProtocolError
from telemq.keys import LinkKeys
from telemq.protocol import Payload

__all__ = ["ManyProducer"]

#: How long a message waits for the credit of one broker before another is asked. Well above the
#: time that a broker takes to grant, and that unused credit stays with a producer (0.1 s).
_PATIENCE_S = 0.5


@dataclass(slots=True, eq=False)
class _Kept:
    id: str
    records: int
    payload: Payload
    key: str
    metadata: dict[str, str]
    link: ProducerLink | None = None  # None while it waits for a broker with credit
    since_s: float = 0.0


class ManyProducer(ManyEnd):
    """Publishes to whichever broker has room, and keeps each message until it is confirmed.

    Args:
        endpoints: the brokers' endpoints for producers.
        name: for the brokers' logs.
        window_records: most unconfirmed records, at all brokers together.
        window_bytes: most unconfirmed payload bytes, at all brokers together.
        resolve_s: seconds between two looks at DNS.
        resolve: asks for one host name.
        keys: for brokers that have keys, all of them the same pair; or None.

    Raises:
        SettingError: an endpoint is malformed.
    """

    _brokers: Brokers[ProducerLink]

    def __init__(
        self,
        endpoints: Sequence[str],
        *,
        name: str,
        window_records: int,
        window_bytes: int,
        resolve_s: float = 10.0,
        resolve: Resolver = addresses,
        keys: LinkKeys | None = None,
    ) -> None:
        self._window_records = window_records
        self._window_bytes = window_bytes
        self._kept: dict[str, _Kept] = {}
        self._waiting: deque[_Kept] = deque()
        #: By link, the one message that it was given beyond its credit.
        self._stuck: dict[ProducerLink, _Kept] = {}
        #: By link, records and bytes that it can still send; what was published since is off.
        self._credit: dict[ProducerLink, tuple[int, int]] = {}
        #: Links with messages that have credit and are not sent yet.
        self._unsent: set[ProducerLink] = set()
        self._records = self._bytes = self._dropped_sessions = 0

        def connect(endpoint: str, context: zmq.Context[zmq.Socket[bytes]]) -> ProducerLink:
            return ProducerLink(
                endpoint,
                name=name,
                window_records=window_records,
                window_bytes=window_bytes,
                context=context,
                keys=keys,
            )

        self._brokers = Brokers(endpoints, resolve_s=resolve_s, resolve=resolve, connect=connect)

    def room_records(self) -> int:
        """Tell how many more records may be published; 0 when the window is full."""
        if self._bytes >= self._window_bytes:
            return 0
        return max(0, self._window_records - self._records)

    def publish(
        self,
        id: str,
        records: int,
        payload: Payload,
        *,
        key: str = "",
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Hand over a message; it goes to a broker with credit and is kept until confirmed.

        Messages are sent together: at the next `poll`, or once enough of them wait.

        Raises:
            LocalProtocolError: that id is kept already, or the message is too large.
        """
        if id in self._kept:
            raise LocalProtocolError(f"{id} is published already and not confirmed")
        kept = _Kept(id, records, payload, key, metadata or {})
        self._kept[id] = kept
        self._waiting.append(kept)
        self._records += records
        self._bytes += len(payload)
        self._feed()

    def forget(self, id: str) -> None:
        """Drop a message that somebody else sees to now."""
        kept = self._kept.get(id)
        if kept is None:
            return
        self._release(kept)
        if kept.link is None:
            self._waiting.remove(kept)
        else:
            kept.link.forget(id)

    def poll(self, timeout_s: float) -> list[str]:
        """Do all input and output; give the ids confirmed since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.

        Raises:
            LocalProtocolError: a kept message is larger than a broker takes.
        """
        end = time.monotonic() + timeout_s
        while True:
            for link in self._brokers.follow():
                self._dropped_sessions += link.stats().sessions
                self._take_back(link)
                link.close()
            confirmed = []
            self._send()  # first: a poll may give back credit that is not used
            for link in self._brokers.links.values():
                confirmed += link.poll(0.0)
            for id in confirmed:
                self._release(self._kept[id])
            self._share_out()
            self._send()
            wait_s = 0.0 if confirmed else max(0.0, end - time.monotonic())
            woken = self._brokers.wait(min(wait_s, _PATIENCE_S) if self._stuck else wait_s)
            if confirmed or woken or time.monotonic() >= end:
                return confirmed

    def unconfirmed(self) -> int:
        """Tell how many messages are kept."""
        return len(self._kept)

    def stats(self) -> ProducerStats:
        """Give a frozen snapshot of all links together."""
        links = [link.stats() for link in self._brokers.links.values()]
        sent = sum(link.sent_messages for link in links)
        return ProducerStats(
            waiting_messages=len(self._kept) - sent,
            sent_messages=sent,
            unconfirmed_records=self._records,
            unconfirmed_bytes=self._bytes,
            credit_records=sum(link.credit_records for link in links),
            credit_bytes=sum(link.credit_bytes for link in links),
            sessions=self._dropped_sessions + sum(link.sessions for link in links),
        )

    def _share_out(self) -> None:
        """Take back from brokers that are gone, move what is stuck, feed those with credit."""
        for link in self._brokers.links.values():
            if not link.connected:
                self._take_back(link)
            elif not self._look(link):
                self._stuck.pop(link, None)
        self._move_stuck()
        self._feed()

    def _take_back(self, link: ProducerLink) -> None:
        """Let everything that a broker has not confirmed wait again, first and in order."""
        self._stuck.pop(link, None)
        self._credit.pop(link, None)
        self._unsent.discard(link)
        back = [kept for kept in self._kept.values() if kept.link is link]
        for kept in back:
            link.forget(kept.id)
            kept.link = None
        self._waiting.extendleft(reversed(back))

    def _move_stuck(self) -> None:
        now = time.monotonic()
        for link, kept in list(self._stuck.items()):
            if now - kept.since_s < _PATIENCE_S:
                continue
            other = next(iter(self._takers()), None)
            if other is not None:
                del self._stuck[link]
                link.forget(kept.id)
                self._give(kept, other)

    def _feed(self) -> None:
        """Give out what waits, one message a broker in turn, until none has credit left."""
        while self._waiting and (takers := self._takers()):
            for link in takers:
                if self._waiting:
                    self._give(self._waiting.popleft(), link)

    def _takers(self) -> list[ProducerLink]:
        return [
            link
            for link in self._brokers.connected
            if link not in self._stuck and not self._brokers.is_retired(link)
        ]

    def _give(self, kept: _Kept, link: ProducerLink) -> None:
        kept.link, kept.since_s = link, time.monotonic()
        link.publish(kept.id, kept.records, kept.payload, key=kept.key, metadata=kept.metadata)
        records, size_bytes = self._credit.get(link, (0, 0))
        records, size_bytes = records - kept.records, size_bytes - len(kept.payload)
        self._credit[link] = records, size_bytes
        self._unsent.add(link)
        if records < 0 or size_bytes < 0:
            link.flush()  # or what waits to be sent would look as if it waited for credit
            if self._look(link):
                self._stuck[link] = kept

    def _send(self) -> None:
        for link in self._unsent:
            link.flush()
        self._unsent.clear()

    def _look(self, link: ProducerLink) -> bool:
        """Take note of the credit of a link that was flushed; tell whether a message waits."""
        stats = link.stats()
        self._credit[link] = stats.credit_records, stats.credit_bytes
        return stats.waiting_messages > 0

    def _release(self, kept: _Kept) -> None:
        del self._kept[kept.id]
        self._records -= kept.records
        self._bytes -= len(kept.payload)
        if kept.link is not None and self._stuck.get(kept.link) is kept:
            del self._stuck[kept.link]
