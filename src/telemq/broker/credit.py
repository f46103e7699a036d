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

A new producer's credit begins small and doubles with each grant (the slow start of TCP, RFC 5681):
who comes first finds nobody to share with, and credit once granted cannot be taken back. Without
that, the first of 900 simulated producers got 46 times the mean to begin with; now it gets 4 times.

Credit that a producer has and does not use comes back by RETURN or with the end of its session.
"""

from __future__ import annotations

from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import Producer
from telemq.errors import RemoteProtocolError
from telemq.protocol import Want

__all__ = ["Credits"]

#: Most credit after the first grant, unless one message needs more: a batch of usual size.
_FIRST_RECORDS, _FIRST_BYTES = 1000, 65_536


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

    def want(self, producer: Producer, want: Want) -> None:
        """Take note of what a producer says that it wants.

        Raises:
            RemoteProtocolError: it could never be granted.
        """
        limits = self._limits
        ends = not (want.least_records or want.most_records)
        if not ends and not (
            1 <= want.least_records <= min(want.most_records, limits.largest_records)
            and want.least_bytes <= min(want.most_bytes, limits.largest_bytes)
        ):
            raise RemoteProtocolError(
                "bad_message",
                f"WANT must have least_records from 1 to {limits.largest_records} and "
                f"least_bytes up to {limits.largest_bytes}, and neither above its most",
            )
        producer.wish = None if ends else want
        self.wishes(producer)

    def take(self, producer: Producer, records: int, size_bytes: int, how: str) -> None:
        """Take credit from a producer that says it has spent it or gives it back.

        Raises:
            RemoteProtocolError: it has not that much.
        """
        if records > producer.credit_records or size_bytes > producer.credit_bytes:
            raise RemoteProtocolError(
                "over_credit",
                f"{how} {records} records and {size_bytes} bytes, but had credit for "
                f"{producer.credit_records} and {producer.credit_bytes}",
            )
        self.spend(producer, records, size_bytes)

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
                producer.grants += 1
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
        # After 30 grants it is beyond every limit; the number must not grow for ever.
        doublings = min(producer.grants, 30)
        records = min(
            wish.most_records,
            limits.credit_records_max,
            limits.capacity_records // sharers,
            _FIRST_RECORDS << doublings,
        )
        size_bytes = min(
            wish.most_bytes,
            limits.credit_bytes_max,
            limits.capacity_bytes // sharers,
            _FIRST_BYTES << doublings,
        )
        return max(wish.least_records, records), max(wish.least_bytes, size_bytes)

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
