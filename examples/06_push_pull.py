"""One line of ZeroMQ in, one line out: no session, no credit, at most once (docs/ways.md).

    telemq broker --pull tcp://127.0.0.1:5603 --push tcp://127.0.0.1:5604
    python examples/06_push_pull.py tcp://127.0.0.1:5603 tcp://127.0.0.1:5604

Without the second address it only pushes, and telemq's own collectors store the records.
"""

import json
import sys
from datetime import UTC, datetime

import zmq


def main(pull: str, push: str = "") -> None:
    """Push three records, and pull as many messages if there is somewhere to pull from."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    producer: zmq.Socket[bytes] = context.socket(zmq.PUSH)
    producer.connect(pull)
    for value in range(3):
        record = {
            "timestamp": datetime.now(UTC).isoformat(),
            "metric_name": "DCGM_FI_DEV_GPU_UTIL",
            "uuid": "GPU-00000000-0000-0000-0000-000000000006",
            "value": value,
        }
        producer.send(json.dumps(record).encode())
    # Leaves when all has been sent, or after ten seconds.
    producer.close(linger=10_000)
    print("pushed 3 records")
    if not push:
        return
    consumer: zmq.Socket[bytes] = context.socket(zmq.PULL)
    consumer.setsockopt(zmq.RCVTIMEO, 10_000)
    # What this program has not read when it ends is lost: let little of it be under way.
    consumer.setsockopt(zmq.RCVHWM, 1)
    consumer.connect(push)
    for _ in range(3):
        print("pulled", json.loads(consumer.recv())["value"])
    consumer.close(linger=0)


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["tcp://127.0.0.1:5603"]))
