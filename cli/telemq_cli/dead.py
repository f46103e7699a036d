"""``telemq dead``: the rows that could not be stored, and what to do about them."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from telemq.errors import SettingError
from telemq.setting import rows
from telemq.settings import CollectorSettings, StoreSettings
from telemq_cli.app import app
from telemq_cli.database import open_database
from telemq_cli.flags import command
from telemq_cli.outcome import FAILED, NOT_USABLE, complain
from telemq_cli.when import moment

if TYPE_CHECKING:
    from telemq.store.dead import Selection
    from telemq.store.dead_retry import Outcome

__all__ = ["dead", "drop", "list_", "retry", "show"]

dead = typer.Typer(no_args_is_help=True)
app.add_typer(dead, name="dead", help="List, show, retry and drop dead letters.")

#: Of a payload, `show` prints this much; --raw gives all of it.
_SHOWN_BYTES = 4096
#: Of a collector's settings, those that a retry has.
_BOUNDS = {"record_age_days_max", "record_ahead_s_max"}
_OTHERS = {info.name for info in rows(CollectorSettings) if info.component == "collector"} - _BOUNDS

Ids = Annotated[
    list[int] | None,
    typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="Their numbers.", show_default=False),
]
Stream = Annotated[str | None, typer.Option("--stream", help="Only of this stream.")]
Reason = Annotated[
    str | None, typer.Option("--reason", help="Only with this text in their reason, in any case.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", help="Only kept since then: 90s, 30m, 2h, 7d, or RFC 3339."),
]
All = Annotated[bool, typer.Option("--all", help="Of all streams.")]
Json = Annotated[bool, typer.Option("--json", help="Print it as JSON.")]


@command(dead, "list", StoreSettings, without={"insecure"})
def list_(
    settings: StoreSettings,
    *,
    stream: Stream = None,
    reason: Reason = None,
    since: Since = None,
    dropped: Annotated[
        bool, typer.Option("--dropped", help="Those that were dropped, too.")
    ] = False,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100_000, help="Most letters.")] = 50,
    json: Json = False,
) -> int:
    """List dead letters, newest first."""
    from telemq.store.dead import Selection, count, find
    from telemq_cli.dead_render import print_letters
    from telemq_cli.render import print_json

    selection = Selection(
        stream=stream, reason=reason, since=moment("--since", since), dropped=dropped
    )
    with open_database(settings, "dead letters") as conn, conn.transaction():
        letters = find(conn, selection, limit=limit, newest=True)
        total, row_count = count(conn, selection)
    if json:
        print_json({"letters": letters, "count": total, "rows": row_count})
    else:
        print_letters(letters, total, row_count)
    return 0


@command(dead, "show", StoreSettings, without={"insecure"})
def show(
    settings: StoreSettings,
    id: Annotated[
        int,
        typer.Argument(metavar="ID", min=1, max=2**63 - 1, help="Its number.", show_default=False),
    ],
    *,
    raw: Annotated[
        bool, typer.Option("--raw", help="Print the payload's bytes and nothing else.")
    ] = False,
    json: Json = False,
) -> int:
    """Show one dead letter, its payload and what can be read of it."""
    from telemq.store.dead import Selection, find, payload_of
    from telemq_cli.dead_render import letter_values, print_letter
    from telemq_cli.render import print_json

    with open_database(settings, "dead letters") as conn, conn.transaction():
        found = find(conn, Selection(ids=(id,), dropped=True), limit=1)
        payload = payload_of(conn, id)
    if not found or payload is None:
        complain(f"there is no dead letter {id}; telemq dead list shows which there are")
        return NOT_USABLE
    if raw:
        sys.stdout.buffer.write(payload)
    elif json:
        print_json(letter_values(found[0], payload))
    else:
        print_letter(found[0], payload, _SHOWN_BYTES)
    return 0


@command(dead, "retry", CollectorSettings, without={*_OTHERS, "insecure"})
def retry(
    settings: CollectorSettings,
    ids: Ids = None,
    *,
    stream: Stream = None,
    reason: Reason = None,
    since: Since = None,
    all: All = False,
    json: Json = False,
) -> int:
    """Read kept payloads again and store what is acceptable now, exactly once.

    Exit code 0: all are stored; 1: some are still dead letters, with the reason.
    """
    from telemq.clock import utc_us
    from telemq.store.dead_retry import Retrier
    from telemq_cli.dead_render import print_outcome, print_retried
    from telemq_cli.render import print_json

    selection = _selection(ids, stream, reason, since, all)
    now_us = utc_us()
    outcomes: list[Outcome] = []
    with open_database(settings, "dead letters") as conn:
        retrier = Retrier(
            conn,
            oldest_us=now_us - settings.record_age_days_max * 86_400_000_000,
            latest_us=now_us + settings.record_ahead_s_max * 1_000_000,
            partition_hours=settings.partition_hours,
        )
        for outcome in retrier.retry(selection):
            outcomes.append(outcome)
            if not json:
                print_outcome(outcome)
    unknown = sorted(set(ids or ()) - {outcome.id for outcome in outcomes})
    for id in unknown:
        complain(f"there is no dead letter {id}, or it was dropped")
    if json:
        print_json({"outcomes": outcomes, "unknown": unknown})
    else:
        print_retried(outcomes)
    return FAILED if unknown or any(outcome.left for outcome in outcomes) else 0


@command(dead, "drop", StoreSettings, without={"insecure"})
def drop(
    settings: StoreSettings,
    ids: Ids = None,
    *,
    stream: Stream = None,
    reason: Reason = None,
    since: Since = None,
    all: All = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Needed unless the letters are named by number.")
    ] = False,
) -> int:
    """Throw kept payloads away for good; their rows stay counted, so verify stays balanced."""
    from telemq.store.dead import count
    from telemq.store.dead import drop as drop_letters

    selection = _selection(ids, stream, reason, since, all)
    with open_database(settings, "dead letters") as conn:
        if not ids and not yes:
            letters, row_count = count(conn, selection)
            complain(f"this would drop {letters:,} letters of {row_count:,} rows; add --yes")
            return NOT_USABLE
        gone = drop_letters(conn, selection)
    unknown = sorted(set(ids or ()) - set(gone))
    for id in unknown:
        complain(f"there is no dead letter {id}, or it was dropped before")
    print(f"dropped {len(gone):,} dead letters")
    return FAILED if unknown else 0


def _selection(
    ids: list[int] | None,
    stream: str | None,
    reason: str | None,
    since: str | None,
    all: bool,
) -> Selection:
    from telemq.store.dead import Selection

    narrowed = stream is not None or reason is not None or since is not None
    if sum((bool(ids), narrowed, all)) != 1:
        given = "several of them" if ids or narrowed or all else "nothing"
        accepted = "numbers, or --stream, --reason and --since together, or --all"
        raise SettingError("which letters", given, accepted)
    return Selection(
        ids=tuple(ids) if ids else None,
        stream=stream,
        reason=reason,
        since=moment("--since", since),
    )
