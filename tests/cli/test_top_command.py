"""`telemq top` against real brokers, and against what is none."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import ClassVar

import pytest

from telemq import upfile
from telemq.errors import SettingError
from telemq.settings import TopSettings
from telemq.top.service import brokers
from telemq.watch.read import BROKERS_MAX, parse_urls, read_all
from tests.support.brokers import DEADLINE_S, PlainPeer
from tests.support.commands import telemq
from tests.support.ops import BrokerProcess
from tests.support.ports import free_port


@contextmanager
def answering(*pieces: bytes, pause_s: float = 0) -> Iterator[str]:
    """Something that answers every request with these bytes, piece by piece; yields its URL."""

    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self.request.recv(65_536)
            try:
                for piece in pieces:
                    self.wfile.write(piece)
                    stop.wait(pause_s)
            except OSError:
                pass

    class Server(ThreadingTCPServer):
        # Its stub has these as variables of an instance.
        daemon_threads: ClassVar[bool] = True  # type: ignore[misc]
        block_on_close: ClassVar[bool] = False  # type: ignore[misc]

    stop = threading.Event()
    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            stop.set()
            server.shutdown()
            thread.join()


def test_once_as_json_has_queue_peers_and_rates() -> None:
    """A script looks every minute."""
    with BrokerProcess() as broker, PlainPeer(broker.producers, "producer") as producer:
        producer.hello()
        producer.say("WANT", 1, 1, 10, 100)
        producer.hear("GRANT")
        producer.say("PUBLISH", "a", 3, "", {}, payload=b"xyz")
        got = telemq("top", "--once", "--json", "--interval-s=1", f"--broker={broker.ops}")
    assert (0, "") == (got.returncode, got.stderr)
    shown = json.loads(got.stdout)
    assert (1, 3) == (shown["totals"]["brokers"], shown["totals"]["ready_records"])
    (one,) = shown["brokers"]
    assert 0.0 == one["rates"]["accepted"]
    assert ["plain"] == [peer["name"] for peer in one["peers"]]


def test_broker_that_is_down_is_told_and_the_other_shown() -> None:
    """One of two brokers is down."""
    down = f"http://127.0.0.1:{free_port()}"
    with BrokerProcess() as broker:
        got = telemq("top", "--once", "--interval-s=1", "--broker", f"{broker.ops},{down}")
    assert 1 == got.returncode
    assert f"telemq: {down}: connection refused\n" == got.stderr
    assert broker.ops.removeprefix("http://") in got.stdout
    assert "1 of 2 read" in got.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--json"], "--json: 'without --once'"),
        ([], "--once: 'not given'"),
        (["--once", "--broker=ftp://x:1"], "--broker: 'ftp://x:1'"),
        (["--once", "--interval-s=0"], "--interval-s: 0.0"),
        (["--once", "--sort=name"], "--sort: 'name'"),
    ],
)
def test_what_is_not_usable_is_one_line_and_exit_2(words: list[str], told: str) -> None:
    """A typing error, or output into a file."""
    got = telemq("top", *words)
    assert told in got.stderr
    assert 1 == got.stderr.count("\n")
    assert 2 == got.returncode


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("127.0.0.1:9601", ["http://127.0.0.1:9601"]),
        (" http://a:1/ ,http://a:1,b:2,", ["http://a:1", "http://b:2"]),
        ("http://[::1]:5", ["http://[::1]:5"]),
    ],
)
def test_addresses_are_taken_as_people_write_them(text: str, urls: list[str]) -> None:
    """Copied from a log line, a browser, a settings page."""
    assert urls == parse_urls(text)


@pytest.mark.parametrize(
    "text",
    ["", ",", "a", "a:b", "http://a", "https://a:1", "http://a:1/metrics", "http://u:p@a:1",
     "a:99999", ",".join(f"a:{n}" for n in range(1, BROKERS_MAX + 2))],
)  # fmt: skip
def test_other_addresses_are_refused(text: str) -> None:
    """Not an ops address of a broker."""
    with pytest.raises(SettingError, match="--broker"):
        parse_urls(text)


def test_answers_of_others_are_told_apart() -> None:
    """The port belongs to something else, or to a broker that is stuck."""
    head = b"HTTP/1.0 200 OK\r\n\r\n"
    with (
        answering(b"SSH-2.0-x\r\n") as ssh,
        answering(head + b'{"hello": 1}') as other,
        answering(b"HTTP/1.0 503 No\r\n\r\nthe loop did not come round\n") as stuck,
        answering(head, *[b" "] * 100, pause_s=0.05) as trickling,
        answering(b"", pause_s=5) as silent,
    ):
        begin = time.monotonic()
        faults = [r.fault for r in read_all([ssh, other, stuck, trickling, silent], wait_s=0.3)]
    assert "SSH-2.0-x" in faults[0]
    assert "not of a broker of this version" in faults[1]
    assert "it answered 503: the loop did not come round" == faults[2]
    assert ["no answer within 0.3 s"] * 2 == faults[3:]
    assert time.monotonic() - begin < 3


def test_broker_of_a_running_up_is_found_by_its_data_dir(tmp_path: Path) -> None:
    """`telemq top` beside `telemq up`, which has picked a port."""
    settings = TopSettings()
    assert ["http://127.0.0.1:9601"] == brokers(settings, tmp_path)
    with upfile.announced(tmp_path, "127.0.0.1:20001"):
        assert ["http://127.0.0.1:20001"] == brokers(settings, tmp_path)
        assert 0o600 == (tmp_path / upfile.NAME).stat().st_mode & 0o777
        assert ["http://b:1"] == brokers(TopSettings(broker="b:1"), tmp_path)
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    ['{"pid": 0, "broker": "http://x:1"}', '{"pid": -1, "broker": "x:1"}', "{", "\xff", "[]"],
)
def test_file_that_nobody_runs_any_more_is_ignored(tmp_path: Path, text: str) -> None:
    """`telemq up` was killed, or the file is not ours."""
    (tmp_path / upfile.NAME).write_text(text, encoding="latin-1")
    assert upfile.find(tmp_path) is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = json.dumps({"pid": ended.pid, "broker": "http://x:1"})
    (tmp_path / upfile.NAME).write_text(left)
    assert upfile.find(tmp_path) is None
    with upfile.announced(tmp_path, "127.0.0.1:1"):
        assert "http://127.0.0.1:1" == upfile.find(tmp_path)


def test_live_view_is_drawn_on_a_terminal_and_ends_with_ctrl_c() -> None:
    """An operator watches, and has seen enough."""
    with BrokerProcess() as broker, PlainPeer(broker.consumers, "consumer") as consumer:
        consumer.hello()
        ours, theirs = pty.openpty()
        command = [sys.executable, "-P", "-m", "telemq_cli", "top", "--broker", broker.ops]
        process = subprocess.Popen(
            command,
            stdin=theirs,
            stdout=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "30"},
        )
        os.close(theirs)
        text = b""
        until = time.monotonic() + DEADLINE_S
        while b"plain" not in text and time.monotonic() < until:
            text += os.read(ours, 65_536)
        process.send_signal(2)
        assert 0 == process.wait(DEADLINE_S)
        os.close(ours)
    assert b"Ctrl-C ends" in text
    assert b"takes nothing" in text
