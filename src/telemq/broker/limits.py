"""Every bound of a broker, in one place."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BrokerLimits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerLimits:
    """Every bound of a broker.

    Attributes:
        capacity_records: room.
        capacity_bytes: room.
        message_bytes_max: largest payload, as far as the capacity allows.
        credit_records_max: most unspent credit of a producer beyond its next message.
        credit_bytes_max: most unspent credit of a producer beyond its next message.
        lease_ns: how long a delivery may stay unsettled.
        attempts_max: deliveries before a message is dead.
        retry_ns: pause before a message that was settled `retry` leaves again; it doubles with each
            attempt.
        retry_ns_max: the longest such pause.
        heartbeat_ns: interval of PING.
        peers_max: most sessions.
        errors_max: most errors, and most HELLOs, for which one address is answered in `errors_ns`.
        errors_ns: how long they are counted.
    """

    capacity_records: int
    capacity_bytes: int
    message_bytes_max: int
    credit_records_max: int
    credit_bytes_max: int
    lease_ns: int
    attempts_max: int
    retry_ns: int
    retry_ns_max: int
    heartbeat_ns: int
    peers_max: int
    errors_max: int
    errors_ns: int

    @property
    def largest_records(self) -> int:
        """Most records in one message: the whole room."""
        return self.capacity_records

    @property
    def largest_bytes(self) -> int:
        """Most payload bytes in one message."""
        return min(self.message_bytes_max, self.capacity_bytes)

    def pause_ns(self, attempt: int) -> int:
        """Give how long a message waits that was settled `retry` at its n-th attempt."""
        # A dead letter is tried without limit: the shift must not grow with it.
        return min(self.retry_ns << min(attempt - 1, 40), self.retry_ns_max)
