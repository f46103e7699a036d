"""RabbitMQ: a classic queue, publisher confirms, manual acknowledgements, all many at a time.

Messages are transient, as with the others that keep them in memory. As much is under way as
telemq's window has; a consumer acknowledges all that it took with one frame.

The node is one of its own: name, folder, cookie, configuration and epmd, all on loopback and in a
folder that is removed after it. A RabbitMQ that runs as a service of this machine is neither asked
nor touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from tempfile import TemporaryDirectory

from telemq.bench.carrier import Carrier, Load
from telemq.bench.measure import Part
from tests.bench.rivals.amqp import Connection
from tests.bench.rivals.server import serve, serving
from tests.support.ports import free_port

__all__ = ["RABBITMQ", "Confirms", "missing", "version"]

_QUEUE = b"bench"
#: What is called rabbitmq-server on the PATH of Debian drops root and writes into the system's own
#: folders; the script behind it does not.
_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_PREFETCH_MAX = 65_535


def missing() -> str:
    """Say what is not installed."""
    if _PROGRAM.exists() and shutil.which("epmd"):
        return ""
    return f"no {_PROGRAM}; Debian: apt-get install rabbitmq-server"


def version() -> str:
    """Give the version of what is installed; nothing if it cannot be told."""
    return _PROGRAM.resolve().parent.parent.name.rpartition("-")[2]


def _serve(pipe: Pipe, _load: Load) -> Part:
    with TemporaryDirectory(prefix="telemq-bench-") as scratch:
        folder, names = Path(scratch), Path(scratch, "epmd")
        names.mkdir()
        with serving(names, "epmd", "-address", "127.0.0.1", "-port", "{port}") as epmd:
            return serve(pipe, folder, str(_PROGRAM), environment=_environment(folder, epmd.port))


def _environment(folder: Path, epmd_port: int) -> dict[str, str]:
    plugins = folder / "plugins"
    plugins.write_text("[].\n")
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),  # of the cookie
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "RABBITMQ_NODENAME": "telemq-bench@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": "{port}",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder),
        "RABBITMQ_LOGS": "-",
        # Not those of the machine.
        "RABBITMQ_CONF_ENV_FILE": os.devnull,
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        # Has the script become the server, whose pid then is the one that is measured and killed.
        "RUNNING_UNDER_SYSTEMD": "true",
    }


class Confirms:
    """Counts confirms, which come one by one or for all up to a number. Pure."""

    def __init__(self) -> None:
        self._all_up_to = 0
        self._single: set[int] = set()

    def hear(self, confirms: Iterable[tuple[int, bool]]) -> int:
        """Give how many messages these numbers confirm for the first time."""
        before = self._all_up_to + len(self._single)
        for number, is_all in confirms:
            if is_all:
                self._all_up_to = max(self._all_up_to, number)
                self._single = {one for one in self._single if one > number}
            elif number > self._all_up_to:
                self._single.add(number)
            while self._all_up_to + 1 in self._single:
                self._all_up_to += 1
                self._single.remove(self._all_up_to)
        return self._all_up_to + len(self._single) - before


class _Producer:
    def __init__(self, port: int, load: Load) -> None:
        self._link = Connection(port, _QUEUE)
        self._link.confirm()
        self._confirms = Confirms()
        self._window, self._under_way = load.window_messages, 0

    def room(self) -> int:
        return self._window - self._under_way

    def send(self, payload: bytes) -> None:
        self._link.publish(payload)
        self._under_way += 1

    def poll(self, timeout_s: float) -> int:
        self._link.flush()
        self._link.wait(timeout_s)
        confirmed = self._confirms.hear(self._link.confirms())
        self._under_way -= confirmed
        return confirmed

    def close(self) -> None:
        self._link.close()


class _Consumer:
    def __init__(self, port: int, load: Load) -> None:
        self._link = Connection(port, _QUEUE)
        self._link.consume(min(_PREFETCH_MAX, load.window_messages))
        self._tag = 0

    def take(self, timeout_s: float) -> list[bytes]:
        self._link.flush()
        self._link.wait(timeout_s)
        came = list(self._link.deliveries())
        if came:
            self._tag = came[-1][0]
        return [body for _, body in came]

    def settle(self) -> None:
        self._link.acknowledge(self._tag)

    def close(self) -> None:
        self._link.close()


RABBITMQ = Carrier("RabbitMQ", _serve, _Producer, _Consumer, missing)
