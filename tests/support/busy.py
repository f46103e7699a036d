"""Runs of a broker that start busy and are led astray, one small drawn step at a time."""

from __future__ import annotations

from typing import Literal
from unittest.mock import patch

from hypothesis import strategies as st

from telemq.broker import packing
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import PeerId
from telemq.protocol import (
    INTEGER_MAX,
    LEASES_MAX,
    Bye,
    Credit,
    Hello,
    Packed,
    Ping,
    Publish,
    PublishPack,
    Renew,
    Return,
    Role,
    Settle,
    Settlement,
    Want,
)
from tests.support.accounts import Seat
from tests.support.witness import Witness

__all__ = ["STEPS", "Step", "journaled_steps", "limits", "play", "steps"]

Outcome = Literal["ok", "retry", "bury"]
Step = tuple[str, int, int]

#: Every kind of step, as often as it is to be drawn. Those that end a session are rare: a run in
#: which everybody is thrown out at once shows nothing.
STEPS = (
    ("publish", "settle", "advance") * 4
    + ("pack",) * 3
    + ("republish", "settle_any", "hello", "renew") * 2
    + ("want", "credit", "all_ping", "give_back", "end", "mislead", "offend")
)
_ENDS = (
    *("bye", "lose", "gap", "garble"),
    *("over_credit", "too_large", "wrong_role", "bad_want", "bad_pack", "bad_range"),
)
_MISLEADING = ("stale", "stale", "stranger", "greet_wrongly", "drain")

#: Small numbers: a bound that is never met is not tested.
limits = st.builds(
    BrokerLimits,
    capacity_records=st.integers(1, 4) | st.integers(5, 60),
    capacity_bytes=st.integers(1, 20) | st.integers(21, 200),
    message_bytes_max=st.integers(1, 40),
    credit_records_max=st.integers(1, 12),
    credit_bytes_max=st.integers(1, 30),
    lease_ns=st.integers(1, 30),
    attempts_max=st.integers(1, 4),
    retry_ns=st.integers(1, 8),
    retry_ns_max=st.integers(1, 40),
    heartbeat_ns=st.integers(1, 100),
    peers_max=st.integers(4, 6),
    # Mostly so many that nobody is cut off: otherwise nothing else would be seen.
    errors_max=st.sampled_from((1, 2, 100, 100, 100, 100)),
    errors_ns=st.integers(1, 50),
)
_number = st.integers(0, 255)
_step = st.tuples(st.sampled_from(STEPS), _number, _number)
#: The length is drawn first: lists left to themselves have six entries on average.
steps = st.integers(0, 80).flatmap(lambda n: st.lists(_step, min_size=n, max_size=n))


#: The same for a broker with a journal.
journaled_steps = st.integers(0, 80).flatmap(
    lambda n: st.lists(
        st.tuples(st.sampled_from(STEPS + ("synced",) * 5 + ("stall",)), _number, _number),
        min_size=n,
        max_size=n,
    )
)


def play(bounds: BrokerLimits, plan: list[Step], *, journaled: bool = False) -> Witness:
    """Make a busy broker take every step, then let its queue run empty; gives the witness.

    Raises:
        AssertionError: naming the promise that was broken.
    """
    run = _Run(bounds, journaled=journaled)
    # So that some of these payloads share a frame on their way out, too, and others do not.
    with patch.object(packing, "COPY_BYTES_MAX", 2):
        run.become_busy()
        for kind, a, b in plan:
            getattr(run, kind)(a, b)
            if journaled:
                run.witness.check_notes()
        run.run_empty()
        run.witness.replay()
    return run.witness


class _Run:
    """Turns numbers into events that fit the state: ids, leases and sessions that exist or did."""

    def __init__(self, bounds: BrokerLimits, *, journaled: bool) -> None:
        self.witness = Witness(bounds, journaled=journaled)
        self.bounds = bounds
        self._routes = 0
        self._ids = 0

    # ---- before and after ------------------------------------------------------------------

    def become_busy(self) -> None:
        for role in ("producer", "consumer", "producer", "consumer"):
            self._join(PeerId(role, b"%d" % self._routes))
        for a in range(2):
            self.want(a, 255)
            self.credit(a, 12)
        for a in range(12):
            (self.publish if a % 2 else self.pack)(a, 5 + 6 * a)

    def run_empty(self) -> None:
        """Somebody takes all that is left and keeps it: nothing may remain (P2)."""
        witness = self.witness
        for seat in list(witness.seats.values()):
            self._say(seat, Bye(seat.session, seat.heard + 1))
        last = self._join(PeerId("consumer", b"last"))
        self._say(last, Credit(last.session, 1, 10**6, 10**6))
        while witness.held:
            done = tuple(Settlement(lease, "ok") for lease in last.leases)
            # Without any, all that is left is paused.
            moment = witness.now if done else max(held.due_ns for held in witness.held)
            assert done or moment > witness.now, "P9: a message waits, and so does a consumer"
            settle = Settle(last.session, last.heard + 1, done)
            witness.hear(last.id, settle, (), moment)
        assert not witness.held, f"P2: {witness.held} never left"
        stats = witness.core.stats()
        assert 0 == stats.ready_bytes + stats.leased_bytes + stats.granted_bytes, "P1: room is lost"

    # ---- steps of honest peers -------------------------------------------------------------

    def hello(self, a: int, b: int) -> None:
        role: Role = ("producer", "consumer")[b % 2]
        again = self._pick(role, a) if a % 3 == 0 else None
        self._routes += 1
        seat = self._join(again.id if again else PeerId(role, b"%d" % self._routes))
        if seat.session and role == "producer":
            self._say(seat, Want(seat.session, 1, 1, a % (self.bounds.largest_bytes + 1), 20, 100))
        elif seat.session:
            self._say(seat, Credit(seat.session, 1, 1 + a % 20, 1 + b % 80))

    def want(self, a: int, b: int) -> None:
        if seat := self._pick("producer", a):
            most_records, most_bytes = self.bounds.largest_records, self.bounds.largest_bytes
            least = 1 + b % most_records, b // 3 % (most_bytes + 1)
            if b % 16 == 0:
                self._say(seat, Want(seat.session, seat.heard + 1, 0, 0, 0, 0))
                return
            most = least[0] + a % 12, least[1] + b % 30
            self._say(seat, Want(seat.session, seat.heard + 1, *least, *most))

    def publish(self, a: int, b: int) -> None:
        self._ids += 1
        self._publish(a, b, f"m{self._ids}")

    def republish(self, a: int, b: int) -> None:
        """An id that is held, or one that was settled before."""
        ids = [h.id for h in self.witness.held] + self.witness.gone[-2:]
        if ids:
            self._publish(b, a, ids[a % len(ids)])

    def pack(self, a: int, b: int) -> None:
        """Some new ids; at times those that came last once more, or one of them twice."""
        if seat := self._rich(a):
            packed, payloads, left = [], list[bytes](), (seat.records, seat.size)
            for n in range(1 + b % 6):
                if not left[0]:
                    break
                self._ids += 1
                held = [h.id for h in self.witness.held[-(1 + b % 6) :]] or ["m1"]
                id = f"m{self._ids}"
                if a % 3 == 2:
                    id = (held[n % len(held)], f"m{self._ids - n % 2}")[a % 9 == 2]
                # Small ones, so that credit is enough for several.
                records, size = self._size(min(left[0], 2), min(left[1], 3), a + n, b // 6)
                packed.append(Packed(id, records, size, "", {}))
                payloads.append(_payload(id, size))
                left = (left[0] - records, left[1] - size)
            pack = PublishPack(seat.session, seat.heard + 1, tuple(packed))
            self._say(seat, pack, *_frames(payloads, a))

    def give_back(self, a: int, b: int) -> None:
        if seat := self._pick("producer", a):
            records, size = b % (seat.records + 1), a % (seat.size + 1)
            self._say(seat, Return(seat.session, seat.heard + 1, records, size))

    def credit(self, a: int, b: int) -> None:
        if seat := self._pick("consumer", a):
            records, size = (0, 0) if b % 8 == 0 else (1 + b % 16, 1 + b % 80)
            self._say(seat, Credit(seat.session, seat.heard + 1, records, size))

    def settle(self, a: int, b: int) -> None:
        if (seat := self._pick("consumer", a)) and seat.leases:
            leases = list(seat.leases)[: 1 + b % 3]
            self._settle(seat, leases, b)

    def renew(self, a: int, b: int) -> None:
        if seat := self._pick("consumer", a):
            leases = (*list(seat.leases)[: b % 3], *self._leases(b))
            counts = tuple(1 + (b // 3 + n) % 3 for n in range(len(leases))) if a % 3 else ()
            self._say(seat, Renew(seat.session, seat.heard + 1, leases, counts))

    def all_ping(self, a: int, b: int) -> None:
        for seat in list(self.witness.seats.values()):
            self._say(seat, Ping(seat.session, seat.heard + 1))

    def bye(self, a: int, b: int) -> None:
        if seat := self._any(a):
            self._say(seat, Bye(seat.session, seat.heard + 1))

    # ---- time ------------------------------------------------------------------------------

    def advance(self, a: int, b: int) -> None:
        """To a deadline, to just before or after, a little, or a lot; sometimes back."""
        deadline = self.witness.core.next_deadline_ns() or 0
        now = self.witness.now
        moments = [deadline - 1, deadline, deadline, deadline + 1, now + 1 + b % 4]
        if a % 8 == 0:
            moments = [now + 40 * b, now - b]
        self.witness.advance(moments[b % len(moments)])

    def drain(self, a: int, b: int) -> None:
        if a % 3 == 0:
            self.witness.drain(self.witness.now)

    # ---- the journal -----------------------------------------------------------------------

    def synced(self, a: int, b: int) -> None:
        """To the end of an entry of which something is held, or of the last; sometimes back."""
        ends, begin = [0], 1
        for end in self.witness.entry_ends:
            if any(begin <= h.place <= end for h in self.witness.held):
                ends.append(end)
            begin = end + 1
        self.witness.sync(ends[-1] if b % 4 == 0 else ends[a % len(ends)])

    def stall(self, a: int, b: int) -> None:
        self.witness.stall(b % 2 == 0)

    def end(self, a: int, b: int) -> None:
        getattr(self, _ENDS[b % len(_ENDS)])(a, b // len(_ENDS))

    def mislead(self, a: int, b: int) -> None:
        getattr(self, _MISLEADING[b % len(_MISLEADING)])(a, b // len(_MISLEADING))

    # ---- steps of peers that are lost, late or wrong ---------------------------------------

    def settle_any(self, a: int, b: int) -> None:
        """Leases that are over, somebody else's, or were never made."""
        if seat := self._pick("consumer", a):
            self._settle(seat, self._leases(b), a)

    def lose(self, a: int, b: int) -> None:
        if seat := self._any(a):
            self.witness.lose(seat.id, self.witness.now)

    def gap(self, a: int, b: int) -> None:
        if seat := self._any(a):
            self._say(seat, Ping(seat.session, seat.heard + (0 if b % 3 == 0 else 2)))

    def stale(self, a: int, b: int) -> None:
        if (seat := self._any(a)) and self.witness.left:
            session = self.witness.left[b % len(self.witness.left)]
            said = [
                Publish(session, seat.heard + 1, "stale", 1, "", {}),
                Settle(session, seat.heard + 1, (Settlement(1 + b, "ok"),)),
                Bye(session, seat.heard + 1),
            ]
            self._say(seat, said[a % 3])

    def stranger(self, a: int, b: int) -> None:
        role: Role = ("producer", "consumer")[a % 2]
        stranger = PeerId(role, b"stranger")
        self.witness.hear(stranger, Ping("nobody's", 1), (), self.witness.now)

    def garble(self, a: int, b: int) -> None:
        seat = self._any(a)
        stranger = PeerId("producer", b"stranger")
        self.witness.garble(seat.id if seat and b % 4 else stranger, self.witness.now)

    def offend(self, a: int, b: int) -> None:
        """One address that goes wrong again and again, and begins anew in between."""
        offender = PeerId("consumer", b"offender")
        if a % 4 == 0:
            for _ in range(1 + b % 4):
                self.witness.garble(offender, self.witness.now)
                self.witness.hear(offender, _hello("consumer"), (), self.witness.now)

    def over_credit(self, a: int, b: int) -> None:
        if seat := self._pick("producer", a):
            number, records, size = seat.heard + 1, seat.records, seat.size
            if b % 2 and records < self.bounds.largest_records:
                publish = Publish(seat.session, number, "over", records + 1, "", {})
                self._say(seat, publish, b"x" * min(size, self.bounds.largest_bytes))
            else:
                self._say(seat, Return(seat.session, number, records, size + 1))

    def too_large(self, a: int, b: int) -> None:
        if seat := self._pick("producer", a):
            records = 1 if b % 2 else self.bounds.largest_records + 1
            size = self.bounds.largest_bytes + 1 if b % 2 else 0
            publish = Publish(seat.session, seat.heard + 1, "large", records, "", {})
            self._say(seat, publish, b"x" * size)

    def bad_pack(self, a: int, b: int) -> None:
        """Its frames do not fit its messages, one is too large, or all cost too much."""
        if seat := self._pick("producer", a):
            largest = self.bounds.largest_bytes
            sizes, cut = (
                ((1, 1), "xxx"),
                ((2, 1), "x|xx"),
                ((1, 1), "x||x"),
                ((1, 1), "xx|"),
                ((0, largest + 1), ""),
                ((1, seat.size), ""),
            )[b % 6]
            packed = tuple(Packed(f"p{n}", 1, size, "", {}) for n, size in enumerate(sizes))
            if b % 6 == 5 and (seat.size > largest or not seat.size):
                return
            pack = PublishPack(seat.session, seat.heard + 1, packed)
            self._say(seat, pack, *(cut or "x" * sum(sizes)).encode().split(b"|"))

    def bad_range(self, a: int, b: int) -> None:
        """More leases than one message may name; to count them would be to stand still."""
        if seat := self._pick("consumer", a):
            many = LEASES_MAX + 1 if b % 2 else INTEGER_MAX
            first = next(iter(seat.leases), 1)
            said = (
                Settle(seat.session, seat.heard + 1, (Settlement(first, "ok", "", many),)),
                Renew(seat.session, seat.heard + 1, (first,), (many,)),
            )
            self._say(seat, said[a % 2])

    def wrong_role(self, a: int, b: int) -> None:
        if (seat := self._any(a)) and seat.id.role == "producer":
            self._say(seat, Credit(seat.session, seat.heard + 1, 1, 1))
        elif seat:
            self._say(seat, Return(seat.session, seat.heard + 1, 0, 0))

    def greet_wrongly(self, a: int, b: int) -> None:
        id = PeerId("producer", b"%d" % (b % 8))
        hello = Hello("", 0, "2.0", "producer", "") if a % 2 else _hello("consumer")
        self.witness.hear(id, hello, (), self.witness.now)

    def bad_want(self, a: int, b: int) -> None:
        if seat := self._pick("producer", a):
            wishes = ((0, 0, 1, 1), (2, 0, 1, 9), (1, 9, 1, 8), (10**6, 0, 10**7, 0))
            self._say(seat, Want(seat.session, seat.heard + 1, *wishes[b % 4]))

    # ---- shared ----------------------------------------------------------------------------

    def _say(self, seat: Seat, message: object, *frames: bytes) -> None:
        self.witness.hear(seat.id, message, frames, self.witness.now)  # type: ignore[arg-type]

    def _join(self, id: PeerId) -> Seat:
        # Some speak PACK, some do not.
        version = "1.1" if self._routes % 3 else "1.0"
        self.witness.hear(id, _hello(id.role, version), (), self.witness.now)
        return self.witness.seats.get(id) or Seat(id, "", 0, 0)

    def _publish(self, a: int, b: int, id: str) -> None:
        if seat := self._rich(a):
            records, size = self._size(seat.records, seat.size, a, b)
            publish = Publish(seat.session, seat.heard + 1, id, records, "", {})
            self._say(seat, publish, _payload(id, size))

    def _rich(self, a: int) -> Seat | None:
        rich = [seat for seat in self._seats("producer") if seat.records]
        return rich[a % len(rich)] if rich else None

    def _size(self, records: int, size: int, a: int, b: int) -> tuple[int, int]:
        """Of a message that so much credit is enough for."""
        largest = min(size, self.bounds.largest_bytes)
        return 1 + b % min(records, 5, self.bounds.largest_records), (a + b) % (largest + 1)

    def _settle(self, seat: Seat, leases: list[int], b: int) -> None:
        outcomes: tuple[Outcome, ...] = ("ok", "ok", "retry", "bury")
        # Ranges may overlap, and reach into what is over or another's.
        done = tuple(
            Settlement(n, outcomes[(b // 3 + i) % 4], "", 1 + (b // 5 + i) % 4)
            for i, n in enumerate(leases)
        )
        self._say(seat, Settle(seat.session, seat.heard + 1, done))

    def _leases(self, b: int) -> list[int]:
        live, ended = [*self.witness.leases, 1000], [*self.witness.ended, 1000]
        return [live[b % len(live)], ended[-1 - b % len(ended)]]

    def _seats(self, role: Role) -> list[Seat]:
        return [s for s in self.witness.seats.values() if s.id.role == role]

    def _pick(self, role: Role, a: int) -> Seat | None:
        seats = self._seats(role)
        return seats[a % len(seats)] if seats else None

    def _any(self, a: int) -> Seat | None:
        seats = list(self.witness.seats.values())
        return seats[a % len(seats)] if seats else None


def _hello(role: Role, version: str = "1.1") -> Hello:
    return Hello("", 0, version, role, "")


def _payload(id: str, size: int) -> bytes:
    """What nobody could take for another's."""
    return (id.encode() * size)[:size]


def _frames(payloads: list[bytes], how: int) -> list[bytes]:
    """Cut the payloads of a pack into frames: in one, each alone, or two by two."""
    step = (len(payloads), 1, 2)[how // 3 % 3] or 1
    frames = [b"".join(payloads[at : at + step]) for at in range(0, len(payloads), step)]
    return [frame for frame in frames if frame] or [b""]
