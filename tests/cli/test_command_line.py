"""The command line as a person meets it: help, refusals, exit codes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from typer.testing import CliRunner

from telemq import __version__
from telemq.setting import SettingInfo, rows
from telemq.settings import CollectorSettings, table
from telemq.store.migrate import migrations
from telemq_cli.flags import environment
from telemq_cli.main import app
from tests.support.postgres import Databases

_WIDE = {"COLUMNS": "400", "TERM": "dumb", "NO_COLOR": "1"}
#: Which command shows the rows of which component.
_COMMANDS = {
    "broker": ["broker"],
    "streamer": ["stream", "csv"],
    "collector": ["collect"],
    "api": ["api"],
    "maintain": ["maintain"],
    "up": ["up"],
    "top": ["top"],
    "gpus": ["gpus"],
    "query": ["query"],
    "migrate": ["migrate"],
    "keys": ["keys", "kubernetes"],
    "": ["collect"],
}


def _telemq(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "telemq_cli", *words],
        env={**os.environ, **_WIDE, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(sys.platform != "linux" or os.cpu_count() == 1, reason="nothing to see there")
def test_numpy_starts_no_threads() -> None:
    """A GPU's host has a hundred cores: a thread for each would spin whenever a command starts."""
    code = "import telemq_cli.main, numpy, os; print(len(os.listdir('/proc/self/task')))"
    env = {name: text for name, text in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    words = [sys.executable, "-P", "-c", code]
    shown = subprocess.run(words, env=env, capture_output=True, text=True, check=True)
    assert "1" == shown.stdout.strip()


def test_help_names_every_command() -> None:
    """Somebody types `telemq`, and nothing else."""
    shown = _telemq("--help")
    assert 0 == shown.returncode
    for name in (
        *("up", "broker", "stream", "collect", "api", "maintain"),
        *("verify", "migrate", "openapi", "settings", "sample", "dead", "top", "gpus", "query"),
    ):
        assert f" {name} " in shown.stdout


def test_help_imports_no_service() -> None:
    """Help is typed often and must come at once: imports are what takes time."""
    code = (
        "import sys; sys.argv[1:] = ['--help']\n"
        "from telemq_cli.main import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "slow = {'psycopg', 'zmq', 'litestar', 'uvicorn', 'numpy', 'structlog', 'msgspec'}\n"
        "print(sorted(slow & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == shown.stdout.splitlines()[-1]


def test_version_is_the_package_s() -> None:
    """A bug report needs it."""
    assert f"telemq {__version__}\n" == _telemq("--version").stdout


@pytest.mark.parametrize("info", table(), ids=lambda info: info.variable)
def test_every_setting_has_its_flag_and_variable_in_help(info: SettingInfo) -> None:
    """Somebody looks for what can be set."""
    shown = _help(tuple(_COMMANDS[info.component]))
    if not info.component:  # shared by several, and no command has all of them
        shown += _help(("maintain",))
    assert info.flag in shown
    assert f"[env var: {info.variable}]" in shown
    assert info.help in shown


_shown: dict[tuple[str, ...], str] = {}


def _help(command: tuple[str, ...]) -> str:
    if command not in _shown:
        result = CliRunner().invoke(app, [*command, "--help"], env=_WIDE, terminal_width=400)
        _shown[command] = " ".join(result.output.split())
    return _shown[command]


def test_secret_in_the_environment_is_not_in_help() -> None:
    """Help is pasted into an issue."""
    shown = _telemq("collect", "--help", TELEMQ_DSN="postgresql://u:hunter2@db/t")
    assert 0 == shown.returncode
    assert "hunter2" not in shown.stdout + shown.stderr


@pytest.mark.parametrize(
    ("words", "variables", "told"),
    [
        (["broker", "--lease-s", "0"], {}, "--lease-s: 0.0 is not accepted; it must be 0.1 to"),
        (["broker"], {"TELEMQ_BROKER_LEASE_S": "0"}, "--lease-s: 0.0 is not accepted"),
        (["up", "--for", "soon"], {}, "--for: 'soon' is not accepted"),
        (["broker", "--log-level", "loud"], {}, "--log-level: 'loud' is not accepted"),
        (["broker", "--ops-address", "0.0.0.0:9601"], {}, "--insecure"),
        (["up", "--csv", "/nonexistent.csv"], {}, "/nonexistent.csv"),
        (
            ["up", "--api-port=0", "--data-dir=/dev/null/x"],
            {"TELEMQ_DSN": "host=/nonexistent"},
            "--data-dir: '/dev/null/x'",
        ),
        (["sample", "/dev/null/x"], {}, "/dev/null/x"),
    ],
)
def test_what_is_not_usable_is_one_line_and_exit_2(
    words: list[str], variables: dict[str, str], told: str
) -> None:
    """A typing error must not end in a traceback."""
    got = _telemq(*words, **variables)
    assert told in got.stderr
    assert got.stderr.startswith("telemq: ")
    assert 1 == got.stderr.count("\n")
    assert 2 == got.returncode


def test_traceback_is_shown_at_level_debug_only() -> None:
    """A developer looks for where an error comes from."""
    assert "Traceback" in _telemq("up", "--csv", "/nonexistent", "--log-level=debug").stderr


def test_database_that_is_not_there_is_exit_1_and_no_traceback() -> None:
    """Postgres is down when somebody migrates by hand; the password is not shown."""
    got = _telemq("migrate", TELEMQ_DSN="postgresql://u:hunter2@127.0.0.1:1/t")
    assert got.stderr.startswith("telemq: ")
    assert "refused" in got.stderr
    assert "Traceback" not in got.stderr
    assert "hunter2" not in got.stderr + got.stdout
    assert 1 == got.returncode


def test_variables_make_the_same_settings_again() -> None:
    """`telemq collect --workers 4` hands its settings to its workers."""
    settings = CollectorSettings(
        dsn="host=/x", insecure=True, credit_records=7, drain_s=0.25, broker="tcp://b:1"
    )
    variables = environment(settings)
    assert {info.variable for info in rows(CollectorSettings)} == set(variables)
    code = (
        "from telemq_cli import flags\n"
        "from telemq.settings import CollectorSettings\n"
        "import typer\n"
        "app = typer.Typer()\n"
        "@flags.command(app, 'x', CollectorSettings)\n"
        "def x(settings: CollectorSettings) -> int:\n"
        "    print(settings, settings.dsn)\n"
        "    return 0\n"
        "app()\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"{settings} {settings.dsn}\n" == shown


def _ledger(connection: psycopg.Connection, *first_rows: int) -> None:
    connection.execute("INSERT INTO stream_progress VALUES ('s', 'source', 30)")
    for first_row in first_rows:
        connection.execute("INSERT INTO ledger VALUES ('s', %s, 10, 0, 10)", (first_row,))
        connection.execute(
            "INSERT INTO dead_letter (stream_id, first_row, row_count, reason, payload)"
            " VALUES ('s', %s, 10, 'bad', '')",
            (first_row,),
        )


def test_verify_says_complete(dsn: str, conn: psycopg.Connection) -> None:
    """All rows of a stream are accounted for."""
    _ledger(conn, 0, 10, 20)
    got = _telemq("verify", TELEMQ_DSN=dsn)
    assert (
        "complete: 0 samples stored in 1 streams, 0 rows in flight" == (got.stdout.splitlines()[-1])
    )
    assert 0 == got.returncode


def test_verify_names_the_missing_rows(dsn: str, conn: psycopg.Connection) -> None:
    """Somebody has deleted from the ledger."""
    _ledger(conn, 0, 20)
    got = _telemq("verify", TELEMQ_DSN=dsn)
    assert "s: rows 10 to 19 are in no batch, neither stored nor leased" in got.stdout.splitlines()
    assert 1 == got.returncode


def test_verify_as_json(dsn: str, conn: psycopg.Connection) -> None:
    """A script asks every hour."""
    _ledger(conn, 0, 20)
    got = _telemq("verify", "--json", TELEMQ_DSN=dsn)
    report = json.loads(got.stdout)
    assert report["complete"] is False
    assert 10 == report["streams"][0]["damages"][0]["first_row"]
    assert 1 == got.returncode


def test_verify_cannot_tell_without_tables(postgres: Databases) -> None:
    """The DSN leads to somebody else's database."""
    with postgres.fresh(migrated=False) as dsn:
        got = _telemq("verify", TELEMQ_DSN=dsn)
    assert got.stderr.startswith("telemq: ")
    assert 2 == got.returncode


def test_verify_does_not_make_a_database(tmp_path: Path) -> None:
    """--data-dir has a typing error."""
    got = _telemq("verify", "--data-dir", str(tmp_path / "data"))
    assert "there is no database in" in got.stderr
    assert 2 == got.returncode
    assert not (tmp_path / "data").exists()


def test_migrate_tells_what_it_did(postgres: Databases) -> None:
    """An administrator migrates before an upgrade, and again to be sure."""
    with postgres.fresh(migrated=False) as dsn:
        applied = "".join(f"applied {migration.name}\n" for migration in migrations())
        assert applied == _telemq("migrate", TELEMQ_DSN=dsn).stdout
        assert "nothing to do\n" == _telemq("migrate", TELEMQ_DSN=dsn).stdout


def test_openapi_is_the_document_of_the_gateway() -> None:
    """`telemq openapi > openapi.json` for a client generator."""
    document = json.loads(_telemq("openapi").stdout)
    assert "/api/v1/gpus" in document["paths"]


def test_sample_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    """The sample of the repository is made again."""
    texts = []
    for name in ("a.csv", "b.csv"):
        path = tmp_path / name
        got = _telemq("sample", str(path), "--hosts=1", "--gpus-per-host=2", "--minutes=1")
        assert 0 == got.returncode
        texts.append(path.read_bytes())
    assert texts[0] == texts[1]
    assert texts[0].count(b"\n") > 10


def test_settings_lists_every_variable() -> None:
    """Somebody writes a unit file."""
    shown = _telemq("settings").stdout
    assert [] == [info.variable for info in table() if info.variable not in shown]


def test_keys_are_made_allowed_listed_and_revoked_without_being_shown(tmp_path: Path) -> None:
    """An operator sets up a broker and a node; terminals are recorded."""
    here, peers = f"--dir={tmp_path / 'broker'}", f"--dir={tmp_path / 'peers'}"
    said = ""
    for words in (
        ("init", here),
        ("new", "node-7", "--role=producer", peers),
        ("allow", str(tmp_path / "peers" / "node-7.key"), here),
    ):
        done = _telemq("keys", *words)
        assert 0 == done.returncode, done.stderr
        said += done.stdout + done.stderr
    listed = _telemq("keys", "list", "--json", here)
    allowed = {"allowed": [{"name": "node-7", "role": "producer"}], "unusable": []}
    assert allowed == json.loads(listed.stdout)
    assert "producer  node-7" in _telemq("keys", "list", here).stdout
    assert 0 == _telemq("keys", "revoke", "node-7", here).returncode
    again = _telemq("keys", "revoke", "node-7", here)
    assert (2, "") == (again.returncode, again.stdout)
    assert "one that is allowed: nobody" in again.stderr
    for secret in tmp_path.rglob("*.key_secret"):
        for key in re.findall(r'key = "(.{40})"', secret.read_text()):
            assert key not in said + listed.stdout
