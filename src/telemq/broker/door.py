"""The broker's door: keys on both endpoints, the allow-list kept fresh, and what was turned away.

libzmq does the cryptography and holds every peer back until `ZapHandler` has answered. What fails
before that (no key, another broker's key, silence) is known only to socket monitors: they are read
here, too, so that an operator sees it. No log line holds a key.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

from telemq.broker.admission import DENIALS, Admission
from telemq.broker.peers import PeerId
from telemq.broker.zap import ZapHandler
from telemq.errors import SettingError
from telemq.keys import AllowedKey, KeyDirectory, ListState
from telemq.log import Seldom, get
from telemq.protocol import Role

__all__ = ["Door", "DoorStats"]

#: Handshakes answered, and events read, before messages have their turn.
_BURST = 200
#: How often the allow-list is looked at.
_REREAD_NS = 1_000_000_000
_EVENTS = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL


@dataclass(frozen=True, slots=True)
class DoorStats:
    """What happened at the door; totals since the start.

    Attributes:
        allowed_keys: in the allow-list now.
        denied: failed handshakes, by reason; see `telemq.broker.admission.DENIALS`.
        unheard: messages of connections whose key was revoked.
    """

    allowed_keys: int
    denied: dict[str, int]
    unheard: int


class Door:
    """Guards the sockets of one context; owned by their thread.

    Args:
        context: of the sockets to guard.
        keys: the broker's pair and allow-list.

    Raises:
        SettingError: the key directory is not usable.
    """

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], keys: KeyDirectory) -> None:
        self._keys = keys
        self._pair = keys.own_pair()
        self._log = get()
        self._seldom = Seldom()
        self._state, entries = self._read()
        self._admission = Admission(entries)
        self._zap = ZapHandler(context, self._admission.user_of)
        self._monitors: dict[zmq.Socket[bytes], Role] = {}
        self._guarded: list[zmq.Socket[bytes]] = []
        self._denied = Counter(dict.fromkeys(DENIALS, 0))
        self._unheard = 0
        self._reread_ns = 0

    @property
    def sockets(self) -> list[zmq.Socket[bytes]]:
        """What is to be polled for `attend`."""
        return [self._zap.socket, *self._monitors]

    def guard(self, router: zmq.Socket[bytes], role: Role) -> None:
        """Let nobody without a key of this role connect to a socket; before it is bound."""
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, self._pair.secret)
        router.setsockopt(zmq.ZAP_DOMAIN, role.encode())
        # Without this, libzmq admits everybody when no handler answers.
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self._monitors[router.get_monitor_socket(int(_EVENTS))] = role
        self._guarded.append(router)

    def attend(self, ready: Collection[object], now_ns: int) -> None:
        """Answer handshakes and take note of those that failed, on the sockets that have input."""
        if self._zap.socket in ready:
            for denial in self._zap.answer(_BURST):
                self._note(denial.reason, denial.domain, denial.address, now_ns)
        for monitor, role in self._monitors.items():
            if monitor in ready:
                self._take_events(monitor, role, now_ns)

    def admits(self, peer: PeerId) -> bool:
        """Tell whether a message is to be heard; libzmq cannot cut a connection."""
        if self._admission.admits(peer):
            return True
        self._unheard += 1
        return False

    def reread(self, now_ns: int) -> list[tuple[Role, str]]:
        """Read the allow-list again if it has changed, at most once a second.

        Returns:
            Each role and user id that is not admitted any more: their sessions are to be ended.
        """
        if now_ns < self._reread_ns:
            return []
        self._reread_ns = now_ns + _REREAD_NS
        try:
            if self._keys.state() == self._state:
                return []
            state, entries = self._read()
            gone = self._admission.replace(entries)
        except SettingError as error:
            # The list stays as it was: a directory that fails is no reason to end a whole fleet.
            self._say("allow-list cannot be read", now_ns, detail=str(error))
            return []
        self._state = state
        self._log.info("allow-list read", keys=len(self._admission), revoked=len(gone))
        return gone

    def stats(self) -> DoorStats:
        """Give a frozen snapshot."""
        return DoorStats(len(self._admission), dict(self._denied), self._unheard)

    def close(self) -> None:
        """Stop the monitors; the sockets belong to the context."""
        for router in self._guarded:
            router.disable_monitor()

    def _read(self) -> tuple[ListState, list[AllowedKey]]:
        state, entries, wrong = self._keys.read()
        for detail in wrong[:10]:
            self._log.warning("key file not used", detail=detail)
        return state, entries

    def _take_events(self, monitor: zmq.Socket[bytes], role: Role, now_ns: int) -> None:
        with contextlib.suppress(zmq.Again):
            for _ in range(_BURST):
                event = parse_monitor_message(monitor.recv_multipart(zmq.NOBLOCK))
                reason = "handshake"
                if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
                    reason = _REASONS.get(event["value"], reason)
                self._note(reason, role, "", now_ns)

    def _note(self, reason: str, role: str, address: str, now_ns: int) -> None:
        self._denied[reason] += 1
        if reason == "handshake":
            return  # whoever only connects, as probes do: counted, and nothing to be done about
        self._say("peer denied", now_ns, reason=reason, role=role, address=address or "unknown",
                  detail=DENIALS[reason])  # fmt: skip

    def _say(self, event: str, now_ns: int, **facts: str) -> None:
        """Log one event of each reason a second: anybody can cause them as fast as they like."""
        unsaid = self._seldom.due(event + facts.get("reason", ""), now_ns)
        if unsaid is not None:
            self._log.warning(event, **facts, unsaid_before=unsaid)


#: What libzmq says of a handshake that failed before a key could be looked at.
_REASONS = {
    int(zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH): "no_key",
    int(zmq.PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC): "wrong_broker_key",
}
