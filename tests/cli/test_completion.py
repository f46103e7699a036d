"""Shell completion, in a real bash on a terminal, installed as people install it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from telemq.store.suggest import suggest
from tests.support.commands import telemq
from tests.support.fleets import store_fleet
from tests.support.ports import free_port
from tests.support.terminals import Terminal

BASH = shutil.which("bash")
PROMPT = b"ready> "
needs_bash = pytest.mark.skipif(BASH is None, reason="needs bash")


@contextmanager
def shell(home: Path, **env: str) -> Iterator[Terminal]:
    """A bash of somebody whose home directory that is, at its prompt."""
    settings = ("enable-bracketed-paste off", "page-completions off", "show-all-if-ambiguous on")
    (home / ".inputrc").write_text("".join(f"set {setting}\n" for setting in settings))
    variables = {
        "HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PS1": PROMPT.decode(),
        "BASH_SILENCE_DEPRECATION_WARNING": "1",
        **env,
    }
    with Terminal(command=("bash", "-i"), env=variables, columns=400) as terminal:
        terminal.until(PROMPT)
        yield terminal


@needs_bash
def test_bash_completes_after_install(tmp_path: Path, conn: psycopg.Connection, dsn: str) -> None:
    """Once `telemq --install-completion`, then TAB in every new shell: commands, flags, names."""
    store_fleet(conn)
    (tmp_path / ".bashrc").write_text(f"PS1='{PROMPT.decode()}'\n")
    with shell(tmp_path) as bash:
        bash.press("telemq --install-completion\n")
        assert b"completion installed" in bash.until(b"installed", PROMPT)
    with shell(tmp_path, TELEMQ_DSN=dsn) as bash:
        bash.press("telemq ver\t")
        bash.until(b"telemq verify ")
        bash.press("--js\t")
        bash.until(b"--json ")
        bash.press("\x15telemq gpus --sort i\t")  # Ctrl-U: away with the line
        bash.until(b"--sort idle ")
        bash.press("--host hopper-001\t")
        bash.until(b"--host hopper-001 ")
        bash.press("--model NVI\t")
        bash.until(rb"--model NVIDIA\ H100\ 80GB\ HBM3 ")
        bash.press("\x15telemq query hopper-002/1\t")
        bash.until(b"hopper-002/1 ")
        bash.press("-m DCGM_FI_DEV_GPU\t")
        bash.until(b"DCGM_FI_DEV_GPU_TEMP", b"DCGM_FI_DEV_GPU_UTIL")


@needs_bash
def test_database_that_does_not_answer_is_silent(tmp_path: Path) -> None:
    """It is down: TAB does nothing, and what was typed stays as it was."""
    (tmp_path / ".bashrc").write_text(f"PS1='{PROMPT.decode()}'\n")
    with shell(tmp_path, TELEMQ_DSN=f"host=127.0.0.1 port={free_port()}") as bash:
        bash.press('eval "$(_TELEMQ_COMPLETE=source_bash telemq)"\n')
        bash.until(PROMPT)
        bash.press("telemq query hop\tper\n")
        told = bash.until(b"cannot be used", PROMPT)
    assert b"telemq query hopper" in told.replace(b"\a", b"")  # the bell is all of it
    assert 1 == told.count(b"refused")  # what the command itself says


def test_without_a_database_nothing_is_started(tmp_path: Path) -> None:
    """Nobody has run telemq here yet."""
    got = telemq(
        _TELEMQ_COMPLETE="complete_bash",
        COMP_WORDS="telemq\nquery\nh",
        COMP_CWORD="2",
        XDG_DATA_HOME=str(tmp_path),
    )
    assert ("", "") == (got.stdout.strip(), got.stderr)
    assert [] == list(tmp_path.iterdir())


def test_name_that_a_shell_would_run_is_not_offered(dsn: str, conn: psycopg.Connection) -> None:
    """A namespace was named by somebody who waits for an operator's TAB."""
    store_fleet(conn)
    conn.execute("UPDATE series SET namespace = '$(touch x)' WHERE namespace = 'research'")
    got = telemq(
        _TELEMQ_COMPLETE="complete_bash",
        COMP_WORDS="telemq\ngpus\n--namespace\n",
        COMP_CWORD="3",
        TELEMQ_DSN=dsn,
    )
    offered = got.stdout.splitlines()
    assert "vision" in offered
    assert [] == [name for name in offered if "touch" in name]


def test_names_are_those_that_begin_with_what_was_typed(dsn: str, conn: psycopg.Connection) -> None:
    """Long lists are cut; a quote in what was typed is only a quote."""
    store_fleet(conn)
    assert [f"hopper-001/{n}" for n in range(4)] == suggest(dsn, "gpu", "hopper-001")
    assert 7 == len(suggest(dsn, "gpu", ""))
    assert 7 == len(suggest(dsn, "gpu", "GPU-"))
    assert ["hopper-001", "hopper-002"] == suggest(dsn, "host", "h")
    assert ["NVIDIA H100 80GB HBM3"] == suggest(dsn, "model", "")
    assert ["DCGM_FI_DEV_GPU_TEMP"] == suggest(dsn, "metric", "DCGM_FI_DEV_GPU_T")
    assert "research" in suggest(dsn, "namespace", "")
    assert "" not in suggest(dsn, "namespace", "")
    assert [] == suggest(dsn, "host", "'; DROP TABLE gpu --")
