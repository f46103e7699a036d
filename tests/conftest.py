"""What every test gets: a clean environment, and databases of a real Postgres when it asks."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec

import psycopg
import pytest
import structlog
import zmq
from hypothesis import settings

from telemq import log
from telemq.errors import EmbeddedError
from telemq.store.binaries import find_binaries
from tests.support.postgres import Databases, serve

#: Pages are drawn where there is something to draw them: see the session "browser".
collect_ignore = [] if find_spec("playwright") else ["browser"]


def pytest_configure() -> None:
    """Clear our own variables: a developer's must not change what the tests see.

    And let Hypothesis take its time: a busy machine is no fault. And let Ctrl-C work in what tests
    start: a shell that runs us in the background has it ignored, which processes inherit.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    settings.register_profile("telemq", deadline=None)
    settings.load_profile("telemq")
    for name in [name for name in os.environ if name.startswith("TELEMQ_")]:
        del os.environ[name]


def pytest_report_header() -> str:
    """Name the versions that a failure may depend on."""
    try:
        server = str(find_binaries())
    except EmbeddedError:
        server = "no Postgres"
    return (
        f"{server}, psycopg {psycopg.__version__} (libpq {psycopg.pq.version()}), "
        f"libzmq {zmq.zmq_version()}, pyzmq {zmq.__version__}"
    )


@pytest.fixture(autouse=True)
def own_log() -> Iterator[None]:
    """Let no test leave its log's level and format to the next: commands that run here set them."""
    yield
    structlog.reset_defaults()
    log._fixed.clear()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    """A server for the whole session, started when the first test asks for it."""
    with serve(tmp_path_factory.mktemp("postgres")) as databases:
        yield databases


@pytest.fixture
def dsn(postgres: Databases) -> Iterator[str]:
    """The DSN of a fresh database with the newest schema."""
    with postgres.fresh() as dsn:
        yield dsn


@pytest.fixture
def conn(dsn: str) -> Iterator[psycopg.Connection]:
    """An autocommit connection to the database of `dsn`."""
    with psycopg.connect(dsn, autocommit=True) as conn:
        yield conn
