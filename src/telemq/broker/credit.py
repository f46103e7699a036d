"""How the broker's room is given out to producers as credit.

The room is one inequality, in records and in bytes::

    ready + leased + granted and not spent  <=  capacity

A producer says what it wants (WANT: at least, at most) and gets a grant when there is room. Two
rules keep that fair and free of deadlock, whatever the capacity, down to one record:

- *Stuck* producers, whose credit does not cover their next message, come first, in the order in
  which they got stuck, each getting its `least` whole or nothing. Crumbs for everybody would let
  each wait for the rest of its message for ever.
- Only when nobody is stuck are the others topped up, to their share of half of the capacity, and
  only by pieces worth a message: grants of a few bytes would cost more than they carry (the silly
  window of TCP, RFC 813).

Credit that a producer has and does not use comes back by RETURN or with the end of its session.
"""

from __future__ import annotations

from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import Producer

__all__ = ["Credits"]


class Credits:
    """All unspent credit, and who waits for more."""

    def __init__(self, limits: BrokerLimits) -> None:
        self._limits = limits
        self._wishing: dict[str, Producer] = {}
        # Insertion order is the order of service. Keys are sessions.
        self._stuck: dict[str, Producer] = {}
        self._low: dict[str, Producer] = {}
        self.records = 0
        self.size_bytes = 0

    @property
    def waiting(self) -> int:
        """Producers whose credit does not cover their next message."""
        return len(self._stuck)

    def wishes(self, producer: Producer) -> None:
        """Take note of a new or ended wish."""
        if producer.wish is None:
            self._forget(producer)
        else:
            self._wishing[producer.session] = producer
            self._sort(producer)

    def spend(self, producer: Producer, records: int, size_bytes: int) -> None:
        """Take credit from a producer that has it: it was spent or given back."""
        producer.credit_records -= records
        producer.credit_bytes -= size_bytes
        self.records -= records
        self.size_bytes -= size_bytes
        self._sort(producer)

    def close(self, producer: Producer) -> None:
        """Take all credit of a producer whose session ends."""
        self._forget(producer)
        self.spend(producer, producer.credit_records, producer.credit_bytes)

    def grant(self, held_records: int, held_bytes: int) -> list[tuple[Producer, int, int]]:
        """Give out what room there is.

        Args:
            held_records: records ready and leased.
            held_bytes: bytes ready and leased.

        Returns:
            Who gets how many records and bytes more; the credit is theirs already.
        """
        grants: list[tuple[Producer, int, int]] = []
        for queue in (self._stuck, self._low):
            while queue:
                producer = next(iter(queue.values()))
                # Its share may have shrunk since it was put here.
                self._sort(producer)
                if producer.session not in queue:
                    continue
                free_records = self._limits.capacity_records - held_records - self.records
                free_bytes = self._limits.capacity_bytes - held_bytes - self.size_bytes
                records, size_bytes = self._portion(producer, free_records, free_bytes)
                if not records and not size_bytes:
                    # Nobody behind is served first: a large message must not wait for ever.
                    return grants
                del queue[producer.session]
                producer.credit_records += records
                producer.credit_bytes += size_bytes
                self.records += records
                self.size_bytes += size_bytes
                grants.append((producer, records, size_bytes))
        return grants

    def _portion(self, producer: Producer, free_records: int, free_bytes: int) -> tuple[int, int]:
        wish = producer.wish
        assert wish is not None, "only producers with a wish are queued"
        target_records, target_bytes = self._targets(producer)
        want_records = max(0, target_records - producer.credit_records)
        want_bytes = max(0, target_bytes - producer.credit_bytes)
        records, size_bytes = min(want_records, free_records), min(want_bytes, free_bytes)
        if (
            producer.credit_records + records < wish.least_records
            or producer.credit_bytes + size_bytes < wish.least_bytes
        ):
            return 0, 0
        stuck = producer.session in self._stuck
        if not stuck and (2 * records < want_records or 2 * size_bytes < want_bytes):
            return 0, 0
        return records, size_bytes

    def _targets(self, producer: Producer) -> tuple[int, int]:
        wish, limits = producer.wish, self._limits
        assert wish is not None
        sharers = 2 * len(self._wishing)
        return (
            max(
                wish.least_records,
                min(
                    wish.most_records,
                    limits.credit_records_max,
                    limits.capacity_records // sharers,
                ),
            ),
            max(
                wish.least_bytes,
                min(wish.most_bytes, limits.credit_bytes_max, limits.capacity_bytes // sharers),
            ),
        )

    def _sort(self, producer: Producer) -> None:
        """Put a producer into the queue where it belongs, without losing its place there."""
        wish = producer.wish
        if wish is None:
            return
        if producer.credit_records < wish.least_records or producer.credit_bytes < wish.least_bytes:
            self._low.pop(producer.session, None)
            self._stuck.setdefault(producer.session, producer)
            return
        self._stuck.pop(producer.session, None)
        target_records, target_bytes = self._targets(producer)
        if _is_low(producer.credit_records, target_records) or _is_low(
            producer.credit_bytes, target_bytes
        ):
            self._low.setdefault(producer.session, producer)
        else:
            self._low.pop(producer.session, None)

    def _forget(self, producer: Producer) -> None:
        producer.wish = None
        for queue in (self._wishing, self._stuck, self._low):
            queue.pop(producer.session, None)


def _is_low(credit: int, target: int) -> bool:
    return credit < target and 2 * credit <= target
