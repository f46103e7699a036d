"""The broker's whole rule book, without a socket, a clock or a log.

What peers send and the time come in as arguments; what to send comes out as values. The same calls
give the same answers, byte for byte. There is one door for each kind of event (`receive`,
`peer_lost`, `revoke`, `advance`, `drain`), and nothing else changes state::

    publish -> READY -> LEASED -> settled ok -> CONFIRM to the producer
                 ^         |
                 |         |-- lease or session ended: back at once, attempt + 1
                 |         |-- retry: back after a pause, attempt + 1
                 '---------'-- attempts at the limit, or bury: dead, delivered as a dead letter
                               until a consumer has kept it; then CONFIRM, too

Messages that arrived together are held as one (`bundle`) and cut apart where that matters;
what is said here of a message is true of each of them.

Promises, each checked by `check()` or by a property of its own (tests/property):

P1  ready + leased + granted and not spent never exceeds the capacity, in records or in bytes; what
    a journal brought back may, if the capacity was lowered, but nothing is granted then.
P2  accepted + restored = settled + buried + ready + leased.
P3  A message is in exactly one place.
P4  A lease has a live owner.
P5  Delivered and unsettled is within the consumer's credit (one message alone may be larger).
P6  A message that is not dead is delivered at most `attempts_max` times.
P7  After `advance(t)` no lease ends at or before t, and no peer is over its silence.
P8  `next_deadline_ns` is the earliest live deadline: of a lease, a pause or a peer.
P9  First deliveries leave in order of arrival. A message that came back leaves before them, once
    its pause is over; those that came back and are not paused leave in order of arrival. Only one
    that was settled `retry` is paused, for a time that doubles with its attempts.
P10 A grant never exceeds its limits.
P11 Settling or renewing a lease that has ended changes nothing.
P12 Same inputs, same outputs.

Deliberately absent: memory of confirmed ids (the ledger has that), order between consumers,
priorities, and any wait: what cannot be done now is done when the event comes that allows it.
"""

from __future__ import annotations

from collections.abc import Iterable

from telemq.broker.bundle import Bundle
from telemq.broker.credit import Credits
from telemq.broker.intake import Intake
from telemq.broker.inventory import Inventory
from telemq.broker.limits import BrokerLimits
from telemq.broker.offenders import Offenders
from telemq.broker.packing import deliveries
from telemq.broker.peers import Consumer, Outgoing, Peer, PeerId, PeerTable, Producer
from telemq.broker.stats import BrokerStats, Counters, PeerStats
from telemq.errors import RemoteProtocolError
from telemq.protocol import (
    LEASES_MAX,
    SILENT_BEATS,
    VERSION,
    Bye,
    Confirm,
    Credit,
    Error,
    Frames,
    FromPeer,
    Grant,
    Hello,
    Ping,
    Publish,
    PublishPack,
    Renew,
    Return,
    Role,
    Settle,
    Want,
    Welcome,
    speaks_packs,
)

__all__ = ["BrokerCore", "Outgoing"]

#: Larger payloads in a PACK are best sent in a frame of their own (see `telemq.frames`).
_JOIN_BYTES = 131_072
#: Numbers in one CONFIRM: 16 digits each, and as many counts, are below a control frame's limit.
_CONFIRMS_MAX = 1500


class BrokerCore:
    """All state of one broker; see the module for its rules.

    Args:
        limits: every bound.
        secret: makes session tokens unguessable; the same secret gives the same tokens.

    Attributes:
        limits: every bound.
    """

    def __init__(self, limits: BrokerLimits, secret: bytes) -> None:
        self.limits = limits
        self._peers = PeerTable(secret, limits.heartbeat_ns, SILENT_BEATS * limits.heartbeat_ns)
        self._counters = Counters()
        self._credits = Credits(limits)
        self._inventory = Inventory(limits, self._counters)
        self._intake = Intake(limits, self._peers, self._credits, self._inventory, self._counters)
        self._offenders = Offenders(limits)
        #: By session: the first of numbers in a row, and how many.
        self._confirms: dict[str, list[tuple[int, int]]] = {}
        self._draining = False
        #: See `journaled`: no credit while the journal can take no more.
        self._stalled = False
        self._now = 0
        self._out: list[Outgoing] = []

    # ---- the doors -------------------------------------------------------------------------

    def receive(self, id: PeerId, message: FromPeer, frames: Frames, now_ns: int) -> list[Outgoing]:
        """Take in one message of a peer.

        Args:
            id: where it came from.
            message: its control frame.
            frames: its payload frames.
            now_ns: the moment, monotonic; going back is taken for standing still.
        """
        self._now = max(now_ns, self._now)
        try:
            if not self._hears(id, isinstance(message, Hello)):
                pass
            elif isinstance(message, Hello):
                self._hello(id, message)
            else:
                self._dispatch(id, message, frames)
        except RemoteProtocolError as error:
            self._refuse(id, message.session, error)
        return self._settle_up()

    def refuse(self, id: PeerId, error: RemoteProtocolError, now_ns: int) -> list[Outgoing]:
        """End the session at an address that sent what cannot even be decoded."""
        self._now = max(now_ns, self._now)
        if self._hears(id, False):
            peer = self._peers.at(id)
            self._refuse(id, peer.session if peer else "", error)
        return self._settle_up()

    def peer_lost(self, id: PeerId, now_ns: int) -> list[Outgoing]:
        """End the session of a peer that cannot be reached any more."""
        self._now = max(now_ns, self._now)
        if peer := self._peers.at(id):
            self._end(peer, "its connection was lost")
        return self._settle_up()

    def revoke(self, role: Role, key: str, now_ns: int) -> list[Outgoing]:
        """End all sessions of a key that is not allowed any more, and say so to its peers."""
        self._now = max(now_ns, self._now)
        for peer in self._peers.all():
            if peer.id.role == role and peer.id.key == key:
                self._end(peer, "its consumer's key was revoked")
                error = RemoteProtocolError("denied", "this key is not allowed here any more")
                self._refuse(peer.id, peer.session, error)
        return self._settle_up()

    def advance(self, now_ns: int) -> list[Outgoing]:
        """Let time pass: end leases and silent sessions that are over, send PINGs that are due."""
        self._now = max(now_ns, self._now)
        for peer in self._peers.silent(self._now):
            self._counters.peers_silent += 1
            self._end(peer, "its consumer fell silent")
        self._inventory.expire(self._now)
        out = self._settle_up()
        for peer in self._peers.due_ping(self._now):
            out.append(Outgoing(peer.id, Ping(peer.session, self._number(peer))))
        return out

    def drain(self, now_ns: int) -> list[Outgoing]:
        """Grant nothing any more and take no new producer, so that the queue runs empty."""
        self._now = max(now_ns, self._now)
        self._draining = True
        return self._settle_up()

    def close(self) -> list[Outgoing]:
        """Say BYE to everybody; the core is not to be used after."""
        for peer in self._peers.all():
            self._out.append(Outgoing(peer.id, Bye(peer.session, self._number(peer))))
        return self._take()

    # ---- what it knows ---------------------------------------------------------------------

    def next_deadline_ns(self) -> int | None:
        """Give when `advance` has something to do next, or None when nothing is pending."""
        deadlines = (
            self._inventory.leases.next_end_ns(),
            self._inventory.ready.next_wake_ns(),
            self._peers.next_deadline_ns(),
        )
        return min((d for d in deadlines if d is not None), default=None)

    def name_of(self, id: PeerId) -> str:
        """Give the name that the peer at an address gave itself, or an empty one."""
        peer = self._peers.at(id)
        return peer.name if peer else ""

    def stats(self) -> BrokerStats:
        """Give a frozen snapshot of all counts."""
        from telemq.broker.snapshot import snapshot  # noqa: PLC0415 - it reads this module's class

        return snapshot(self)

    def peer_stats(self, now_ns: int, most: int) -> tuple[PeerStats, ...]:
        """Give a frozen snapshot of each session, longest silent first, at most so many."""
        return self._peers.stats(now_ns, most)

    def check(self) -> None:
        """Assert every invariant; costs a pass over everything, so it is for tests."""
        from telemq.broker.check import check_core  # noqa: PLC0415 - only where it is asked for

        check_core(self)

    # ---- sessions --------------------------------------------------------------------------

    def _hears(self, id: PeerId, greets: bool) -> bool:
        heard = self._offenders.is_heard(id, greets, self._now)
        self._counters.unheard += not heard
        return heard

    def _hello(self, id: PeerId, hello: Hello) -> None:
        self._offenders.note(id, True, self._now)
        if peer := self._peers.at(id):
            self._end(peer, "its consumer began anew")
        if hello.version.partition(".")[0] != VERSION.partition(".")[0]:
            raise RemoteProtocolError(
                "version", f"version {hello.version!r} is not spoken here; {VERSION} is"
            )
        if hello.role != id.role:
            raise RemoteProtocolError("role", f"this endpoint is for a {id.role}")
        if len(self._peers) >= self.limits.peers_max:
            raise RemoteProtocolError("full", f"{self.limits.peers_max} peers are the limit")
        if self._draining and hello.role == "producer":
            raise RemoteProtocolError("closing", "the broker is draining")
        packs = speaks_packs(hello.version)
        peer = self._peers.open(id, hello.name, self._now, packs=packs)
        self._counters.sessions += 1
        self._offenders.forgive(id)
        welcome = Welcome(
            peer.session,
            self._number(peer),
            VERSION,
            max(1, self.limits.heartbeat_ns // 1_000_000),
            self.limits.largest_records,
            self.limits.largest_bytes,
            _JOIN_BYTES,
        )
        self._out.append(Outgoing(id, welcome))

    def _dispatch(self, id: PeerId, message: FromPeer, frames: Frames) -> None:
        peer = self._peers.at(id)
        if peer is None:
            raise RemoteProtocolError("no_session", "say HELLO first")
        if message.session != peer.session:
            # Sent before the peer heard of its new session; it will publish it again.
            self._counters.stale_messages += 1
            return
        if message.number != peer.heard + 1:
            raise RemoteProtocolError(
                "gap", f"number {message.number} came where {peer.heard + 1} was next"
            )
        numbers = len(message.messages) if isinstance(message, PublishPack) else 1
        self._peers.heard(peer, self._now, numbers)
        if isinstance(message, Bye):
            self._end(peer, "its consumer left")
        elif isinstance(peer, Producer):
            self._from_producer(peer, message, frames)
        elif isinstance(peer, Consumer):
            self._from_consumer(peer, message)

    def _refuse(self, id: PeerId, session: str, error: RemoteProtocolError) -> None:
        self._counters.refused[error.code] = self._counters.refused.get(error.code, 0) + 1
        self._offenders.note(id, False, self._now)
        peer = self._peers.at(id)
        if peer is not None and peer.session == session:
            self._end(peer, "its consumer broke the protocol")
        self._out.append(Outgoing(id, Error(session, 0, error.code, error.detail)))

    def _end(self, peer: Peer, why: str) -> None:
        self._peers.close(peer)
        self._confirms.pop(peer.session, None)
        if isinstance(peer, Producer):
            self._credits.close(peer)
        elif isinstance(peer, Consumer):
            self._inventory.leave(peer, why)

    # ---- producers -------------------------------------------------------------------------

    def _from_producer(self, producer: Producer, message: FromPeer, frames: Frames) -> None:
        match message:
            case Publish():
                self._intake.publish(producer, message, frames, self._now)
            case PublishPack():
                self._intake.publish_pack(producer, message, frames, self._now)
            case Want():
                self._credits.want(producer, message)
            case Return():
                self._credits.take(producer, message.records, message.bytes, "returned")
            case Ping():
                pass
            case _:
                raise _wrong_role(producer, message)

    # ---- consumers -------------------------------------------------------------------------

    def _from_consumer(self, consumer: Consumer, message: FromPeer) -> None:
        match message:
            case Settle():
                _check_count(sum([settlement.count for settlement in message.settlements]))
                for settlement in message.settlements:
                    for bundle in self._inventory.settle(consumer, settlement, self._now):
                        self._confirm(bundle)
            case Credit():
                consumer.credit_records, consumer.credit_bytes = message.records, message.bytes
                self._inventory.welcome(consumer)
            case Renew():
                counts = message.counts or (1,) * len(message.leases)
                _check_count(sum(counts))
                if len(counts) != len(message.leases):
                    raise RemoteProtocolError("bad_message", "RENEW has a count for each lease")
                for first, count in zip(message.leases, counts, strict=True):
                    self._inventory.renew(consumer, first, count, self._now)
            case Ping():
                pass
            case _:
                raise _wrong_role(consumer, message)

    def _confirm(self, bundle: Bundle) -> None:
        """Confirm messages to whoever published them last, if they are still there."""
        if bundle.again is None:
            self._confirm_to(bundle.session, bundle.number, len(bundle.messages), bundle.records)
        else:
            for claim in bundle.again.values():
                self._confirm_to(*claim)

    def _confirm_to(self, session: str, number: int, messages: int, records: int) -> None:
        if self._peers.let_go(session, messages, records):
            runs = self._confirms.setdefault(session, [])
            if runs and sum(runs[-1]) == number:
                number, before = runs.pop()
                messages += before
            runs.append((number, messages))

    # ---- after every event -----------------------------------------------------------------

    def _settle_up(self) -> list[Outgoing]:
        """Do all that the event made possible: confirm, deliver, grant."""
        for session, runs in self._confirms.items():
            peer = self._peers.of(session)
            assert peer is not None, "confirms of an ended session are dropped with it"
            for numbers, counts in _parts(runs, folds=peer.packs):
                confirm = Confirm(session, self._number(peer), numbers, counts)
                self._out.append(Outgoing(peer.id, confirm))
        self._confirms.clear()
        lease_ms = max(1, self.limits.lease_ns // 1_000_000)
        self._out += deliveries(self._inventory.deliver(self._now), self._number, lease_ms)
        if not (self._draining or self._stalled):
            held = self._inventory
            for producer, records, size_bytes in self._credits.grant(held.records, held.size_bytes):
                grant = Grant(producer.session, self._number(producer), records, size_bytes)
                self._out.append(Outgoing(producer.id, grant))
        return self._take()

    def _number(self, peer: Peer, numbers: int = 1) -> int:
        return self._peers.said(peer, self._now, numbers)

    def _take(self) -> list[Outgoing]:
        out, self._out = self._out, []
        return out


def _parts(
    runs: list[tuple[int, int]], *, folds: bool
) -> Iterable[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Give what one CONFIRM after another says of numbers in a row: firsts and counts, or each."""
    if not folds:
        runs = [(number, 1) for first, count in runs for number in range(first, first + count)]
    for start in range(0, len(runs), _CONFIRMS_MAX):
        numbers, counts = zip(*runs[start : start + _CONFIRMS_MAX], strict=True)
        yield numbers, counts if any(count > 1 for count in counts) else ()


def _check_count(leases: int) -> None:
    """Refuse what would cost more than its frame is long."""
    if leases > LEASES_MAX:
        detail = f"{leases} leases in one message; {LEASES_MAX} are the limit"
        raise RemoteProtocolError("bad_message", detail)


def _wrong_role(peer: Peer, message: FromPeer) -> RemoteProtocolError:
    said = type(message).__name__.upper()
    return RemoteProtocolError("role", f"a {peer.id.role} does not say {said}")
