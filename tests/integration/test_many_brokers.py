"""Several brokers: work goes where there is room, and DNS is followed as it changes."""

from __future__ import annotations

import socket
from contextlib import closing
from functools import partial

import pytest
import zmq

from telemq.client.payload import send_frames
from telemq.engine.gather import ManyConsumer
from telemq.engine.spread import ManyProducer
from telemq.protocol import Frames
from tests.support.brokers import running_broker, until


def _turn(producer: ManyProducer, consumer: ManyConsumer, got: list[str]) -> None:
    """Let both do what is due; what comes is settled."""
    producer.poll(0.01)
    deliveries = consumer.poll(0.01)
    got.extend(delivery.id for delivery in deliveries)
    consumer.settle(deliveries)


def test_message_stuck_at_a_full_broker_goes_to_another() -> None:
    """One broker's collectors are gone: it fills up, and the stream goes on by the other."""
    with running_broker(capacity_records=20) as full, running_broker() as other:
        producer = ManyProducer(
            [full.producers, other.producers], name="p", window_records=1000, window_bytes=10**6
        )
        consumer = ManyConsumer(
            [other.consumers], name="c", credit_records=1000, credit_bytes=10**6
        )
        with closing(producer), closing(consumer):
            got: list[str] = []
            turn = partial(_turn, producer, consumer, got)
            until(lambda: producer.stats().sessions == 2, "both are there", turn)
            published = 0
            while full.stats.ready_records < 20:
                producer.publish(f"s#{published}", 10, b"x")
                published += 1
                turn()
            for n in range(10):
                producer.publish(f"t#{n}", 10, b"x")
            until(lambda: producer.unconfirmed() == 2, "all but what the full one holds", turn)
            assert published + 8 == len(set(got)) == len(got)
            assert 20 == full.stats.ready_records


def test_messages_are_sent_as_fast_as_credit_comes() -> None:
    """A streamer has many small batches: none waits for another to be confirmed."""
    with running_broker() as one, running_broker() as other:
        producer = ManyProducer(
            [one.producers, other.producers], name="p", window_records=1000, window_bytes=10**6
        )
        with closing(producer):
            until(
                lambda: producer.stats().sessions == 2,
                "both are there",
                lambda: producer.poll(0.01),
            )
            for n in range(100):
                producer.publish(f"s#{n}", 1, b"x")
            producer.poll(2.0)
            assert (0, 100) == (producer.stats().waiting_messages, producer.unconfirmed())


def test_messages_travel_together_to_each_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """A streamer whose batches are single records: one at a time costs each broker twenty times."""
    sent: list[int] = []

    def counting(socket: zmq.Socket[bytes], control: bytes, frames: Frames) -> None:
        sent.append(len(frames))
        send_frames(socket, control, frames)

    with running_broker() as one, running_broker() as other:
        producer = ManyProducer(
            [one.producers, other.producers], name="p", window_records=5000, window_bytes=10**6
        )
        consumer = ManyConsumer(
            [one.consumers, other.consumers], name="c", credit_records=5000, credit_bytes=10**6
        )
        with closing(producer), closing(consumer):
            got: list[str] = []
            turn = partial(_turn, producer, consumer, got)
            until(lambda: producer.stats().sessions == 2, "both are there", turn)
            # Credit of a new producer doubles with what it uses.
            for n in range(20):
                producer.publish(f"a#{n}", 100, b"x")
                turn()
            until(lambda: not producer.unconfirmed(), "all are stored", turn)
            monkeypatch.setattr("telemq.client.connection.send_frames", counting)
            for n in range(1000):
                producer.publish(f"b#{n}", 1, b"x")
            producer.poll(0.0)
            assert sum(sent) < 40
            until(lambda: not producer.unconfirmed(), "all are stored", turn)
            assert 1020 == len(set(got)) == len(got)
            assert min(one.stats.counters.accepted, other.stats.counters.accepted) >= 300


def test_addresses_of_a_name_come_and_go() -> None:
    """A headless service: a broker is added, and one is taken out and then stopped."""
    answers = [["127.0.0.1"]]

    def resolve(host: str) -> list[str]:
        assert "brokers.example" == host
        if not answers[-1]:
            raise socket.gaierror(-2, "Name or service not known")
        return answers[-1]

    with running_broker(producer_bind="tcp://127.0.0.1:*", heartbeat_s=0.1) as first:
        port = first.producers.rpartition(":")[2]
        with running_broker(
            producer_bind=f"tcp://127.0.0.2:{port}", heartbeat_s=0.1, insecure=True
        ) as second:
            producer = ManyProducer(
                [f"tcp://brokers.example:{port}"],
                name="p",
                window_records=1000,
                window_bytes=10**6,
                resolve_s=0.05,
                resolve=resolve,
            )
            with closing(producer):

                def turn() -> None:
                    producer.poll(0.01)

                until(lambda: first.stats.producers == 1, "the first is found", turn)
                producer.publish("s#0", 1, b"x")
                until(lambda: first.stats.ready_messages == 1, "it is there", turn)
                answers.append(["127.0.0.1", "127.0.0.2"])
                until(lambda: second.stats.producers == 1, "the second is found", turn)
                answers.append(["127.0.0.2"])
                turn()
                answers.append([])
                assert 1 == first.stats.producers, "one that holds messages is not left"
                first.stop(bye=False)
                until(lambda: second.stats.ready_messages == 1, "its message moves", turn)
                assert ("", True) == (producer.fault, producer.connected)


def test_name_without_an_address_is_said() -> None:
    """A typing error in the name, or DNS is down when the streamer starts."""

    def resolve(_: str) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    producer = ManyProducer(
        ["tcp://nobody.example:1"],
        name="p",
        window_records=1,
        window_bytes=1,
        resolve_s=0.05,
        resolve=resolve,
    )
    with closing(producer):
        until(lambda: "nobody.example cannot be resolved" in producer.fault, "it says so")
        producer.publish("s#0", 1, b"x")
        assert [] == producer.poll(0.01)
        assert not producer.refused
