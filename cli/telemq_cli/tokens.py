"""``telemq tokens``: who may ask a gateway. A token is printed once, when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from telemq.settings import StoreSettings
from telemq_cli.app import app
from telemq_cli.database import open_database
from telemq_cli.flags import command

if TYPE_CHECKING:
    from telemq.token import Token

__all__ = ["list_", "new", "revoke", "tokens"]

tokens = typer.Typer(no_args_is_help=True)
app.add_typer(tokens, name="tokens", help="Make, list and revoke tokens of the gateway.")

Name = Annotated[str, typer.Argument(help="Whose: letters, digits, '.', '_', '-'.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command(tokens, "new", StoreSettings, without={"insecure"})
def new(
    settings: StoreSettings,
    name: Name,
    scope: Annotated[str, typer.Option(help="read, write or admin; each may what those before.")],
    *,
    days: Annotated[
        float | None, typer.Option(help="Days until it expires; for ever unless given.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Make a token and print it, this once: what is stored does not tell it."""
    from telemq.store.tokens import new_token
    from telemq_cli.render import print_json

    with open_database(settings, "tokens") as conn:
        token, text = new_token(conn, name, scope, days=days)
    if as_json:
        print_json({"token": text, **_values(token)})
    else:
        print(text)
        until = f"until {token.expires_at:%Y-%m-%d %H:%M} UTC" if token.expires_at else "for ever"
        typer.echo(f"{name}: {scope}, {until}; it is not shown again", err=True)
    return 0


@command(tokens, "list", StoreSettings, without={"insecure"})
def list_(settings: StoreSettings, *, as_json: Json = False) -> int:
    """List all tokens: what each may, whether it is live, and when it was used last."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from telemq.store.tokens import list_tokens
    from telemq_cli.render import print_json

    with open_database(settings, "tokens") as conn:
        found = list_tokens(conn)
    if as_json:
        print_json({"tokens": [_values(token) for token in found]})
        return 0
    table = Table(box=box.SIMPLE_HEAD)
    for title in ("name", "scope", "state", "made", "expires", "used"):
        table.add_column(title, overflow="fold")
    for values in map(_values, found):
        moments = (values[f"{what}_at"] for what in ("made", "expires", "used"))
        shown = (f"{at:%Y-%m-%d %H:%M}" if at else "-" for at in moments)
        table.add_row(values["name"], values["scope"], values["state"], *shown)
    Console().print(table)
    return 0


@command(tokens, "revoke", StoreSettings, without={"insecure"})
def revoke(settings: StoreSettings, name: Name) -> int:
    """Let a token open nothing any more; gateways know within --token-cache-s."""
    from telemq.store.tokens import revoke_token

    with open_database(settings, "tokens") as conn:
        revoke_token(conn, name)
    print(f"revoked: {name}")
    return 0


def _values(token: Token) -> dict[str, Any]:
    from datetime import UTC, datetime

    return {
        "id": token.id,
        "name": token.name,
        "scope": token.scope,
        "state": token.state(datetime.now(UTC)),
        "made_at": token.made_at,
        "expires_at": token.expires_at,
        "revoked_at": token.revoked_at,
        "used_at": token.used_at,
    }
