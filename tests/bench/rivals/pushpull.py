"""libzmq's own proxy between PUSH and PULL: no addresses, no acknowledgements, no bounds."""

from __future__ import annotations

import zmq

from telemq.bench.broker import Proxy
from telemq.bench.carrier import Carrier

__all__ = ["PUSHPULL"]

_PROXY = Proxy(zmq.PULL, zmq.PUSH)
PUSHPULL = Carrier("zmq.proxy PUSH/PULL", _PROXY.serve, _PROXY.sender, _PROXY.receiver)
