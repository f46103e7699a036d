"""A broker's key directory and peers' keys, made for a test."""

from __future__ import annotations

import time
from pathlib import Path

import zmq

from telemq.client.link import ConsumerLink, ProducerLink
from telemq.keys import KeyDirectory, KeyRole, LinkKeys, load_link_keys, write_pair
from tests.support.brokers import DEADLINE_S, PlainPeer

__all__ = ["KeyedPeer", "Keys", "consumer_link", "fault_of", "producer_link"]


class Keys:
    """A broker's key directory, and beside it the files of peers.

    Attributes:
        directory: the broker's.
        path: the same, as ``--keys``.
        broker_file: the broker's public key.
    """

    def __init__(self, scratch: Path) -> None:
        self._peers = scratch / "peers"
        self.directory = KeyDirectory(scratch / "broker")
        self.path = str(self.directory.path)
        self.broker_file = self.directory.create()

    def make(self, name: str, role: KeyRole) -> LinkKeys:
        """Make a pair that nobody has allowed."""
        write_pair(self._peers, name, role)
        return self.own(name)

    def own(self, name: str) -> LinkKeys:
        """Load what a peer that was made before needs."""
        keys = load_link_keys(str(self.secret_file(name)), str(self.broker_file))
        assert keys is not None
        return keys

    def allow(self, name: str, role: KeyRole | None = None) -> None:
        """Let a peer in."""
        self.directory.allow(self._peers / f"{name}.key", role or "")

    def make_again(self, name: str, role: KeyRole) -> Path:
        """Make another pair of the same name; gives its public file."""
        return write_pair(self._peers / "again", name, role)

    def peer(self, name: str, role: KeyRole) -> LinkKeys:
        """Make a pair and let it in."""
        keys = self.make(name, role)
        self.allow(name)
        return keys

    def peer_files(self, name: str, role: KeyRole) -> tuple[bytes, bytes]:
        """Make a pair; gives what its public and its secret file hold."""
        self.make(name, role)
        secret = self.secret_file(name)
        return secret.with_suffix(".key").read_bytes(), secret.read_bytes()

    def secret_file(self, name: str) -> Path:
        """Where a peer's secret key is."""
        return self._peers / f"{name}.key_secret"


class KeyedPeer(PlainPeer):
    """A `PlainPeer` with a key, and a routing id of its own choice if it is to have one."""

    def __init__(self, endpoint: str, role: str, keys: LinkKeys, routing_id: bytes = b"") -> None:
        self._keys, self._routing_id = keys, routing_id
        super().__init__(endpoint, role)

    def _prepare(self, link: zmq.Socket[bytes]) -> None:
        link.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.own.public)
        link.setsockopt(zmq.CURVE_SECRETKEY, self._keys.own.secret)
        link.setsockopt(zmq.CURVE_SERVERKEY, self._keys.broker)
        if self._routing_id:
            link.setsockopt(zmq.ROUTING_ID, self._routing_id)

    def is_silent(self, for_s: float) -> bool:
        """Tell whether nothing comes for so long."""
        return not self._socket.poll(int(for_s * 1000))


def producer_link(endpoint: str, keys: LinkKeys | None) -> ProducerLink:
    """A producer with small windows."""
    return ProducerLink(endpoint, name="test", window_records=1000, window_bytes=10**6, keys=keys)


def consumer_link(endpoint: str, keys: LinkKeys | None) -> ConsumerLink:
    """A consumer with small windows."""
    return ConsumerLink(endpoint, name="test", credit_records=1000, credit_bytes=10**6, keys=keys)


def fault_of(link: ProducerLink | ConsumerLink, *parts: str) -> str:
    """Poll until the link's fault has one of these parts; gives the fault."""
    end = time.monotonic() + DEADLINE_S
    while not any(part in link.fault for part in parts):
        assert not link.connected, "it was let in"
        assert time.monotonic() < end, f"the fault is {link.fault!r}"
        link.poll(0.1)
    return link.fault
