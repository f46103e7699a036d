"""Peers inside the broker's process: they speak to its core as any peer does, without a socket.

A peer's own core (`ProducerCore`, `ConsumerCore`) is joined to the `BrokerCore`: messages pass as
objects, nothing is encoded, everything happens in the one thread that owns them all::

    its core --Transmit--> do() -> BrokerCore.receive -> [Outgoing, ...] --> whoever sends
    its core <------------------------------ hear() <------- Outgoing to a local peer

So what comes in by PULL or HTTP meets the very same queue, bounds, credit and metrics as what comes
over the protocol, and there is no second rule book.

A local peer's route begins with a zero byte and is longer than five bytes. ZeroMQ's own routing ids
are five bytes long and begin with a zero byte, and a client cannot choose one that begins so
(ZMQ_ROUTING_ID); thus no connection is ever taken for a local peer.
"""

from __future__ import annotations

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.peers import PeerId
from telemq.client.consumer import ConsumerCore
from telemq.client.producer import ProducerCore
from telemq.client.session import Command, Confirmed, Delivered, Transmit
from telemq.protocol import Ping

__all__ = ["LocalPeer", "LocalPeers", "is_local"]

_PREFIX = b"\0local/"
#: How often local peers are let know the time: credit that is not used goes back after 100 ms.
_BEAT_NS = 50_000_000


class LocalPeer:
    """One peer in the broker's process.

    Attributes:
        id: where the broker reaches it.
        core: its own rules and state.
        results: deliveries and confirms that its owner has not taken yet.
        heard: gets this peer when something has come for it; its owner empties that.
    """

    __slots__ = ("core", "heard", "id", "results")

    def __init__(
        self, id: PeerId, core: ProducerCore | ConsumerCore, heard: dict[LocalPeer, None]
    ) -> None:
        self.id = id
        self.core = core
        self.results: list[Confirmed | Delivered] = []
        self.heard = heard

    def take(self) -> list[Confirmed | Delivered]:
        """Give the results so far, each once."""
        results, self.results = self.results, []
        return results


class LocalPeers:
    """All local peers of one broker.

    Every method gives what the broker's core says to that; its owner must hand it on, in order:
    what is for a local peer (`is_local`) to `hear`, the rest to the sockets.

    Args:
        broker: the core that they speak to.
    """

    def __init__(self, broker: BrokerCore) -> None:
        self._broker = broker
        self._peers: dict[PeerId, LocalPeer] = {}
        self._joined = 0
        self._heartbeat_ns = broker.limits.heartbeat_ns
        self._beat_ns = min(_BEAT_NS, broker.limits.heartbeat_ns // 2)
        self._beaten_ns = 0

    def __len__(self) -> int:
        return len(self._peers)

    def join(
        self, core: ProducerCore | ConsumerCore, heard: dict[LocalPeer, None], now_ns: int
    ) -> tuple[LocalPeer, list[Outgoing]]:
        """Let a peer in; it says HELLO at once.

        Args:
            core: of a new peer.
            heard: gets the peer whenever something has come for it.
            now_ns: monotonic.
        """
        if not self._peers:
            self._beaten_ns = now_ns
        self._joined += 1
        route = _PREFIX + str(self._joined).encode()
        id = PeerId("producer" if isinstance(core, ProducerCore) else "consumer", route)
        peer = self._peers[id] = LocalPeer(id, core, heard)
        return peer, self.do(peer, core.advance(now_ns), now_ns)

    def leave(self, peer: LocalPeer, now_ns: int) -> list[Outgoing]:
        """Let a peer go: its credit and its leases return."""
        out = self.do(peer, peer.core.session.bye(now_ns), now_ns)
        self._peers.pop(peer.id, None)
        peer.heard.pop(peer, None)
        # Its WELCOME may still be on its way; then the peer knew of no session to end.
        return out + self._broker.peer_lost(peer.id, now_ns)

    def do(self, peer: LocalPeer, commands: list[Command], now_ns: int) -> list[Outgoing]:
        """Do what a peer's core says; results are kept for the peer's owner."""
        out: list[Outgoing] = []
        for command in commands:
            match command:
                case Transmit():
                    out += self._broker.receive(peer.id, command.message, command.frames, now_ns)
                case Confirmed() | Delivered():
                    peer.results.append(command)
                case _:  # Reconnect: there is no connection to make
                    pass
        return out

    def hear(self, out: Outgoing, now_ns: int) -> list[Outgoing]:
        """Hand a message of the broker to a local peer; one that has left hears nothing."""
        peer = self._peers.get(out.peer)
        if peer is None:
            return []
        peer.heard[peer] = None
        if isinstance(peer.core, ConsumerCore):
            return self.do(peer, peer.core.receive(out.message, out.frames, now_ns), now_ns)
        return self.do(peer, peer.core.receive(out.message, now_ns), now_ns)

    def speak(self, now_ns: int) -> list[Outgoing]:
        """Say that all are alive, if the thread stood still; call it before the broker's `advance`.

        A process that was stopped for a minute has not lost touch with itself.
        """
        if not self._peers or now_ns < self._beaten_ns + self._heartbeat_ns:
            return []
        out: list[Outgoing] = []
        for peer in list(self._peers.values()):
            session = peer.core.session
            if session.token:
                out += self.do(
                    peer, [Transmit(Ping(session.token, session.number(now_ns)))], now_ns
                )
        return out

    def advance(self, now_ns: int) -> list[Outgoing]:
        """Let time pass for all; call it after what the broker's `advance` said was handed on."""
        if not self._peers or now_ns < self._beaten_ns + self._beat_ns:
            return []
        self._beaten_ns = now_ns
        out: list[Outgoing] = []
        for peer in list(self._peers.values()):
            out += self.do(peer, peer.core.advance(now_ns), now_ns)
        return out

    def next_deadline_ns(self) -> int | None:
        """Give when `advance` is due next, or None without peers."""
        return self._beaten_ns + self._beat_ns if self._peers else None


def is_local(id: PeerId) -> bool:
    """Tell whether a peer is in the broker's process."""
    return id.route.startswith(_PREFIX)
