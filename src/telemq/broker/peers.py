"""The broker's side of its sessions: who is there, when each was heard and spoken to last.

A session is one unbroken, numbered conversation (docs/protocol.md, Session). It is found by the
peer's address; its token is unguessable to other peers, because it is a keyed hash of a counter.
All peers have the same limits of silence and time never goes back, so two dictionaries kept in
order of last hearing and last speaking give every deadline exactly, without a heap.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import NamedTuple

from telemq.broker.bundle import Bundle
from telemq.broker.lease import Lease
from telemq.broker.stats import PeerStats
from telemq.protocol import Frames, FromBroker, Role, Want

__all__ = ["Consumer", "Outgoing", "Peer", "PeerId", "PeerTable", "Producer"]


class PeerId(NamedTuple):
    """Where a peer is reached.

    Attributes:
        role: which endpoint it is connected to.
        route: the routing id that ZeroMQ gave its connection.
        key: whose key the connection was made with, as ``name/digest``; empty without keys. So a
            session is never found by a message that came with another key.
    """

    role: Role
    route: bytes
    key: str = ""


class Outgoing(NamedTuple):
    """What the shell is to send.

    Attributes:
        peer: to whom.
        message: the control frame.
        frames: the payload frames, of DELIVER and PACK.
    """

    peer: PeerId
    message: FromBroker
    frames: Frames = ()


@dataclass(slots=True, eq=False)
class Peer:
    """One session, as the broker knows it.

    Attributes:
        id: where it is reached.
        session: its token.
        name: for logs.
        heard: number of the last message from it.
        said: number of the last message to it.
        heard_ns: when the last message from it came.
        said_ns: when the last message to it went.
        began_ns: when the session began.
        place: which session of this broker it is, from 1.
        packs: it takes a PACK.
    """

    id: PeerId
    session: str
    name: str
    heard: int
    said: int
    heard_ns: int
    said_ns: int
    began_ns: int
    place: int
    packs: bool


@dataclass(slots=True, eq=False)
class Producer(Peer):
    """A producer and its credit.

    Attributes:
        credit_records: granted and not spent.
        credit_bytes: granted and not spent.
        wish: its standing WANT, or None.
        grants: how many it has had.
        held_messages: its messages that are not settled.
        held_records: records in them.
        accepted_messages: taken from it into the queue.
        accepted_records: records in them.
    """

    credit_records: int = 0
    credit_bytes: int = 0
    wish: Want | None = None
    grants: int = 0
    held_messages: int = 0
    held_records: int = 0
    accepted_messages: int = 0
    accepted_records: int = 0

    def accept(self, messages: int, records: int) -> None:
        """Count messages that were taken from it into the queue."""
        self.accepted_messages += messages
        self.accepted_records += records
        self.hold(messages, records)

    def hold(self, messages: int, records: int) -> None:
        """Count messages in the queue whose confirm goes to it."""
        self.held_messages += messages
        self.held_records += records

    @property
    def is_waiting(self) -> bool:
        """Whether its credit does not cover its next message."""
        wish = self.wish
        return wish is not None and (
            self.credit_records < wish.least_records or self.credit_bytes < wish.least_bytes
        )


@dataclass(slots=True, eq=False)
class Consumer(Peer):
    """A consumer, the credit it gives, and what it holds.

    Attributes:
        credit_records: most records delivered and not settled.
        credit_bytes: most bytes delivered and not settled.
        out_messages: messages delivered and not settled.
        out_records: records in them.
        out_bytes: bytes in them.
        leases: its live leases; a dictionary, as a set that keeps its order.
        in_ring: it waits in the broker's ring of consumers that may have room.
        settled_messages: stored or kept as dead letters by it.
        settled_records: records in them.
        redelivered: messages that went back to the queue from it.
    """

    credit_records: int = 0
    credit_bytes: int = 0
    out_messages: int = 0
    out_records: int = 0
    out_bytes: int = 0
    leases: dict[Lease, None] = field(default_factory=dict)
    in_ring: bool = False
    settled_messages: int = 0
    settled_records: int = 0
    redelivered: int = 0

    def takes(self, bundle: Bundle) -> int:
        """Tell how many of its first messages may be delivered now, together.

        One that alone is larger than the whole credit may when nothing is outstanding: otherwise a
        small credit would stop the queue for ever. Dead letters travel alone, and so does whatever
        goes to a peer that does not speak PACK.
        """
        if not (self.credit_records and self.credit_bytes):
            return 0
        records = self.credit_records - self.out_records
        size_bytes = self.credit_bytes - self.out_bytes
        most = len(bundle.messages) if self.packs and not bundle.dead else 1
        if most == len(bundle.messages) and (
            bundle.records <= records and bundle.size_bytes <= size_bytes
        ):
            return most
        for count, message in enumerate(bundle.messages[:most]):
            records -= message.records
            size_bytes -= message.bytes
            if records < 0 or size_bytes < 0:
                return count or (0 if self.leases else 1)
        return most

    def hold(self, lease: Lease) -> None:
        """Take note of a new lease."""
        self.leases[lease] = None
        self.out_messages += len(lease.bundle.messages)
        self.out_records += lease.bundle.records
        self.out_bytes += lease.bundle.size_bytes

    def let_go(self, lease: Lease) -> None:
        """Take note that a lease is over."""
        del self.leases[lease]
        self.out_messages -= len(lease.bundle.messages)
        self.out_records -= lease.bundle.records
        self.out_bytes -= lease.bundle.size_bytes


class PeerTable:
    """All open sessions, by address and by token, in order of hearing and of speaking.

    Args:
        secret: makes session tokens unguessable.
        heartbeat_ns: a peer not spoken to for this long is due a PING.
        silence_ns: a peer not heard for this long is lost.
    """

    def __init__(self, secret: bytes, heartbeat_ns: int, silence_ns: int) -> None:
        self._secret = secret
        self._heartbeat_ns = heartbeat_ns
        self.silence_ns = silence_ns
        self._opened = 0
        self._by_heard: OrderedDict[PeerId, Peer] = OrderedDict()
        self._by_said: OrderedDict[PeerId, Peer] = OrderedDict()
        self._by_session: dict[str, Peer] = {}

    def __len__(self) -> int:
        return len(self._by_heard)

    def open(self, id: PeerId, name: str, now_ns: int, *, packs: bool) -> Peer:
        """Begin a session; there must be none at that address."""
        self._opened += 1
        token = hashlib.blake2b(
            self._opened.to_bytes(8, "big"), key=self._secret, digest_size=8
        ).hexdigest()
        kind = Producer if id.role == "producer" else Consumer
        peer = kind(
            id,
            token,
            name,
            0,
            0,
            heard_ns=now_ns,
            said_ns=now_ns,
            began_ns=now_ns,
            place=self._opened,
            packs=packs,
        )
        self._by_heard[id] = self._by_said[id] = self._by_session[token] = peer
        return peer

    def close(self, peer: Peer) -> None:
        """End an open session."""
        del self._by_heard[peer.id], self._by_said[peer.id], self._by_session[peer.session]

    def at(self, id: PeerId) -> Peer | None:
        """Find the session at an address."""
        return self._by_heard.get(id)

    def of(self, session: str) -> Peer | None:
        """Find the session of a token."""
        return self._by_session.get(session)

    def let_go(self, session: str, messages: int, records: int) -> bool:
        """Count off messages of a producer's; tell whether its session is still there."""
        peer = self._by_session.get(session)
        if isinstance(peer, Producer):
            peer.held_messages -= messages
            peer.held_records -= records
        return peer is not None

    def heard(self, peer: Peer, now_ns: int, numbers: int = 1) -> None:
        """Note that a message came, or a pack of so many."""
        peer.heard += numbers
        peer.heard_ns = now_ns
        self._by_heard.move_to_end(peer.id)

    def said(self, peer: Peer, now_ns: int, numbers: int = 1) -> int:
        """Note that a message goes, or a pack of so many, and give its number, or the first."""
        first = peer.said + 1
        peer.said += numbers
        peer.said_ns = now_ns
        self._by_said.move_to_end(peer.id)
        return first

    def silent(self, now_ns: int) -> list[Peer]:
        """List the peers that are lost by now."""
        lost = []
        for peer in self._by_heard.values():
            if peer.heard_ns + self.silence_ns > now_ns:
                break
            lost.append(peer)
        return lost

    def due_ping(self, now_ns: int) -> list[Peer]:
        """List the peers that are to be sent something by now."""
        due = []
        for peer in self._by_said.values():
            if peer.said_ns + self._heartbeat_ns > now_ns:
                break
            due.append(peer)
        return due

    def next_deadline_ns(self) -> int | None:
        """Give when the next peer is lost or due a PING, or None without peers."""
        if not self._by_heard:
            return None
        return min(
            next(iter(self._by_heard.values())).heard_ns + self.silence_ns,
            next(iter(self._by_said.values())).said_ns + self._heartbeat_ns,
        )

    def all(self) -> list[Peer]:
        """List every open session, longest silent first."""
        return list(self._by_heard.values())

    def stats(self, now_ns: int, most: int) -> tuple[PeerStats, ...]:
        """Give a frozen snapshot of each session, longest silent first, at most so many."""
        peers = itertools.islice(self._by_heard.values(), most)
        return tuple(_stats(peer, now_ns) for peer in peers)


def _stats(peer: Peer, now_ns: int) -> PeerStats:
    age_s, silent_s = (now_ns - peer.began_ns) / 1e9, (now_ns - peer.heard_ns) / 1e9
    if isinstance(peer, Producer):
        wish = peer.wish if peer.is_waiting else None
        return PeerStats(
            role="producer",
            name=peer.name,
            key=peer.id.key.partition("/")[0],
            session=f"producer {peer.place}",
            age_s=age_s,
            silent_s=silent_s,
            credit_records=peer.credit_records,
            credit_bytes=peer.credit_bytes,
            wish_records=wish.least_records if wish else 0,
            wish_bytes=wish.least_bytes if wish else 0,
            held_messages=peer.held_messages,
            held_records=peer.held_records,
            done_messages=peer.accepted_messages,
            done_records=peer.accepted_records,
        )
    assert isinstance(peer, Consumer), "there are two roles"
    return PeerStats(
        role="consumer",
        name=peer.name,
        key=peer.id.key.partition("/")[0],
        session=f"consumer {peer.place}",
        age_s=age_s,
        silent_s=silent_s,
        credit_records=peer.credit_records,
        credit_bytes=peer.credit_bytes,
        held_messages=peer.out_messages,
        held_records=peer.out_records,
        held_bytes=peer.out_bytes,
        done_messages=peer.settled_messages,
        done_records=peer.settled_records,
        redelivered=peer.redelivered,
    )
