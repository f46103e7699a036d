"""``telemq keys``: key pairs, and whom a broker lets in. No secret key is ever printed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from telemq.settings import KeysSettings
from telemq_cli.app import app
from telemq_cli.flags import command
from telemq_cli.outcome import outcome

__all__ = ["allow", "entries", "init", "keys", "kubernetes", "new", "revoke"]

keys = typer.Typer(no_args_is_help=True, help="Make keys, and say whom a broker lets in.")
app.add_typer(keys, name="keys")

BrokerDirectory = Annotated[
    Path,
    typer.Option(
        "--dir", envvar="TELEMQ_BROKER_KEYS", help="The broker's key directory, as its --keys."
    ),
]
_DIRECTORY = Path("keys")


@keys.command()
def init(directory: BrokerDirectory = _DIRECTORY) -> None:
    """Make a broker's key directory: its own pair, and an empty allow-list."""
    from telemq.keys import KeyDirectory

    def run() -> int:
        public = KeyDirectory(directory).create()
        typer.echo(f"broker: start it with --keys {directory}")
        typer.echo(f"peers:  need {public} as --broker-key")
        return 0

    raise typer.Exit(outcome(run))


@keys.command()
def new(
    name: Annotated[str, typer.Argument(help="Letters, digits, '.', '_', '-'.")],
    role: Annotated[str, typer.Option(help="producer, consumer or admin.")],
    directory: Annotated[Path, typer.Option("--dir", help="Where the files go.")] = Path(),
) -> None:
    """Make a key pair of a peer: NAME.key, and NAME.key_secret that never leaves its machine."""
    from telemq.keys import SECRET, write_pair

    def run() -> int:
        public = write_pair(directory, name, role)
        typer.echo(f"secret: {directory / (name + SECRET)} (--key of the {role})")
        typer.echo(f"public: {public} (telemq keys allow {public}, at the broker)")
        return 0

    raise typer.Exit(outcome(run))


@keys.command()
def allow(
    file: Annotated[Path, typer.Argument(help="A public key: NAME.key.", show_default=False)],
    role: Annotated[
        str, typer.Option(help="producer, consumer or admin; default: what the file says.")
    ] = "",
    directory: BrokerDirectory = _DIRECTORY,
) -> None:
    """Let a key in; a running broker knows within a second or two."""
    from telemq.keys import KeyDirectory

    def run() -> int:
        key = KeyDirectory(directory).allow(file, role)
        typer.echo(f"allowed: {key.name} as {key.role}")
        return 0

    raise typer.Exit(outcome(run))


@keys.command()
def revoke(
    name: Annotated[str, typer.Argument(help="As telemq keys list shows it.")],
    directory: BrokerDirectory = _DIRECTORY,
) -> None:
    """Let a key in no more; a running broker ends its sessions within a second or two."""
    from telemq.keys import KeyDirectory

    def run() -> int:
        KeyDirectory(directory).revoke(name)
        typer.echo(f"revoked: {name}")
        return 0

    raise typer.Exit(outcome(run))


@keys.command("list")
def entries(
    *,
    directory: BrokerDirectory = _DIRECTORY,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show whom a broker lets in, and files that it cannot use."""
    from telemq.keys import KeyDirectory

    def run() -> int:
        allowed, wrong = KeyDirectory(directory).entries()
        if as_json:
            found = [{"name": key.name, "role": key.role} for key in allowed]
            typer.echo(json.dumps({"allowed": found, "unusable": wrong}))
            return 0
        for key in allowed:
            typer.echo(f"{key.role:<9} {key.name}")
        for detail in wrong:
            typer.echo(f"not used: {detail}", err=True)
        return 0

    raise typer.Exit(outcome(run))


@command(keys, "kubernetes", KeysSettings, without={"insecure"})
def kubernetes(
    settings: KeysSettings,
    broker_secret: Annotated[str, typer.Option(help="Secret of the broker's pods.")],
    streamer_secret: Annotated[str, typer.Option(help="Secret of the streamers' pods.")],
    collector_secret: Annotated[str, typer.Option(help="Secret of the collectors' pods.")],
    account: Annotated[
        Path, typer.Option(help="Directory with the pod's token, ca.crt and namespace.")
    ] = Path("/var/run/secrets/kubernetes.io/serviceaccount"),
) -> int:
    """Make the three Secrets of a chart's pods, in the pod's namespace; leave what is there.

    For the chart's Job. It may be run again at any time, and completes what another began.
    """
    from telemq import log
    from telemq.kubernetes import ClusterAccess, SecretNames, SecretsApi, make_key_secrets

    log.configure(settings.log_level, settings.log_format, component=settings.component)
    names = SecretNames(broker_secret, streamer_secret, collector_secret)
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{what}", "") for what in ("HOST", "PORT"))
    api = SecretsApi(ClusterAccess(host, port, account), settings.wait_s)
    for name, made in make_key_secrets(api, names).items():
        typer.echo(f"{'made' if made else 'left'}: Secret {api.namespace}/{name}")
    return 0
