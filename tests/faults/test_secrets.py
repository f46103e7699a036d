"""Fault 36: passwords, keys and tokens stand in no log, no error and no process title."""

from __future__ import annotations

import contextlib
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from telemq.sources.csv_replay import bundled_sample
from telemq.store.tokens import new_token
from tests.support.commands import telemq
from tests.support.keys import Keys
from tests.support.running import eventually
from tests.support.services import Service, running_service

pytestmark = [pytest.mark.faults, pytest.mark.timeout(180)]

#: In place of a password; nothing else could contain it.
_CANARY = "c4n4ry-p4ssw0rd"
_OPS = "--ops-address=127.0.0.1:0"


def _titles() -> str:
    """Give the command lines of all processes, as any user of the machine can read them."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            with contextlib.suppress(OSError):
                found.append((process / "cmdline").read_bytes().decode(errors="replace"))
                found.append((process / "comm").read_text(errors="replace"))
    return "\n".join(found)


def _secret_of(file: Path) -> str:
    """Give the secret key of a key file."""
    line = next(line for line in file.read_text().splitlines() if "secret-key" in line)
    return line.split('"')[1]


def test_fault_36_no_secret_is_logged_answered_or_shown_by_ps(
    dsn: str, conn: psycopg.Connection, tmp_path: Path
) -> None:
    """A pipeline at log level debug, with a password, keys and tokens, used rightly and wrongly."""
    facts = conninfo_to_dict(dsn)
    url = f"postgresql://{facts['user']}:{_CANARY}@/{facts['dbname']}?host={facts['host']}"
    keys = Keys(tmp_path)
    keys.peer("streamer", "producer")
    keys.peer("collector", "consumer")
    _, token = new_token(conn, "canary", "read")
    wrong = token[:-6] + "AAAAAA"
    secrets = {
        _CANARY, token.rpartition("_")[2], wrong.rpartition("_")[2],
        *(_secret_of(keys.secret_file(peer)) for peer in ("streamer", "collector")),
        _secret_of(Path(keys.path) / "broker.key_secret"),
    }  # fmt: skip
    debug = {"TELEMQ_LOG_LEVEL": "debug", "TELEMQ_DSN": url}
    services: list[Service] = []
    told = []
    with contextlib.ExitStack() as stack:

        def start(*words: str) -> Service:
            services.append(stack.enter_context(running_service(*words, **debug)))
            return services[-1]

        binds = ("--producer-bind=tcp://127.0.0.1:*", "--consumer-bind=tcp://127.0.0.1:*")
        started = start("broker", _OPS, *binds, f"--keys={keys.path}").event("broker listening")
        peers = f"--broker-key={keys.broker_file}"
        start("collect", _OPS, f"--broker={started['consumers']}", peers,
              f"--key={keys.secret_file('collector')}")  # fmt: skip
        start("stream", "csv", str(bundled_sample()), "--rows=1000", _OPS, peers,
              f"--broker={started['producers']}", f"--key={keys.secret_file('streamer')}",
        )  # fmt: skip
        api = start("api", "--address=127.0.0.1:0", _OPS, "--tokens=on").event("gateway listens")

        def samples() -> int:
            row = conn.execute("SELECT count(*) FROM sample").fetchone()
            return row[0] if row else 0

        eventually(lambda: samples() >= 1000, "rows are stored", 60)
        for header in (f"Bearer {token}", f"Bearer {wrong}", wrong, f"Basic {wrong}"):
            for path in ("/api/v1/gpus", "/api/v1/gpus?by=x", "/nothing", "/readyz"):
                headers = {"Authorization": header}
                told.append(httpx.get(api["url"] + path, headers=headers, trust_env=False).text)
        ops = [f"http://{api['ops']}", f"http://{started['ops']}"]
        for url_of in (f"{ops[0]}/metrics", f"{ops[1]}/metrics", f"{ops[1]}/status.json"):
            told.append(httpx.get(url_of, trust_env=False).text)
        # Postgres goes away: what is said of that names the database, not the password.
        conn.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        told.append(_titles())
        assert "telemq_cli" in told[-1]
        for service in services:
            service.process.terminate()
            service.process.wait(30)
            told.append(service.output())
    for secret in secrets:
        for text in told:
            assert secret not in text, text[max(0, text.index(secret) - 300) :][:600]


@pytest.mark.parametrize(
    "dsn",
    [
        f"postgresql://u:{_CANARY}@[bad/db",
        f"postgresql://u:{_CANARY}%zz@127.0.0.1/db",
        f"postgresql://u:{_CANARY}@127.0.0.1:bad/db",
        f"host=127.0.0.1 port=1 password='{_CANARY}",
        f"host=127.0.0.1 port=1 pasword={_CANARY}",
        f"host=127.0.0.1 port=1 password={_CANARY} connect_timeout=1",
    ],
    ids=["host", "percent", "port", "quote", "slip", "nobody there"],
)
@pytest.mark.parametrize("words", [("verify",), ("tokens", "list")], ids=lambda words: words[0])
def test_fault_36_a_slip_in_the_dsn_does_not_show_its_password(
    dsn: str, words: tuple[str, ...]
) -> None:
    """Libpq repeats what it cannot read, such as a password with a bare % in a URL."""
    got = telemq(*words, "--log-level=debug", TELEMQ_DSN=dsn)
    assert got.returncode in {1, 2}
    assert "telemq: " in got.stderr
    assert _CANARY not in got.stdout + got.stderr


def test_fault_36_help_and_settings_show_no_secret() -> None:
    """`--help` in an environment that has them."""
    env = {"TELEMQ_DSN": f"password={_CANARY}", "TELEMQ_BROKER_HTTP_TOKEN": _CANARY}
    for words in (("api", "--help"), ("broker", "--help"), ("settings",), ("tokens", "new", "-h")):
        got = telemq(*words, **env)
        assert _CANARY not in got.stdout + got.stderr
