"""A consumer in plain pyzmq: nothing of telemq's, only docs/protocol.md.

    python examples/02_consume.py tcp://127.0.0.1:5602 [messages]

Prints what it is lent, one line a message, and settles each; ends after so many messages. It takes
its share beside telemq's own collectors, so use it on a broker of its own unless you mean that.
"""

import json
import sys
import time

import zmq


def main(endpoint: str, messages: int) -> None:
    """Say HELLO, give credit, and settle what is delivered."""
    broker: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.DEALER)
    broker.set_hwm(0)
    broker.setsockopt(zmq.LINGER, 0)
    broker.connect(endpoint)
    session, number = "", 0

    def say(kind: str, *fields: object) -> None:
        nonlocal number
        number += 1
        broker.send(json.dumps([kind, session, number, *fields]).encode())

    broker.send(json.dumps(["HELLO", "", 0, "1.0", "consumer", "example 02"]).encode())
    beat_s = 1.0
    end = time.monotonic() + 60
    while messages and time.monotonic() < end:
        if not broker.poll(int(beat_s * 1000)):
            if session:
                say("PING")
            continue
        control, *payload = broker.recv_multipart()
        kind, its_session, _, *fields = json.loads(control)
        if kind == "WELCOME":
            session, beat_s = its_session, fields[1] / 1000
            say("CREDIT", 1000, 2**20)
        elif kind == "DELIVER":
            lease, _, attempt, id, records, _, metadata, dead = fields
            print(f"{id}: {records} records, attempt {attempt}, {metadata} {dead}")
            print(f"  {payload[0][:60]!r}")
            # A real consumer makes the message safe before it settles.
            say("SETTLE", [[lease, "ok", ""]])
            messages -= 1
        elif kind in ("ERROR", "BYE"):
            sys.exit(f"the broker says {kind} {fields}")
    if session:
        say("BYE")
    broker.close(linger=500)
    sys.exit(f"{messages} messages did not come" if messages else 0)


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "tcp://127.0.0.1:5602",
        int(sys.argv[2]) if len(sys.argv) > 2 else 3,
    )
