"""What streamers and collectors ask of a queue, and nothing more.

An engine is one peer's end of a queue. One thread owns it and calls `poll` often; only `wake` may
be called from others. Everything between two polls is bookkeeping: nothing waits but `poll`.

What every engine promises, whoever carries the messages:

- A message is kept by its producer until it is confirmed, and published again under the same id
  until it is. So it may come twice: whoever stores it knows it by its id (the ledger).
- A delivery that is not settled comes again, to whoever is there, with `attempt` one higher.
- What is kept and what is delivered is bounded, in records and in bytes, by the settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Protocol

from telemq.client.producer import ProducerStats
from telemq.client.session import Delivery
from telemq.protocol import Payload

__all__ = ["ConsumerEngine", "Delivery", "Engine", "Outcome", "ProducerEngine", "ProducerStats"]

Outcome = Literal["ok", "retry", "bury"]


class Engine(Protocol):
    """What both ends have."""

    @property
    def shown(self) -> str:
        """Which queue this is, for logs and errors; never with a secret."""

    @property
    def connected(self) -> bool:
        """Whether there is a session with the queue; with several brokers, with one of them."""

    @property
    def fault(self) -> str:
        """Why there is no session, in words; empty when there is one."""

    @property
    def refused(self) -> bool:
        """Whether the queue will never take this peer as it is; see `fault`."""

    def wake(self) -> None:
        """Make a `poll` that waits return; callable from any thread."""

    def close(self) -> None:
        """Take leave of the queue, within a limit, and free everything."""


class ProducerEngine(Engine, Protocol):
    """The end that messages go in at."""

    def room_records(self) -> int:
        """Tell how many more records may be published; 0 when the window is full."""

    def publish(
        self,
        id: str,
        records: int,
        payload: Payload,
        *,
        key: str = "",
        metadata: dict[str, str] | None = None,
    ) -> None:
        """Hand over a message; it is sent when the queue has room, kept until it is confirmed.

        Raises:
            LocalProtocolError: that id is kept already, or the message is too large.
        """

    def forget(self, id: str) -> None:
        """Drop a message that somebody else sees to now; unknown ids are ignored."""

    def poll(self, timeout_s: float) -> list[str]:
        """Do what is due; give the ids confirmed since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.

        Raises:
            LocalProtocolError: a kept message is larger than this queue takes.
        """

    def unconfirmed(self) -> int:
        """Tell how many messages are kept."""

    def stats(self) -> ProducerStats:
        """Give a frozen snapshot."""


class ConsumerEngine(Engine, Protocol):
    """The end that messages come out of."""

    def poll(self, timeout_s: float) -> list[Delivery]:
        """Do what is due; give the messages delivered since the last call.

        Returns at once when there are some, otherwise after `timeout_s` or a `wake`.
        """

    def lost(self) -> Sequence[Delivery]:
        """Give what, as the last `poll` found, will be delivered again, to us or to another.

        Settling it has no effect any more; storing it is harmless.
        """

    def settle(
        self, deliveries: Iterable[Delivery], outcome: Outcome = "ok", reason: str = ""
    ) -> None:
        """Be done with deliveries; those that were lost are ignored."""

    def renew(self, deliveries: Iterable[Delivery]) -> None:
        """Let the leases of these deliveries begin anew."""

    def pause(self) -> None:
        """Take no more deliveries; what was delivered may still be settled."""
