"""Several workers of `telemq collect`, each a process of its own, restarted when it dies."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Mapping, Sequence

from telemq.health import host_and_port
from telemq.settings import CollectorSettings
from telemq.up.supervisor import Program, Supervisor

__all__ = ["run_workers", "worker_settings"]

_TICK_S = 0.05
#: What a worker has on top of its drain, to close its sockets and end.
_EXIT_S = 2.0
_GROUP = "worker"


def run_workers(
    settings: CollectorSettings,
    stop: threading.Event,
    *,
    command: Sequence[str],
    environment: Callable[[CollectorSettings], Mapping[str, str]],
) -> int:
    """Run `settings.workers` collectors until `stop`, then drain them; gives 0.

    Args:
        settings: of all of them together; the DSN is resolved.
        stop: set to drain and end.
        command: what runs one collector.
        environment: gives the variables that make one worker's settings; the only way in which
            they are handed over, since one of them is a secret.

    Raises:
        ChildError: a worker refuses to run; the others have been stopped.
    """
    programs = [
        Program(f"worker-{n}", _GROUP, tuple(command), environment(own))
        for n, own in enumerate(worker_settings(settings), 1)
    ]
    with Supervisor(programs) as supervisor:
        supervisor.start()
        while not stop.wait(_TICK_S):
            supervisor.step()
        supervisor.stop(_GROUP, settings.drain_s + _EXIT_S)
        pause = threading.Event()
        while not supervisor.ended(_GROUP):
            supervisor.step()
            pause.wait(_TICK_S)
    return 0


def worker_settings(settings: CollectorSettings) -> list[CollectorSettings]:
    """Give each worker its own: the first listens at the ops address, the next one port higher."""
    host, port = host_and_port("--ops-address", settings.ops_address, insecure=settings.insecure)
    host = f"[{host}]" if ":" in host else host
    return [
        dataclasses.replace(settings, workers=1, ops_address=f"{host}:{port + n if port else 0}")
        for n in range(settings.workers)
    ]
