"""A second, naive rule book that watches a `BrokerCore` and names the promise that it breaks.

It sees what the core is told and what the core answers, keeps its own account of both from
docs/protocol.md, and never looks at how the core decides. Lists are searched, not indexed: slow and
plain is what makes it believable.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate

from telemq.broker.core import BrokerCore, Outgoing
from telemq.broker.entries import Append, Forget, Retried
from telemq.broker.journaled import JournaledCore
from telemq.broker.limits import BrokerLimits
from telemq.broker.peers import PeerId
from telemq.broker.stats import BrokerStats, Counters
from telemq.errors import RemoteProtocolError
from telemq.protocol import (
    CONTROL_BYTES_MAX,
    LEASES_MAX,
    SILENT_BEATS,
    Bye,
    Confirm,
    Credit,
    Deliver,
    DeliverPack,
    Error,
    Frames,
    FromPeer,
    Grant,
    Hello,
    Packed,
    Ping,
    Publish,
    PublishPack,
    Renew,
    Return,
    Settle,
    Want,
    Welcome,
    encode,
)
from tests.support.accounts import Held, Seat, promised

__all__ = ["Witness"]

_SECRET = b"the same in every run"
Call = Callable[[BrokerCore], list[Outgoing]]


class Witness:
    """Passes every event on to a core, and checks P1 to P12 after each.

    Args:
        limits: of the core.
        journaled: it confirms what is synced, not only what is settled.

    Attributes:
        seats: open sessions, by address.
        held: messages held, in order of arrival.
        leases: until when each live lease lasts, with its owner.
        ended: numbers of leases that are over.
        gone: ids of messages that were settled.
        left: tokens of sessions that are over.
    """

    def __init__(self, limits: BrokerLimits, *, journaled: bool = False) -> None:
        self._kind = JournaledCore if journaled else BrokerCore
        self.core = self._kind(limits, _SECRET)
        self.limits = limits
        self.now = 0
        self._silence_ns = SILENT_BEATS * limits.heartbeat_ns
        self.seats: dict[PeerId, Seat] = {}
        self.held: list[Held] = []
        self.leases: dict[int, tuple[Seat, int]] = {}
        self.ended: list[int] = []
        self.gone: list[str] = []
        self.left: list[str] = []
        self.draining = False
        self.stalled = False
        #: Last place of each entry that a journal was told of.
        self.entry_ends: list[int] = []
        #: By place: ids of messages that a journal was told of, and not told to forget.
        self.noted: dict[int, str] = {}
        self._accepted = 0
        self._tape: list[tuple[Call, bytes]] = []
        self._confirms: list[tuple[str, int]] = []
        self._greeted: dict[PeerId, str] = {}
        self._error = ""
        #: By address, and "HELLO" or "error": since when, and how many.
        self._offences: dict[tuple[PeerId, str], tuple[int, int]] = {}

    # ---- events ----------------------------------------------------------------------------

    def hear(self, id: PeerId, message: FromPeer, frames: Frames, now_ns: int) -> None:
        """A message comes from a peer."""
        was_ns, self.now = self.now, max(self.now, now_ns)
        woke = any(not h.lease and was_ns < h.due_ns <= self.now for h in self.held)
        if self._is_deaf(id, "HELLO" if isinstance(message, Hello) else "error"):
            self._ignored(lambda core: core.receive(id, message, frames, now_ns))
            return
        changes = self._on_message(id, message, frames) or woke
        before = None if changes else self.core.stats()
        self._call(lambda core: core.receive(id, message, frames, now_ns), id, before=before)

    def garble(self, id: PeerId, now_ns: int) -> None:
        """A message comes that cannot be decoded."""
        self.now = max(self.now, now_ns)
        fault = RemoteProtocolError("bad_message", "not JSON")
        if self._is_deaf(id, "error"):
            self._ignored(lambda core: core.refuse(id, fault, now_ns))
            return
        if seat := self.seats.get(id):
            self._end(seat)
        self._error = "bad_message"
        self._call(lambda core: core.refuse(id, fault, now_ns), id)

    def lose(self, id: PeerId, now_ns: int) -> None:
        """A peer cannot be reached any more."""
        self.now = max(self.now, now_ns)
        if seat := self.seats.get(id):
            self._end(seat)
        self._call(lambda core: core.peer_lost(id, now_ns), id)

    def advance(self, now_ns: int) -> None:
        """Time passes."""
        self.now = max(self.now, now_ns)
        for seat in list(self.seats.values()):
            if seat.heard_ns + self._silence_ns <= self.now:
                self._end(seat)
        for lease, (_, until_ns) in list(self.leases.items()):
            if until_ns <= self.now:
                self._give_back(lease)
        self._call(lambda core: core.advance(now_ns), None, pings=True)
        deadline = self.core.next_deadline_ns()
        promised(deadline is None or deadline > self.now, "P7", f"{deadline} is over and not done")

    def drain(self, now_ns: int) -> None:
        """The broker is to end."""
        self.now = max(self.now, now_ns)
        self.draining = True
        self._call(lambda core: core.drain(now_ns), None)

    def sync(self, place: int) -> None:
        """The journal has come as far as a place."""
        now_ns = self.now
        for held in self.held:
            if held.place <= place and not held.synced:
                held.synced = True
                self._expect_confirm(held)
        self._call(lambda core: _journaled(core).synced(place, now_ns), None)

    def stall(self, stalled: bool) -> None:
        """The journal can take no more, or goes on."""
        now_ns = self.now
        self.stalled = stalled
        self._call(lambda core: _journaled(core).stall(stalled, now_ns), None)

    def check_notes(self) -> None:
        """What the core noted must tell a journal exactly what is held (a journaled core's)."""
        for note in _journaled(self.core).notes():
            match note:
                case Append(first, messages, payload):
                    for place, message in enumerate(messages, first):
                        self.noted[place] = message.id
                    whole = len(payload) == sum(message.bytes for message in messages)
                    promised(whole, "notes", f"the payload of {first} is not whole")
                    self.entry_ends.append(first + len(messages) - 1)
                case Forget(first, count):
                    for place in range(first, first + count):
                        del self.noted[place]
                case Retried(first, count, attempt, dead):
                    for held in self.held:
                        if first <= held.place < first + count:
                            current = held.tries >= attempt and held.dead >= bool(dead)
                            promised(current, "notes", f"attempts of {held.place} are made up")
        promised({h.place: h.id for h in self.held} == self.noted, "notes", "not what is held")

    def replay(self) -> None:
        """Give all events to a second core, which must answer the same (P12)."""
        core = self._kind(self.limits, _SECRET)
        for call, answer in self._tape:
            promised(answer == _spelt(call(core)), "P12", "a second run answers differently")

    # ---- who is not heard ------------------------------------------------------------------

    def _is_deaf(self, id: PeerId, kind: str) -> bool:
        since_ns, count = self._offences.get((id, kind), (self.now, 0))
        fresh = self.now < since_ns + self.limits.errors_ns
        return fresh and count >= self.limits.errors_max

    def _offends(self, id: PeerId, kind: str) -> None:
        since_ns, count = self._offences.get((id, kind), (self.now, 0))
        if self.now >= since_ns + self.limits.errors_ns:
            self._offences.pop((id, kind), None)
            since_ns, count = self.now, 0
        self._offences[id, kind] = since_ns, count + 1
        # So many are remembered, as the broker's memory must be bounded.
        if len(self._offences) > 2 * self.limits.peers_max:
            del self._offences[next(iter(self._offences))]

    def _ignored(self, call: Call) -> None:
        """Let the core have an event that it must not look at; time passes all the same."""
        unheard = self.core.stats().counters.unheard
        self._call(call, None)
        promised(unheard + 1 == self.core.stats().counters.unheard, "unheard", "it was answered")

    # ---- what the event should do ----------------------------------------------------------

    def _on_message(self, id: PeerId, message: FromPeer, frames: Frames) -> bool:
        """Keep account of a message; tell whether it may change anything."""
        seat = self.seats.get(id)
        if isinstance(message, Hello):
            self._offends(id, "HELLO")
            self._greeted[id] = message.version
            if seat:
                self._end(seat)
            self._error = self._hello_error(id, message)
            return True
        if seat is None:
            self._error = "no_session"
            return True
        if message.session != seat.session:
            return False
        in_order = message.number == seat.heard + 1
        seat.heard += len(message.messages) if isinstance(message, PublishPack) else 1
        seat.heard_ns = self.now
        changes = True
        if not in_order:
            self._error = "gap"
        elif isinstance(message, Bye):
            self._end(seat)
        elif seat.id.role == "producer":
            self._error = self._from_producer(seat, message, frames)
        elif isinstance(message, Settle | Renew):
            changes = self._from_lessee(seat, _one_by_one(message))
        elif isinstance(message, Credit):
            seat.records, seat.size = message.records, message.bytes
        elif not isinstance(message, Ping):
            self._error = "role"
        if self._error:
            self._end(seat)
        return changes

    def _hello_error(self, id: PeerId, hello: Hello) -> str:
        if not hello.version.startswith("1"):
            return "version"
        if hello.role != id.role:
            return "role"
        if len(self.seats) >= self.limits.peers_max:
            return "full"
        return "closing" if self.draining and hello.role == "producer" else ""

    def _from_producer(self, seat: Seat, message: FromPeer, frames: Frames) -> str:
        match message:
            case Publish(id=id, records=records):
                return self._publish(seat, [(id, records, b"".join(frames))], message.number)
            case PublishPack():
                return self._publish_pack(seat, message, frames)
            case Return(records=records, bytes=size):
                if records > seat.records or size > seat.size:
                    return "over_credit"
                seat.records -= records
                seat.size -= size
            case Want():
                return self._want(seat, message)
            case Ping():
                pass
            case _:
                return "role"
        return ""

    def _publish_pack(self, seat: Seat, pack: PublishPack, frames: Frames) -> str:
        singles, at, payload = [], 0, b"".join(frames)
        for one in pack.messages:
            if one.records > self.limits.largest_records or one.bytes > self.limits.largest_bytes:
                return "too_large"
            singles.append((one.id, one.records, payload[at : at + one.bytes]))
            at += one.bytes
        is_whole = at == len(payload) and _ends_with_messages(pack.messages, frames)
        return self._publish(seat, singles, pack.number) if is_whole else "bad_message"

    def _publish(self, seat: Seat, singles: list[tuple[str, int, bytes]], number: int) -> str:
        """One message, or those of a pack: all of them or none."""
        largest = self.limits.largest_records, self.limits.largest_bytes
        if any(records > largest[0] or len(part) > largest[1] for _, records, part in singles):
            return "too_large"
        records = sum(records for _, records, _ in singles)
        size = sum(len(part) for _, _, part in singles)
        if records > seat.records or size > seat.size:
            return "over_credit"
        seat.records -= records
        seat.size -= size
        for id, count, part in singles:
            same = [h for h in self.held if h.id == id]
            if same:
                same[0].session, same[0].number = seat.session, number
                if same[0].synced:
                    self._confirms.append((seat.session, number))
            else:
                self._accepted += 1
                self.held.append(Held(id, count, part, self._accepted, seat.session, number))
            number += 1
        return ""

    def _want(self, seat: Seat, want: Want) -> str:
        ends = not want.least_records and not want.most_records
        if not ends and not (
            0 < want.least_records <= min(self.limits.largest_records, want.most_records)
            and want.least_bytes <= min(self.limits.largest_bytes, want.most_bytes)
        ):
            return "bad_message"
        seat.wish = None if ends else want
        return ""

    def _from_lessee(self, seat: Seat, said: list[tuple[int, str]] | None) -> bool:
        """Settle or renew leases; tell whether that changes anything."""
        if said is None:
            self._error = "bad_message"
            return True
        changes = False
        for lease, outcome in said:
            if lease not in seat.leases:
                continue
            changes = True
            if outcome == "renew":
                self.leases[lease] = seat, self.now + self.limits.lease_ns
                continue
            held = seat.leases[lease]
            if outcome == "retry" or (outcome == "bury" and held.dead):
                pause_ns = self.limits.retry_ns * 2 ** (held.tries - 1)
                held.due_ns = self.now + min(pause_ns, self.limits.retry_ns_max)
            if outcome == "bury":
                held.dead = True
            self._give_back(lease)
            if outcome == "ok":
                self.held.remove(held)
                self.gone.append(held.id)
                if not held.synced:
                    self._expect_confirm(held)
        return changes

    def _expect_confirm(self, held: Held) -> None:
        if any(s.session == held.session for s in self.seats.values()):
            self._confirms.append((held.session, held.number))

    def _end(self, seat: Seat) -> None:
        del self.seats[seat.id]
        self.left.append(seat.session)
        for lease in list(seat.leases):
            self._give_back(lease)

    def _give_back(self, lease: int) -> None:
        seat, _ = self.leases.pop(lease)
        held = seat.leases.pop(lease)
        held.lease = 0
        held.dead = held.dead or held.tries >= self.limits.attempts_max
        self.ended.append(lease)

    # ---- what the core did -----------------------------------------------------------------

    def _call(
        self,
        call: Call,
        id: PeerId | None,
        *,
        pings: bool = False,
        before: BrokerStats | None = None,
    ) -> None:
        """Let the core have an event; given `before`, nothing may change."""
        out = call(self.core)
        if before:
            promised(not out, "P11", f"{out} answers what was over")
            promised(_facts(before) == _facts(self.core.stats()), "P11", "what was over counts")
        self._tape.append((call, _spelt(out)))
        delivered: list[tuple[Seat, Deliver, bytes]] = []
        for one in out:
            if not isinstance(one.message, Welcome | Error):
                seat = self.seats.get(one.peer)
                if seat is None or seat.session != one.message.session:
                    raise AssertionError(f"P4: {one.message} to a session that is over")
                promised(one.message.number == seat.said + 1, "numbers", "a number was left out")
                seat.said += 1
                seat.said_ns = self.now
                delivered += self._delivered(seat, one)
            self._on_answer(one, id, pings)
        # Packs to several consumers overlap in time; the leases say in which order they were made.
        for seat, deliver, payload in sorted(delivered, key=lambda each: each[1].lease):
            self._on_deliver(seat, deliver, payload)
        promised(not self._error, "errors", f"no {self._error} was sent")
        promised(not self._confirms, "confirms", f"none for {self._confirms}")
        self._check()

    def _on_answer(self, out: Outgoing, id: PeerId | None, pings: bool) -> None:
        match out.message:
            case Error(code=code):
                as_due = (code, out.peer) == (self._error, id)
                promised(as_due, "errors", f"{code}, not {self._error!r}")
                self._offends(out.peer, "error")
                self._error = ""
            case Welcome(session=session, number=number):
                promised(not self._error and out.peer == id, "errors", f"no {self._error} was sent")
                promised(number == 1, "numbers", "WELCOME is number 1")
                known = [*self.left, *(s.session for s in self.seats.values())]
                promised(session not in known, "P4", "a session's token was used before")
                self._offences.pop((out.peer, "error"), None)
                packs = self._greeted[out.peer] == "1.1"
                self.seats[out.peer] = Seat(out.peer, session, self.now, self.now, packs=packs)
            case Confirm(session=session, numbers=firsts, counts=counts):
                packs = self.seats[out.peer].packs
                promised(packs or not counts, "packs", "counts for a peer that does not know them")
                told = len(encode(out.message)) <= CONTROL_BYTES_MAX
                promised(told, "confirms", "its control frame is too long")
                runs = zip(firsts, counts or (1,) * len(firsts), strict=True)
                for number in [first + n for first, count in runs for n in range(count)]:
                    ours = (session, number) in self._confirms
                    promised(ours, "confirms", f"{number} of {session} is not safe")
                    self._confirms.remove((session, number))
            case Grant() as grant:
                self._on_grant(self.seats[out.peer], grant)
            case Ping():
                promised(pings, "errors", "a PING that was not due")

    def _delivered(self, seat: Seat, out: Outgoing) -> list[tuple[Seat, Deliver, bytes]]:
        """Give the deliveries in a message, as if they had come singly."""
        payload = b"".join(out.frames)
        if isinstance(out.message, Deliver):
            return [(seat, out.message, payload)]
        if not isinstance(out.message, DeliverPack):
            return []
        pack, parts, at = out.message, [], 0
        promised(seat.packs, "packs", "a PACK for a peer that does not speak it")
        promised(len(encode(pack)) <= CONTROL_BYTES_MAX, "packs", "its control frame is too long")
        leases = [(o.lease + n, o.attempt) for o in pack.lent for n in range(o.count)]
        promised(len(leases) == len(pack.messages), "packs", "a lease too many, or too few")
        for number, one in enumerate(pack.messages, pack.number):
            part = payload[at : at + one.bytes]
            at += one.bytes
            lease, attempt = leases[number - pack.number]
            about = (attempt, one.id, one.records, one.key, one.metadata, "")
            single = Deliver(pack.session, number, lease, pack.lease_ms, *about)
            parts.append((seat, single, part))
        promised(at == len(payload), "packs", "its payload is not as long as its messages")
        cut_well = _ends_with_messages(pack.messages, out.frames)
        promised(cut_well, "packs", "a frame is empty, or ends within a message")
        seat.said += len(pack.messages) - 1
        return parts

    def _on_deliver(self, seat: Seat, deliver: Deliver, payload: bytes) -> None:
        held = next((h for h in self.held if h.id == deliver.id), None)
        if held is None:
            raise AssertionError(f"P2: {deliver.id} is delivered, but not held")
        promised(not held.lease, "P3", f"{held.id} is delivered twice at a time")
        promised(held is self.head(), "P9", f"{held.id} is not the next to leave")
        promised(deliver.lease not in [*self.leases, *self.ended], "P11", "a lease number returned")
        out = list(seat.leases.values())
        fits = (
            sum(h.records for h in out) + held.records <= seat.records
            and sum(h.size for h in out) + held.size <= seat.size
        )
        promised(bool(seat.records and seat.size), "P5", "delivered without any credit")
        promised(fits or not out, "P5", f"{held.id} goes beyond the consumer's credit")
        held.tries += 1
        in_limit = held.dead or held.tries <= self.limits.attempts_max
        promised(in_limit, "P6", f"{held.id} is delivered a time too often")
        promised(held.tries == deliver.attempt, "P6", "attempts are miscounted")
        promised(held.dead == bool(deliver.dead), "P6", "dead too early or too late")
        same = (held.records, held.payload) == (deliver.records, payload)
        promised(same, "P3", "it has changed")
        held.lease = deliver.lease
        seat.leases[deliver.lease] = held
        self.leases[deliver.lease] = seat, self.now + self.limits.lease_ns

    def _on_grant(self, seat: Seat, grant: Grant) -> None:
        promised(not self.draining, "P10", "a grant while draining")
        promised(not self.stalled, "P10", "a grant while the journal is stalled")
        seat.records += grant.records
        seat.size += grant.bytes
        wish, limits = seat.wish, self.limits
        if wish is None:
            raise AssertionError("P10: a grant that nobody wants")
        most_records = max(wish.least_records, min(wish.most_records, limits.credit_records_max))
        most_bytes = max(wish.least_bytes, min(wish.most_bytes, limits.credit_bytes_max))
        # Credit from before a wish became smaller stays; only what is granted is bounded.
        promised(seat.records <= most_records or not grant.records, "P10", "too many records")
        promised(seat.size <= most_bytes or not grant.bytes, "P10", "too many bytes")
        covers = seat.records >= wish.least_records and seat.size >= wish.least_bytes
        promised(covers, "P10", "a grant too small for the next message")

    def head(self) -> Held | None:
        """The message to be delivered next: those that came back first, each kind in order.

        One whose pause is not over does not count.
        """
        ready = [h for h in self.held if not h.lease and h.due_ns <= self.now]
        return min(ready, key=lambda h: (h.tries == 0, h.place), default=None)

    # ---- after every event -----------------------------------------------------------------

    def _check(self) -> None:
        stats = self.core.stats()
        promised(self._accepted == stats.counters.accepted, "P3", "accepted are miscounted")
        self._check_room()
        leased = [h for h in self.held if h.lease]
        gone = stats.counters.settled + stats.counters.buried
        promised(len(self.gone) == gone, "P2", "settled and buried are miscounted")
        promised(len(leased) == stats.leased_messages, "P4", "leases are miscounted")
        ready = len(self.held) - len(leased)
        promised(ready == stats.ready_messages, "P2", "ready ones are miscounted")
        self._check_deadline()
        self._check_progress()
        self.core.check()

    def _check_room(self) -> None:
        producers = [s for s in self.seats.values() if s.id.role == "producer"]
        granted = sum(s.records for s in producers), sum(s.size for s in producers)
        stats, limits = self.core.stats(), self.limits
        counted = (stats.granted_records, stats.granted_bytes)
        promised(granted == counted, "P1", "grants are miscounted")
        records = granted[0] + sum(h.records for h in self.held)
        size = granted[1] + sum(h.size for h in self.held)
        promised(records <= limits.capacity_records, "P1", "room in records exceeded")
        promised(size <= limits.capacity_bytes, "P1", "room in bytes exceeded")
        stuck = [
            s.wish
            for s in producers
            if s.wish and (s.records < s.wish.least_records or s.size < s.wish.least_bytes)
        ]
        fits = bool(stuck) and all(
            w.least_records <= limits.capacity_records - records
            and w.least_bytes <= limits.capacity_bytes - size
            for w in stuck
        )
        promised(
            not fits or self.draining or self.stalled,
            "P1",
            "room is left, yet a producer waits for it",
        )

    def _check_deadline(self) -> None:
        deadlines = [until_ns for _, until_ns in self.leases.values()]
        deadlines += [h.due_ns for h in self.held if not h.lease and h.due_ns > self.now]
        deadlines += [s.heard_ns + self._silence_ns for s in self.seats.values()]
        deadlines += [s.said_ns + self.limits.heartbeat_ns for s in self.seats.values()]
        earliest = min(deadlines, default=None)
        promised(earliest == self.core.next_deadline_ns(), "P8", "not the earliest deadline")

    def _check_progress(self) -> None:
        consumers = [s for s in self.seats.values() if s.id.role == "consumer"]
        idle = [s for s in consumers if s.records and s.size and not s.leases]
        promised(not (idle and self.head()), "P9", "a message waits, and so does a consumer")


def _one_by_one(message: Settle | Renew) -> list[tuple[int, str]] | None:
    """Give each lease with what is said of it; None if there are too many."""
    if isinstance(message, Settle):
        said = [(one.lease, one.count, str(one.outcome)) for one in message.settlements]
    else:
        counts = message.counts or (1,) * len(message.leases)
        said = [(n, count, "renew") for n, count in zip(message.leases, counts, strict=True)]
    if sum(count for _, count, _ in said) > LEASES_MAX:
        return None
    return [(first + n, outcome) for first, count, outcome in said for n in range(count)]


def _ends_with_messages(messages: tuple[Packed, ...], frames: Frames) -> bool:
    """Tell whether each frame ends where a message does, and none of several is empty."""
    ends = set(accumulate(message.bytes for message in messages))
    cuts = list(accumulate(len(frame) for frame in frames))
    return len(frames) < 2 or (ends.issuperset(cuts) and all(len(frame) for frame in frames))


def _journaled(core: BrokerCore) -> JournaledCore:
    assert isinstance(core, JournaledCore)
    return core


def _spelt(out: list[Outgoing]) -> bytes:
    return b"\n".join(b"%a %b %b" % (o.peer, encode(o.message), b"|".join(o.frames)) for o in out)


def _facts(stats: BrokerStats) -> BrokerStats:
    return replace(stats, counters=Counters(), oldest_ns=0)
