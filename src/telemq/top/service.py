"""`telemq top`: reads, compares, draws, and again until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.live import Live

from telemq import upfile
from telemq.settings import TopSettings
from telemq.top.screen import render
from telemq.watch.numbers import BrokerView, Watched
from telemq.watch.read import parse_urls, read_all

__all__ = ["brokers", "once", "watch"]

_DEFAULT = "http://127.0.0.1:9601"


def brokers(settings: TopSettings, data_dir: Path) -> list[str]:
    """Give the ops addresses to read: those given, or that of this machine's broker.

    Raises:
        SettingError: what was given are no such addresses.
    """
    return parse_urls(settings.broker or upfile.find(data_dir) or _DEFAULT)


def once(settings: TopSettings, urls: Sequence[str], stop: threading.Event) -> list[BrokerView]:
    """Read twice, an interval apart, and give the second reading with its rates.

    Without an answer to the first reading, a broker is not waited for.
    """
    readings = _readings(settings, urls)
    first = next(readings)
    if all(view.fault for view in first) or stop.wait(settings.interval_s):
        return first
    return next(readings)


def watch(
    settings: TopSettings, urls: Sequence[str], stop: threading.Event, console: Console
) -> None:
    """Draw over and over until `stop`; a broker that cannot be read is shown as such."""
    with Live(console=console, auto_refresh=False, screen=True, vertical_overflow="crop") as live:
        for views in _readings(settings, urls):
            live.update(
                render(
                    views,
                    title=f"telemq top  {datetime.now(UTC):%H:%M:%S} UTC, "
                    f"every {settings.interval_s:g} s; Ctrl-C ends",
                    sort=settings.sort,
                    width=console.width,
                    height=console.height,
                ),
                refresh=True,
            )
            if stop.wait(settings.interval_s):
                return


def _readings(settings: TopSettings, urls: Sequence[str]) -> Iterator[list[BrokerView]]:
    watched = [Watched(url) for url in urls]
    while True:
        readings = read_all(urls, settings.wait_s)
        yield [w.take(r.status, r.fault) for w, r in zip(watched, readings, strict=True)]
