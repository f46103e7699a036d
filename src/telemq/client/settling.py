"""What a consumer is done with and has not said yet: it is said together.

Each SETTLE wakes four threads on its way to a CONFIRM at the producer. A consumer that is faster
than its producers would send one a message; a quarter of the credit, or a moment, costs nobody
anything: the credit that is left covers it. Unless somebody waits for that very CONFIRM, as where
the broker has room for one message: so after a wait that brought nothing more, the next few
settlements are said at once.
"""

from __future__ import annotations

from collections.abc import Iterable

from telemq.client.session import Delivery

__all__ = ["Settling"]

#: Longest that a settlement waits for others.
_WAIT_NS = 2_000_000
#: That many are said at once, whatever their size.
_DELIVERIES_MAX = 1000
#: Settlements said without a wait after one that was in vain.
_AT_ONCE = 64


class Settling:
    """Deliveries that were settled ``ok`` and wait to be said.

    Args:
        credit_records: most records delivered and not settled.
        credit_bytes: most payload bytes delivered and not settled.
    """

    def __init__(self, credit_records: int, credit_bytes: int) -> None:
        self._deliveries: list[Delivery] = []
        self._records = self._bytes = 0
        self._until_ns = 0
        self._at_once = 0
        self._waits = self._was_joined = False
        self.allow(credit_records, credit_bytes)

    def allow(self, credit_records: int, credit_bytes: int) -> None:
        """Take note of the credit; without any, nothing waits."""
        self._records_max, self._bytes_max = credit_records // 4, credit_bytes // 4

    def add(self, deliveries: Iterable[Delivery], now_ns: int) -> None:
        """Let these wait."""
        if self._deliveries:
            self._was_joined = True
        else:
            self._waits, self._was_joined = not self._at_once, False
            self._at_once -= bool(self._at_once)
            self._until_ns = now_ns + _WAIT_NS * self._waits
        added = list(deliveries)
        self._deliveries += added
        self._records += sum([delivery.records for delivery in added])
        self._bytes += sum([len(delivery.payload) for delivery in added])

    def is_due(self, now_ns: int) -> bool:
        """Tell whether what waits is to be said now."""
        return bool(self._deliveries) and (
            now_ns >= self._until_ns
            or self._records >= self._records_max
            or self._bytes >= self._bytes_max
            or len(self._deliveries) >= _DELIVERIES_MAX
        )

    def deadline_ns(self) -> int | None:
        """Give when what waits is due at the latest; None when nothing waits."""
        return self._until_ns if self._deliveries else None

    def take(self) -> list[Delivery]:
        """Give what waits; then nothing does."""
        taken, self._deliveries = self._deliveries, []
        self._records = self._bytes = 0
        if self._waits and not self._was_joined:
            self._at_once = _AT_ONCE
        return taken
