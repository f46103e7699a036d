"""Carries messages from producers to consumers through some queue, and checks that all arrive.

A *carrier* is a queue under test: how it is served, and what a producer's and a consumer's end of
it are. The loops that drive the ends are the same for all carriers, so that what differs is the
queue. Every message begins with its number; the numbers that come out must be those that went in.

Latency is taken from the same loops: at a given rate each message also carries the moment at which
it was sent. All processes are of one machine and share its monotonic clock.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from telemq.bench.measure import Part, Quantiles, Run
from telemq.bench.worker import Crew, Worker, count_from_here, shared_count, stop_event
from telemq.clock import monotonic_ns
from telemq.errors import TelemqError
from telemq.protocol import Payload

__all__ = ["Carrier", "Load", "Receiver", "Sender", "carry"]

_TIMEOUT_S = 600.0
#: Longest wait for the confirms of what has arrived.
_CONFIRM_S = 60.0
#: When nothing has come out for so long, what is missing is lost.
_SILENCE_S = 10.0
#: Of a message: its number, and the moment at which it was sent, in nanoseconds.
_HEAD = struct.Struct(">QQ")
#: Sent before confirms have their turn: many small messages, or few large ones.
_TURN_MESSAGES, _TURN_BYTES = 256, 2**20
#: Numbers of the second producer begin here.
_NUMBERS = 2**40
#: Longest sleep of a paced producer, which is how exactly it knows when a confirm came.
_NAP_NS = 50_000


@dataclass(frozen=True, slots=True)
class Load:
    """What is carried.

    Attributes:
        records: in all; rounded up to whole messages.
        batch_records: records a message.
        record_bytes: bytes a record; a message has 16 at least.
        producers: producer processes.
        consumers: consumer processes.
        rate: records a second of all producers; 0 is as fast as it goes. With a rate, latency is
            measured.
        window_bytes: most payload bytes under way at each end, where a queue can be told.
        silence_s: when nothing came out for so long, what is missing is lost.
    """

    records: int
    batch_records: int = 1
    record_bytes: int = 400
    producers: int = 1
    consumers: int = 1
    rate: float = 0.0
    window_bytes: int = 4 * 2**20
    silence_s: float = _SILENCE_S

    @property
    def messages(self) -> int:
        """Messages of each producer."""
        return -(-self.records // (self.batch_records * self.producers))

    @property
    def message_bytes(self) -> int:
        """Payload bytes of one message."""
        return max(_HEAD.size, self.batch_records * self.record_bytes)

    @property
    def total_messages(self) -> int:
        """Messages of all producers."""
        return self.messages * self.producers

    @property
    def window_messages(self) -> int:
        """Messages under way at each end, where a queue counts those."""
        return max(4, self.window_bytes // self.message_bytes)


class Sender(Protocol):
    """A producer's end; one thread drives it."""

    def room(self) -> int:
        """Tell how many messages may be sent before the next `poll`."""

    def send(self, payload: bytes) -> None:
        """Send one message, or have the next `poll` do so."""

    def poll(self, timeout_s: float) -> int:
        """Do all input and output; give how many messages were confirmed since the last call.

        Returns when there are some, or after `timeout_s`.
        """

    def close(self) -> None:
        """Free everything; what was sent still arrives."""


class Receiver(Protocol):
    """A consumer's end; one thread drives it."""

    def take(self, timeout_s: float) -> Sequence[Payload]:
        """Give the messages that came since the last call.

        Returns when there are some, or after `timeout_s`.
        """

    def settle(self) -> None:
        """Be done with all that was taken."""

    def close(self) -> None:
        """Free everything."""


def _is_here() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Carrier:
    """A queue under test; all its functions are importable by name, as processes need them.

    Attributes:
        name: for the report.
        serve: runs it: sends its address through the pipe, and ends when something comes; may give
            what was used, if it is not this process that carries.
        sender: opens a producer's end, from the address.
        receiver: opens a consumer's end, from the address; whatever is sent later, it gets.
        missing: says why it cannot be run here, or nothing.
    """

    name: str
    serve: Callable[[Connection, Load], Part | None]
    sender: Callable[[Any, Load], Sender]
    receiver: Callable[[Any, Load], Receiver]
    missing: Callable[[], str] = _is_here


def carry(carrier: Carrier, load: Load) -> Run:
    """Carry the load once.

    Raises:
        TelemqError: a message was lost or came twice, or a process died.
    """
    with Crew() as crew:
        queue = crew.start("broker", carrier.serve, load)
        address = queue.receive(_TIMEOUT_S)
        count = shared_count()
        consumers = [
            crew.start("consumer", _consume, carrier.receiver, address, load, count)
            for _ in range(load.consumers)
        ]
        producers = [
            crew.start("producer", _produce, carrier.sender, address, load, n)
            for n in range(load.producers)
        ]
        for worker in (*consumers, *producers):
            worker.receive(_TIMEOUT_S)
        for worker in producers:
            worker.pipe.send("go")
        is_complete = _wait_for_all(count, load, (queue, *consumers))
        # A producer of what was lost would wait for its confirm for ever.
        sent = [worker.result(_CONFIRM_S) for worker in producers] if is_complete else []
        for worker in consumers:
            worker.pipe.send("stop")
        received = [worker.result(_TIMEOUT_S) for worker in consumers]
        _check(
            carrier.name, load, np.concatenate([heads["number"] for (heads, _, _), _ in received])
        )
        queue.pipe.send("stop")
        told, own = queue.result(_TIMEOUT_S)
    began = min(began for (began, _, _), _ in sent)
    ended = max([at for (_, at, _), _ in sent] + [at for (_, _, at), _ in received])
    delivered = np.concatenate([took for (_, took, _), _ in received])
    return Run(
        carrier.name,
        load.total_messages * load.batch_records,
        (ended - began) / 1e9,
        (told or own, *(part for _, part in sent), *(part for _, part in received)),
        delivered_ms=Quantiles.of(delivered / 1e6) if load.rate else None,
        confirmed_ms=Quantiles.of(np.concatenate([took for (_, _, took), _ in sent]) / 1e6)
        if load.rate
        else None,
    )


def _wait_for_all(count: Synchronized[int], load: Load, workers: Sequence[Worker]) -> bool:
    """Wait until all messages have come out, or none any more for a while; tell which it was."""
    seen, changed_at = -1, time.monotonic()
    while seen < load.total_messages and time.monotonic() < changed_at + load.silence_s:
        if (now := count.value) != seen:
            seen, changed_at = now, time.monotonic()
        for worker in workers:
            worker.check()
        time.sleep(0.005)
    return seen >= load.total_messages


def _check(name: str, load: Load, numbers: npt.NDArray[np.uint64]) -> None:
    sent = np.concatenate(
        [np.arange(load.messages, dtype=np.uint64) + n * _NUMBERS for n in range(load.producers)]
    )
    came, times = np.unique(numbers, return_counts=True)
    lost = len(np.setdiff1d(sent, came, assume_unique=True))
    strange = len(np.setdiff1d(came, sent, assume_unique=True))
    twice = int(times.sum()) - len(came)
    if lost or strange or twice:
        raise TelemqError(
            f"{name}: of {len(sent)} messages {lost} were lost, {twice} came twice, "
            f"and {strange} were never sent"
        )


def _produce(
    pipe: Connection, opens: Callable[..., Sender], address: object, load: Load, number: int
) -> tuple[int, int, npt.NDArray[np.int64]]:
    end = opens(address, load)
    pipe.send("ready")
    pipe.recv()
    count_from_here()
    began = monotonic_ns()
    drive = _at_rate if load.rate else _at_once
    took = drive(end, load, number * _NUMBERS)
    ended = monotonic_ns()
    end.close()
    return began, ended, np.array(took, np.int64)


def _at_once(end: Sender, load: Load, first: int) -> list[int]:
    body = bytes(load.message_bytes - 8)
    turn = max(1, min(_TURN_MESSAGES, _TURN_BYTES // load.message_bytes))
    sent = confirmed = 0
    while confirmed < load.messages:
        room = end.room()
        now = min(room, turn, load.messages - sent)
        for number in range(first + sent, first + sent + now):
            end.send(number.to_bytes(8) + body)
        sent += now
        is_more = room > now and sent < load.messages
        confirmed += end.poll(0.0 if is_more else 1.0)
    return []


def _at_rate(end: Sender, load: Load, first: int) -> list[int]:
    body = bytes(load.message_bytes - _HEAD.size)
    interval_ns = 1e9 * load.batch_records * load.producers / load.rate
    sent_ns: list[int] = []
    took: list[int] = []
    began_ns = monotonic_ns()
    while len(took) < load.messages:
        if len(sent_ns) == load.messages:
            confirmed = end.poll(0.01)
        else:
            now_ns = monotonic_ns()
            early_ns = began_ns + int(len(sent_ns) * interval_ns) - now_ns
            if early_ns > 0:
                time.sleep(min(early_ns, _NAP_NS) / 1e9)
            elif end.room():
                end.send(_HEAD.pack(first + len(sent_ns), now_ns) + body)
                sent_ns.append(now_ns)
            confirmed = end.poll(0.0)
        if confirmed:
            now_ns, done = monotonic_ns(), len(took)
            took += [now_ns - at for at in sent_ns[done : done + confirmed]]
    return took


def _consume(
    pipe: Connection,
    opens: Callable[..., Receiver],
    address: object,
    load: Load,
    count: Synchronized[int],
) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], int]:
    end = opens(address, load)
    pipe.send("ready")
    count_from_here()
    stop = stop_event(pipe)
    heads: list[bytes] = []
    came: list[tuple[int, int]] = []
    now_ns = monotonic_ns()
    while not stop.is_set():
        if payloads := end.take(0.05):
            now_ns = monotonic_ns()
            heads.append(b"".join([payload[:16] for payload in payloads]))
            end.settle()
            came.append((now_ns, len(payloads)))
            with count.get_lock():
                count.value += len(payloads)
    end.close()
    all_heads = np.frombuffer(b"".join(heads), np.dtype([("number", ">u8"), ("sent", ">u8")]))
    at = np.array(came, np.int64).reshape(-1, 2)
    took = np.repeat(at[:, 0], at[:, 1]) - all_heads["sent"].astype(np.int64)
    return all_heads, took, now_ns
