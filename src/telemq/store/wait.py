"""Connecting to a Postgres that may not be there yet: it starts beside us, or its name does.

Whether it is worth waiting is asked of libpq (``PQping``), which goes by error codes: what servers
say is in their own language. Waited for are a name that is not known yet, a refused or silent
connection, and a server that is starting up or shutting down. A server that answers and refuses
(a wrong password, no such database, too many connections) is not: waiting would hide the reason.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from telemq import log

__all__ = ["connect"]

#: The first pause, and the longest: soon enough after a start, and not a flood from many pods.
_PAUSE_S, _PAUSE_S_MAX = 0.1, 2.0
#: A server behind a dropped packet is given up after this long, unless the DSN says otherwise.
_CONNECT_S = 5
#: Seconds between two lines that say what is waited for.
_SAY_S = 10.0
_NOT_YET: dict[int, str] = {
    pq.Ping.NO_RESPONSE: "it does not answer",
    pq.Ping.REJECT: "it is starting up or shutting down",
}


def connect(dsn: str, wait_s: float) -> psycopg.Connection:
    """Give an autocommit connection, as soon as there is one.

    Args:
        dsn: of the database.
        wait_s: longest wait for a server that is not ready; with 0 it is tried once.

    Raises:
        psycopg.OperationalError: the server refuses, or was not ready within that time.
    """
    if not wait_s:
        return psycopg.connect(dsn, autocommit=True)
    deadline = time.monotonic() + wait_s
    facts = conninfo_to_dict(dsn)
    dsn = make_conninfo(dsn, connect_timeout=facts.get("connect_timeout", _CONNECT_S))
    pause_s, say = _PAUSE_S, 0.0
    while True:
        left_s = deadline - time.monotonic()
        why = _not_yet(dsn)
        if why is None or left_s <= 0:
            try:
                return psycopg.connect(dsn, autocommit=True)
            except psycopg.OperationalError:
                # Between the two questions it may have begun to restart.
                why = _not_yet(dsn)
                if why is None or left_s <= 0:
                    raise
        if time.monotonic() >= say:
            say = time.monotonic() + _SAY_S
            log.get().warning(
                "waiting for Postgres", why=why, left_s=round(left_s), **_where(facts)
            )
        # Jitter: pods that start together do not knock together.
        time.sleep(min(random.uniform(0.5, 1.0) * pause_s, left_s))
        pause_s = min(2 * pause_s, _PAUSE_S_MAX)


def _not_yet(dsn: str) -> str | None:
    return _NOT_YET.get(pq.PGconn.ping(dsn.encode()))


def _where(facts: Mapping[str, object]) -> dict[str, str]:
    """What may be shown of a DSN."""
    return {key: str(facts[key]) for key in ("host", "port", "dbname") if facts.get(key)}
