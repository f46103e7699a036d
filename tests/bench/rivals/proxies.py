"""libzmq's own proxy in two other ways.

Between PUSH and PULL: no addresses, no acknowledgements, no bounds. And between ROUTER and DEALER
with keys: what libzmq's encryption costs one that decides nothing.
"""

from __future__ import annotations

import zmq

from telemq.bench.carrier import Carrier
from telemq.bench.proxy import Proxy

__all__ = ["ENCRYPTED", "PUSHPULL"]

_PUSHPULL = Proxy(zmq.PULL, zmq.PUSH)
_KEYS = Proxy(zmq.ROUTER, zmq.DEALER, has_keys=True)

PUSHPULL = Carrier("zmq.proxy PUSH/PULL", _PUSHPULL.serve, _PUSHPULL.sender, _PUSHPULL.receiver)
ENCRYPTED = Carrier("zmq.proxy ROUTER/DEALER, CURVE", _KEYS.serve, _KEYS.sender, _KEYS.receiver)
