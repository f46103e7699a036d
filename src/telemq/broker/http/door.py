"""Where the HTTP thread and the broker's thread meet: what is asked, and what is answered.

The broker's thread owns its core and its peers; the HTTP thread never touches them. It leaves an
ask at the door and wakes the broker's thread, which answers into the asker's event loop. How many
asks there can be is bounded by whoever lets requests in (`app`).
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from telemq.client.session import Delivery

__all__ = [
    "Answer",
    "Ask",
    "Consume",
    "Consumed",
    "Door",
    "Nothing",
    "Outcome",
    "Publish",
    "Published",
    "Refusal",
    "Settle",
    "Settled",
    "Withdraw",
]

Outcome = Literal["ok", "retry", "bury"]


@dataclass(frozen=True, slots=True)
class Published:
    """A message is queued, or stored.

    Attributes:
        id: its identity.
        stored: it is confirmed; otherwise it is queued.
    """

    id: str
    stored: bool


@dataclass(frozen=True, slots=True)
class Consumed:
    """A message is lent to the client.

    Attributes:
        delivery: the message.
        lease: what names it when it is settled.
    """

    delivery: Delivery
    lease: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """No message came in time."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A lease was settled while it was live."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """It cannot be done.

    Attributes:
        status: the HTTP status.
        detail: why, and what would be accepted.
    """

    status: int
    detail: str


Answer = Published | Consumed | Nothing | Settled | Refusal


def _future() -> asyncio.Future[Answer]:
    return asyncio.get_running_loop().create_future()


@dataclass(slots=True, eq=False, kw_only=True)
class Publish:
    """A message is to be queued.

    Attributes:
        id: its identity; empty lets the broker give one.
        records: how many records it counts.
        key: for consumers.
        metadata: for consumers.
        payload: opaque.
        stored: answer when it is confirmed, not when it is queued.
        until_ns: when to give up, monotonic.
        answer: resolved in the asker's event loop.
    """

    id: str
    records: int
    key: str
    metadata: dict[str, str]
    payload: bytes
    stored: bool
    until_ns: int
    answer: asyncio.Future[Answer] = field(default_factory=_future)


@dataclass(slots=True, eq=False, kw_only=True)
class Consume:
    """A message is wanted.

    Attributes:
        until_ns: when to give up, monotonic.
        answer: resolved in the asker's event loop.
    """

    until_ns: int
    answer: asyncio.Future[Answer] = field(default_factory=_future)


@dataclass(slots=True, eq=False, kw_only=True)
class Settle:
    """A client is done with a message.

    Attributes:
        lease: as `Consumed` named it.
        outcome: what became of it.
        reason: for ``bury``.
        answer: resolved in the asker's event loop.
    """

    lease: str
    outcome: Outcome
    reason: str = ""
    answer: asyncio.Future[Answer] = field(default_factory=_future)


@dataclass(slots=True, eq=False)
class Withdraw:
    """Whoever asked has gone away; the answer may be under way already."""

    ask: Publish | Consume | Settle


Ask = Publish | Consume | Settle | Withdraw


class Door:
    """Asks on their way into the broker's thread, answers on their way out.

    Attributes:
        woken: readable when there is something to take.
    """

    def __init__(self) -> None:
        self._asks: deque[Ask] = deque()
        self._waker, self.woken = socket.socketpair()
        self._waker.setblocking(False)
        self.woken.setblocking(False)
        self._is_open = True

    def ask(self, ask: Ask) -> None:
        """Leave an ask; called in the asker's event loop."""
        if not self._is_open:
            if not isinstance(ask, Withdraw):
                self.answer(ask, _STOPPING)
            return
        self._asks.append(ask)
        # A full buffer means that the broker is to wake already.
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"\0")

    def take(self) -> list[Ask]:
        """Take all asks; called in the broker's thread."""
        with contextlib.suppress(BlockingIOError):
            self.woken.recv(4096)
        # Others append meanwhile: what comes after the bytes were read wakes again.
        return [self._asks.popleft() for _ in range(len(self._asks))]

    def answer(self, ask: Publish | Consume | Settle, answer: Answer) -> None:
        """Answer an ask; called from any thread, once for each."""
        # A loop that is closed has nobody to tell.
        with contextlib.suppress(RuntimeError):
            ask.answer.get_loop().call_soon_threadsafe(_resolve, ask.answer, answer)

    def close(self) -> None:
        """Refuse all that is left and all that comes; called in the broker's thread."""
        self._is_open = False
        for ask in self.take():
            if not isinstance(ask, Withdraw):
                self.answer(ask, _STOPPING)
        self._waker.close()
        self.woken.close()


_STOPPING = Refusal(503, "the broker is stopping")


def _resolve(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)
