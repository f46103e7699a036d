"""Publish to a broker that has keys, with nothing but pyzmq; see docs/security.md.

    telemq keys init --dir keys
    telemq keys new example --role producer
    telemq keys allow example.key --dir keys
    telemq broker --keys keys
    python examples/07_keys.py tcp://127.0.0.1:5601 example.key_secret keys/broker.key

Only three socket options differ from a peer without keys.
"""

import json
import sys

import zmq
import zmq.auth


def main(endpoint: str, key: str, broker_key: str) -> None:
    """Open a session and say how large a message may be."""
    public, secret = zmq.auth.load_certificate(key)
    broker, _ = zmq.auth.load_certificate(broker_key)
    if secret is None:
        raise SystemExit(f"{key}: no secret key in it; give the file NAME.key_secret")
    with zmq.Context() as context, context.socket(zmq.DEALER) as link:
        link.setsockopt(zmq.LINGER, 1000)
        link.setsockopt(zmq.CURVE_PUBLICKEY, public)
        link.setsockopt(zmq.CURVE_SECRETKEY, secret)
        link.setsockopt(zmq.CURVE_SERVERKEY, broker)
        link.connect(endpoint)
        link.send(json.dumps(["HELLO", "", 0, "1.0", "producer", "example 07"]).encode())
        # A key that is not allowed gets no answer at all: a socket monitor would tell why.
        if not link.poll(5000):
            raise SystemExit("no answer: is the key allowed, and for this endpoint?")
        welcome = json.loads(link.recv())
        print(f"{welcome[0]}: a message may have {welcome[6]} bytes")
        link.send(json.dumps(["BYE", welcome[1], 1]).encode())


if __name__ == "__main__":
    main(*sys.argv[1:])
