"""``telemq health``: is what runs here well? For a container's health check, and for people."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from telemq.setting import rows
from telemq.settings import (
    ApiSettings,
    BrokerSettings,
    CollectorSettings,
    Common,
    StreamerSettings,
)
from telemq_cli.app import app
from telemq_cli.outcome import FAILED, complain, outcome

__all__ = ["health"]

_KINDS: dict[str, type[Common]] = {
    kind.component: kind
    for kind in (BrokerSettings, StreamerSettings, CollectorSettings, ApiSettings)
}
_ACCEPTED = f"one of {', '.join(_KINDS)}, or http://host:port"
#: Settings that hold the address where /healthz and /readyz are; of a gateway where people ask it.
_ADDRESSES = ("address", "ops_address")


@app.command("health")
def health(
    where: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WHERE]...",
            help="broker, streamer, collector or api, at the address that its variable or its "
            "default says; or an address, such as 127.0.0.1:9601. "
            "Default: each of the four that listens here.",
            show_default=False,
        ),
    ] = None,
    *,
    live: Annotated[
        bool, typer.Option("--live", help="Ask whether it is alive, not whether it can work.")
    ] = False,
    wait_s: Annotated[
        float, typer.Option("--wait-s", min=0.1, max=300, help="Longest wait for all answers.")
    ] = 3.0,
) -> None:
    """Ask services whether they are well.

    Exit code 0: all that were asked are; 1: one is not, with the reason, or nothing listens.
    """
    raise typer.Exit(outcome(lambda: _run(where or [], "/healthz" if live else "/readyz", wait_s)))


def _run(where: list[str], path: str, wait_s: float) -> int:
    from telemq.probe import ask, ops_url
    from telemq.terminal import printable

    # Whom an address belongs to; one that is asked for by hand has no name.
    names: dict[str, str] = {}
    for word in where or _KINDS:
        for address in _addresses(_KINDS[word]) if word in _KINDS else [word]:
            names[ops_url("WHERE", address, _ACCEPTED)] = f"{word} " if word in _KINDS else ""
    answers = ask(list(names), path, wait_s)
    if not where:
        here = {names[answer.url] for answer in answers if not answer.refused}
        if not here:
            asked = ", ".join(f"{name}{url}" for url, name in names.items())
            complain(f"no service of telemq listens here; asked: {asked}")
            return FAILED
        answers = [answer for answer in answers if names[answer.url] in here]
    for answer in answers:
        line = f"{names[answer.url]}{answer.url}: {printable(answer.text)}"
        if answer.well:
            print(line)
        else:
            complain(line)
    sys.stdout.flush()
    return 0 if all(answer.well for answer in answers) else FAILED


def _addresses(kind: type[Common]) -> list[str]:
    """Give where a component answers, were it started with this environment."""
    values = {info.name: os.environ.get(info.variable) or info.default for info in rows(kind)}
    address = str(next(values[name] for name in _ADDRESSES if name in values))
    host, _, port = address.rpartition(":")
    workers = str(values.get("workers", 1))
    if not (port.isdigit() and workers.isdigit()):
        return [address]
    # Of several workers, each listens one port higher (telemq.up.workers).
    return [f"{host}:{int(port) + n}" for n in range(max(1, int(workers)))]
