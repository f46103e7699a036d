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
        heartbeat_ns: interval of PING.
        peers_max: most sessions.
    """

    capacity_records: int
    capacity_bytes: int
    message_bytes_max: int
    credit_records_max: int
    credit_bytes_max: int
    lease_ns: int
    attempts_max: int
    heartbeat_ns: int
    peers_max: int

    @property
    def largest_records(self) -> int:
        """Most records in one message: the whole room."""
        return self.capacity_records

    @property
    def largest_bytes(self) -> int:
        """Most payload bytes in one message."""
        return min(self.message_bytes_max, self.capacity_bytes)
