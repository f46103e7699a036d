"""A gateway on a database of its own."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from telemq.settings import ApiSettings
from tests.support.gateway import serving


@pytest.fixture
def api(dsn: str) -> Iterator[httpx.Client]:
    """A client of a gateway that serves the database of `dsn`, two rows a chunk."""
    with serving(ApiSettings(dsn=dsn, chunk_rows=2)) as client:
        yield client
