"""Binds a socket of the broker, or says why not: somebody else listens there, or it is no address.

Over TCP the kernel refuses a second listener. A Unix socket is a file, and libzmq removes what is
in its place without a look: a second broker would take over from one that runs and goes on holding
its messages, and a mistyped path would cost a file. So a path is looked at first; two brokers that
start in the same moment may both find it free.
"""

from __future__ import annotations

import errno
import socket
import stat
from pathlib import Path
from typing import Any

import zmq

from telemq.errors import BusyError, SettingError

__all__ = ["bind"]

_ACCEPTED = (
    "a ZeroMQ endpoint, such as tcp://127.0.0.1:5601 or ipc:///run/telemq/producers, "
    "whose path has at most 107 bytes"
)
_UNIX = "ipc://"
#: A listener whose queue of connections is full takes longer: it listens.
_PROBE_S = 1.0


def bind(bound: zmq.Socket[Any], flag: str, endpoint: str) -> str:
    """Bind a socket whose options are set; gives the endpoint, with the port that was picked.

    Args:
        bound: the socket.
        flag: where the endpoint comes from, for the error.
        endpoint: of ZeroMQ.

    Raises:
        SettingError: the endpoint is malformed, or the path of a Unix socket is that of a file.
        BusyError: somebody else listens there.
    """
    _look_at_path(flag, endpoint)
    bound.setsockopt(zmq.IPV6, int("[" in endpoint))
    try:
        bound.bind(endpoint)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EADDRINUSE, zmq.EADDRNOTAVAIL, errno.EACCES):
            raise BusyError(f"{flag} {endpoint}: {error.strerror}") from error
        raise SettingError(flag, endpoint, _ACCEPTED) from error
    return bound.getsockopt_string(zmq.LAST_ENDPOINT)


def _look_at_path(flag: str, endpoint: str) -> None:
    name = endpoint.removeprefix(_UNIX)
    # A name that begins with @ is no file, and taken only once, as a port is; * picks a new file.
    if not endpoint.startswith(_UNIX) or name.startswith(("@", "*")):
        return
    try:
        mode = Path(name).stat().st_mode
    except (OSError, ValueError):
        return  # nothing is there, or libzmq says better what is wrong
    if not stat.S_ISSOCK(mode):
        accepted = "a path where no file is, or only the socket of an earlier run"
        raise SettingError(flag, endpoint, accepted)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(_PROBE_S)
        try:
            probe.connect(name)
        except TimeoutError:
            pass
        except OSError:
            return  # nobody listens any more
    raise BusyError(f"{flag} {endpoint}: something listens there already")
