"""A producer in plain pyzmq: nothing of telemq's, only docs/protocol.md.

    python examples/01_publish.py tcp://127.0.0.1:5601

Publishes three batches of records and ends when the broker has confirmed them, that is, when a
collector has stored them. Run it twice: the second time the ledger refuses them, and they are
confirmed all the same. A real producer also reconnects and publishes again what is unconfirmed.
"""

import json
import sys
import time
from datetime import UTC, datetime

import zmq

STREAM = "example/01"
BATCHES, ROWS = 3, 10


def batch(number: int) -> bytes:
    """Make ten records of one GPU as plain JSON."""
    record = {
        "timestamp": datetime.now(UTC).isoformat(),
        "metric_name": "DCGM_FI_DEV_GPU_UTIL",
        "gpu_id": "0",
        "uuid": "GPU-00000000-0000-0000-0000-000000000001",
        "hostname": "example",
    }
    return json.dumps([record | {"value": number * ROWS + row} for row in range(ROWS)]).encode()


def main(endpoint: str) -> None:
    """Say HELLO, wait for credit, publish, and wait for the confirms."""
    broker: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    broker.set_hwm(0)
    broker.setsockopt(zmq.LINGER, 0)
    broker.connect(endpoint)
    session, number = "", 0

    def say(kind: str, *fields: object, payload: bytes | None = None) -> int:
        nonlocal number
        number += 1
        control = json.dumps([kind, session, number, *fields]).encode()
        broker.send_multipart([control] if payload is None else [control, payload])
        return number

    payloads = {f"{STREAM}#{n * ROWS}": batch(n) for n in range(BATCHES)}
    largest = max(map(len, payloads.values()))
    broker.send(json.dumps(["HELLO", "", 0, "1.0", "producer", "example 01"]).encode())
    waiting = list(payloads)
    unconfirmed: dict[int, str] = {}
    records = size = 0
    beat_s = 1.0
    end = time.monotonic() + 60
    while (waiting or unconfirmed) and time.monotonic() < end:
        if not broker.poll(int(beat_s * 1000)):
            if session:
                say("PING")
            continue
        kind, its_session, _, *fields = json.loads(broker.recv())
        if kind == "WELCOME":
            session, beat_s = its_session, fields[1] / 1000
            say("WANT", ROWS, largest, BATCHES * ROWS, BATCHES * largest)
        elif kind == "GRANT":
            records, size = records + fields[0], size + fields[1]
        elif kind == "CONFIRM":
            for confirmed in fields[0]:
                print("stored", unconfirmed.pop(confirmed))
        elif kind in ("ERROR", "BYE"):
            sys.exit(f"the broker says {kind} {fields}")
        while waiting and records >= ROWS and size >= len(payloads[waiting[0]]):
            id = waiting.pop(0)
            records, size = records - ROWS, size - len(payloads[id])
            what = {"content-type": "telemq.record"}
            unconfirmed[say("PUBLISH", id, ROWS, "", what, payload=payloads[id])] = id
    if session:
        say("BYE")
    broker.close(linger=500)
    sys.exit(f"{len(waiting) + len(unconfirmed)} not stored" if waiting or unconfirmed else 0)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5601")
