"""Whether a container of the chart starts: its words and variables go through telemq's own parser.

What Kubernetes would do with them is done here: the variables are the environment, the arguments
the command line. The command is not run, but its settings are made, which checks each value.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator
from typing import Any
from unittest import mock

import typer

from telemq.endpoint import LOOPBACK
from telemq.errors import SettingError
from telemq.health import host_and_port
from telemq.setting import rows
from telemq.settings import (
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    Common,
    KeysSettings,
    MaintainSettings,
    MigrateSettings,
    StoreSettings,
    StreamerSettings,
)
from telemq_cli.main import app
from tests.support.chart import Container

__all__ = ["KINDS", "settings_of", "start_problems"]

#: The commands that run in pods, and what makes their settings.
KINDS: dict[str, type[Common]] = {
    "broker": BrokerSettings,
    "stream csv": StreamerSettings,
    "collect": CollectorSettings,
    "api": ApiSettings,
    "maintain": MaintainSettings,
    "migrate": MigrateSettings,
    "keys kubernetes": KeysSettings,
    "verify": StoreSettings,
}
#: In place of what a Secret or the pod's own facts would give.
_UNKNOWN = {"TELEMQ_ENGINE": "nats://server/stream"}


def start_problems(container: Container) -> Iterator[str]:
    """Say why a container of telemq would not start."""
    words = [str(word) for word in container.spec.get("args") or []]
    variables = {
        name: value if isinstance(value, str) else _UNKNOWN.get(name, "from-elsewhere")
        for name, value in container.variables.items()
        if name.startswith("TELEMQ_")
    }
    for problem in _problems(json.dumps([words, variables], sort_keys=True)):
        yield f"{container.where}: {problem}"


@functools.lru_cache(20_000)
def _problems(asked: str) -> tuple[str, ...]:
    words, variables = json.loads(asked)
    try:
        name, settings = settings_of(words, variables)
    except SettingError as error:
        return (str(error),)
    except Exception as error:  # noqa: BLE001 - typer's errors are click's, which it hides
        return (f"{' '.join(words)}: {getattr(error, 'message', None) or error!r}",)
    read = {info.variable for info in rows(KINDS[name])}
    found = [f"telemq {name} reads no {variable}" for variable in variables.keys() - read]
    for key in ("ops_address", "address"):
        if address := getattr(settings, key, ""):
            try:
                host, _ = host_and_port(key, address, insecure=settings.insecure)
            except SettingError as error:
                found.append(str(error))
            else:
                if host in LOOPBACK:
                    found.append(f"{address}: nobody could probe it")
    return tuple(found)


def settings_of(words: list[str], variables: dict[str, str]) -> tuple[str, Common]:
    """Give the command that words name, and the settings that it would have.

    Raises:
        Exception: there is no such command or flag, or a value is not accepted.
    """
    command: Any = typer.main.get_command(app)
    name: list[str] = []
    words = list(words)
    while hasattr(command, "commands"):
        if not words or words[0] not in command.commands:
            raise ValueError(f"no command {' '.join([*name, *words[:1]])}")
        name.append(words.pop(0))
        command = command.commands[name[-1]]
    kind = KINDS[" ".join(name)]
    with mock.patch.dict(os.environ, variables, clear=True):
        context = command.make_context(name[-1], words)
    known = {info.name for info in rows(kind)} & context.params.keys()
    return " ".join(name), kind(**{key: context.params[key] for key in known})
