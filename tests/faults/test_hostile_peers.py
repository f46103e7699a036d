"""Faults 22, 23, 25 and 28: peers that speak another protocol, too much of it, or none at all."""

from __future__ import annotations

import contextlib
import resource
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import zmq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemq.broker.core import BrokerCore
from telemq.broker.peers import PeerId
from telemq.errors import RemoteProtocolError
from telemq.protocol import decode_from_peer, encode
from tests.support.brokers import DEADLINE_S, PlainPeer, running_broker, until
from tests.support.crowd import Consumers, Producers
from tests.support.peers import LIMITS
from tests.support.services import Service, running_broker_process

pytestmark = [pytest.mark.faults, pytest.mark.timeout(120)]

MB = 10**6
#: ZMTP 3.1: signature, version, mechanism NULL, as a client.
GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32)
READY = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"


def carry(front: str, back: str, messages: int = 50) -> float:
    """Carry some messages over fresh links; gives the seconds it took, connecting included."""
    began = time.monotonic()
    with (
        closing(Producers(front, 1, messages)) as producers,
        closing(Consumers(back, 1)) as consumers,
    ):
        while not producers.done:
            assert time.monotonic() < began + DEADLINE_S, "an honest peer is not served"
            producers.step(0.005)
            consumers.step(0.005)
        assert producers.ids() <= set(consumers.seen)
    return time.monotonic() - began


def connect(endpoint: str) -> socket.socket:
    """Open a bare TCP connection."""
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    return socket.create_connection((host, int(port)), timeout=DEADLINE_S)


def shake_hands(endpoint: str) -> socket.socket:
    """Open a ZMTP connection by hand, up to READY on both sides."""
    raw = connect(endpoint)
    raw.sendall(GREETING)
    assert 64 == len(_read(raw, 64))
    raw.sendall(b"\x04" + bytes([len(READY)]) + READY)
    head = _read(raw, 2)
    _read(raw, head[1])
    return raw


def _read(raw: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count and (more := raw.recv(count - len(data))):
        data += more
    return data


def test_fault_22_peer_of_another_version_is_refused_by_name() -> None:
    """A client of the next generation finds this broker."""
    with running_broker_process() as (broker, front, back):
        with PlainPeer(front, "producer") as peer:
            peer.send(["HELLO", "", 0, "2.0", "producer", "from the future"])
            error = peer.hear("ERROR")
        assert ["version", "version '2.0' is not spoken here; 1.1 is"] == error[3:]
        line = broker.event("peer refused")
        assert ("version", "producer") == (line["code"], line["role"])
        carry(front, back)
        assert 1 == broker.metric('telemq_broker_refused_total{code="version"}')


#: Frame heads: a flag of a long frame, and the length.
OVERSIZED = {
    "8 MB and a byte": b"\x02" + struct.pack(">Q", 8 * 2**20 + 1),
    "2^63": b"\x02" + struct.pack(">Q", 2**63),
    "2^64 - 1": b"\x02" + struct.pack(">Q", 2**64 - 1),
}


def test_fault_23_oversized_frames_cost_their_sender_the_connection_and_nobody_else() -> None:
    """A length that nobody can mean, from raw sockets."""
    with running_broker_process() as (broker, front, back):
        carry(front, back)
        before = broker.rss_bytes()
        for name, head in OVERSIZED.items():
            for _ in range(20):
                # Dropped: either a reset or an end, but not a wait.
                with closing(shake_hands(front)) as raw, contextlib.suppress(ConnectionError):
                    raw.sendall(head + bytes(100_000))
                    assert b"" == raw.recv(1), f"{name}: not dropped"
        grew = broker.rss_bytes() - before
        took_s = carry(front, back)
        print(f"{20 * len(OVERSIZED)} oversized frames: grew by {grew / MB:.1f} MB, {took_s:.2f} s")
        assert grew < 30 * MB


def silent(stack: ExitStack, endpoint: str, count: int) -> int:
    """Open connections that say nothing; gives how many could be opened."""
    opened = 0
    for _ in range(count):
        with contextlib.suppress(OSError):
            stack.enter_context(contextlib.closing(connect(endpoint)))
            opened += 1
    return opened


@pytest.fixture
def broker() -> Iterator[tuple[Service, str, str]]:
    """A broker as a process, and its endpoints."""
    with running_broker_process() as running:
        yield running


def test_fault_25_four_hundred_silent_connections_lock_nobody_out(
    broker: tuple[Service, str, str],
) -> None:
    """A port scan, or a load balancer that probes by connecting."""
    service, front, back = broker
    with ExitStack() as stack:
        count = silent(stack, front, 400) + silent(stack, back, 400)
        took_s = carry(front, back)
        most = service.descriptors()
        # The handshake has a second: then they are dropped by the broker.
        until(lambda: service.descriptors() < 100, "silent connections were not dropped")
    print(f"{count} silent connections, {most} descriptors, an honest peer took {took_s:.2f} s")
    assert 800 == count
    assert took_s < 10


def test_fault_25_running_out_of_descriptors_is_survived(broker: tuple[Service, str, str]) -> None:
    """More connections than the process may have files."""
    service, front, back = broker
    if not hasattr(resource, "prlimit"):
        pytest.skip("no prlimit on this system")
    resource.prlimit(service.process.pid, resource.RLIMIT_NOFILE, (100, 100))
    with ExitStack() as stack:
        count = silent(stack, front, 400)
        took_s = carry(front, back)
    print(f"{count} silent connections on 100 descriptors, an honest peer took {took_s:.2f} s")
    assert service.process.poll() is None
    assert took_s < 15


# ---- 28: fuzz ----------------------------------------------------------------------------------

KINDS = (
    *("HELLO", "PING", "BYE", "WANT", "RETURN", "PUBLISH"),
    *("CREDIT", "SETTLE", "RENEW", "GRANT", "PACK"),
)
EXTREME = st.sampled_from((0, 1, 2, -1, 2**31, 2**53 - 1, 2**53, 2**63, -(2**63), 10**30))
#: Of leases: up to what one message may name, beyond, and so many that to visit each takes years.
COUNT = st.sampled_from((1, 1, 2, 3, 65_536, 65_537, 2**53 - 1))
odd = st.one_of(
    EXTREME, st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(),
    st.none(), st.text(max_size=20), st.sampled_from(("1.0", "producer", "ok", "retry", "bury")),
)  # fmt: skip
field = st.one_of(
    odd,
    st.lists(st.one_of(odd, st.tuples(EXTREME, odd, odd)), max_size=5),
    st.dictionaries(st.text(max_size=5), odd, max_size=3),
)
#: "?" stands for the session, and None for the next number: half of them get past the first door.
controls = st.tuples(
    st.sampled_from(KINDS),
    st.one_of(st.just("?"), st.just("?"), st.text(max_size=20), odd),
    st.one_of(st.none(), st.none(), odd),
).flatmap(lambda head: st.lists(field, max_size=6).map(lambda rest: [*head, *rest]))
valid = st.one_of(
    st.tuples(st.just("WANT"), st.just("?"), st.none(), EXTREME, EXTREME, EXTREME, EXTREME),
    st.tuples(st.just("CREDIT"), st.just("?"), st.none(), EXTREME, EXTREME),
    st.tuples(st.just("RETURN"), st.just("?"), st.none(), EXTREME, EXTREME),
    st.tuples(st.just("RENEW"), st.just("?"), st.none(), st.lists(EXTREME, max_size=5)),
    st.tuples(
        st.just("RENEW"), st.just("?"), st.none(),
        *[st.lists(COUNT, min_size=1, max_size=2) for _ in range(2)],
    ),
    st.tuples(
        st.just("SETTLE"), st.just("?"), st.none(),
        st.lists(st.tuples(EXTREME, st.sampled_from(("ok", "retry", "bury"))), max_size=5),
    ),
    st.tuples(
        st.just("SETTLE"), st.just("?"), st.none(),
        st.lists(
            st.tuples(COUNT, st.sampled_from(("ok", "retry", "bury")), st.just(""), COUNT),
            max_size=3,
        ),
    ),
    st.tuples(
        st.just("PUBLISH"), st.just("?"), st.none(), st.text(max_size=3), EXTREME, st.just(""),
        st.just({}),
    ),
    st.tuples(st.just("PACK"), st.just("?"), st.none(), st.lists(
        st.tuples(st.text(max_size=3), EXTREME, EXTREME, st.just(""), st.just({})), max_size=3,
    )),
).map(list)  # fmt: skip
Frame = bytes | list[object]
talks = st.lists(st.one_of(valid, controls, st.binary(max_size=100)), min_size=1, max_size=15)


def spell(frame: Frame, session: str, number: int) -> bytes:
    """Give the control frame, with session and number filled in."""
    if isinstance(frame, bytes):
        return frame
    kind, own, count, *rest = frame
    said = [kind, session if own == "?" else own, number if count is None else count, *rest]
    with contextlib.suppress(OverflowError):
        return encode(said)
    return repr(said).encode(errors="replace")


@given(st.lists(st.tuples(st.sampled_from(("producer", "consumer")), talks), max_size=6))
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
def test_fault_28_fuzz_never_breaks_a_promise_of_the_core(
    runs: list[tuple[str, list[Frame]]],
) -> None:
    """Whatever decodes goes in; every promise is checked after each message."""
    core = BrokerCore(LIMITS, b"secret")
    for n, (role, frames) in enumerate(runs):
        id = PeerId(role, b"%d" % (n % 3))  # type: ignore[arg-type]  # what is drawn is a role
        for at, frame in enumerate([["HELLO", "", 0, "1.1", role, ""], *frames]):
            peer = core._peers.at(id)
            session, number = (peer.session, peer.heard + 1) if peer else ("", 0)
            try:
                message = decode_from_peer(spell(frame, session, number))
            except RemoteProtocolError as error:
                core.refuse(id, error, at)
            else:
                core.receive(id, message, (b"x",), at)
            core.check()


def test_fault_28_fuzz_over_a_socket_harms_nobody_else() -> None:
    """The same nonsense through libzmq, from many connections, beside honest peers."""
    sent = 0
    with running_broker() as broker, zmq.Context() as context:

        @given(st.sampled_from(("producer", "consumer")), talks, st.booleans())
        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        def talk(role: str, frames: list[Frame], has_payload: bool) -> None:
            nonlocal sent
            with context.socket(zmq.DEALER) as raw:
                raw.setsockopt(zmq.LINGER, 0)
                raw.connect(broker.producers if role == "producer" else broker.consumers)
                raw.send(encode(["HELLO", "", 0, "1.1", role, "fuzz"]))
                session = decode_session(raw)
                for at, frame in enumerate(frames):
                    extra = [b"payload"] if has_payload else []
                    raw.send_multipart([spell(frame, session, at + 1), *extra])
                    sent += 1

        talk()
        # Those that sat in the queue come back to honest consumers, or are dead letters.
        took_s = carry(broker.producers, broker.consumers)
        refused = broker.stats.counters.refused
    print(f"{sent} messages of nonsense, refused {refused}; honest peers took {took_s:.2f} s")
    assert refused["bad_message"] > 10


def decode_session(raw: zmq.Socket[bytes]) -> str:
    """Wait for WELCOME; gives its session."""
    assert raw.poll(int(DEADLINE_S * 1000)), "no WELCOME came"
    return raw.recv().split(b'"')[3].decode()


def test_fault_28_repeated_offender_is_not_answered_and_costs_no_memory() -> None:
    """A client with a fault writes as fast as it can and reads nothing."""
    with running_broker_process() as (broker, front, back):
        carry(front, back)
        before = broker.rss_bytes()
        with PlainPeer(front, "producer") as offender:
            for _ in range(50_000):
                offender.send_frames(b"nonsense")
            until(
                lambda: broker.metric("telemq_broker_unheard_messages_total") > 40_000,
                "the offender is cut off",
            )
            took_s = carry(front, back)
            refused = broker.metric('telemq_broker_refused_total{code="bad_message"}')
            grew = broker.rss_bytes() - before
        print(f"50,000 errors: {refused:.0f} answered, grew by {grew / MB:.1f} MB, {took_s:.2f} s")
    assert refused < 1000
    assert grew < 30 * MB
