"""Telemetry as JSON, NDJSON, CSV and Arrow: which one, and the same records in each."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime
from typing import Any

import httpx
import psycopg
import pyarrow as pa
import pytest

from telemq.gateway import formats
from telemq.settings import ApiSettings
from telemq.web.problems import ProblemError
from tests.support.gateway import add_samples, add_series, at, serving

_GPU = "GPU-aaaa"
_PATH = f"/api/v1/gpus/{_GPU}/telemetry"
_BAD = '=cmd|"/c calc"!A1, \r\n"x"'
_NAMES = ("json", "ndjson", "csv", "arrow")


@pytest.fixture
def records(api: httpx.Client, conn: psycopg.Connection[Any]) -> list[dict[str, Any]]:
    """What the JSON array holds: labels and numbers of all kinds, in several chunks."""
    for place, pod in enumerate(["", _BAD, "-5", "ü\u2028", "@SUM(A1)"]):
        series = add_series(conn, _GPU, metric_name=f"M{place}", pod=pod)
        values = [-2.5, 0.0, 1e300, 1e-300, 97.0]
        add_samples(conn, series, [(at(n + place / 8), of) for n, of in enumerate(values)])
    told: list[dict[str, Any]] = api.get(_PATH).json()
    assert 25 == len(told)
    return told


def _read(response: httpx.Response) -> list[dict[str, Any]]:
    """Read an answer of any format as what the JSON array would hold."""
    assert 200 == response.status_code, response.text
    kind = response.headers["content-type"]
    if kind == "application/json":
        return list(response.json())
    if kind == "application/x-ndjson":
        assert not response.content or response.content.endswith(b"\n")
        return [json.loads(line) for line in response.content.split(b"\n")[:-1]]
    if kind == "text/csv; charset=utf-8":
        lines = csv.DictReader(io.StringIO(response.text, newline=""), strict=True)
        return [{**row, "value": float(row["value"])} for row in lines]
    assert "application/vnd.apache.arrow.stream" == kind
    with pa.ipc.open_stream(response.content) as stream:
        table = stream.read_all()
    table.validate(full=True)
    rows: list[dict[str, Any]] = table.to_pylist()
    for row in rows:
        row["timestamp"] = row["timestamp"].isoformat().replace("+00:00", "Z")
    return rows


@pytest.mark.parametrize("name", ["json", "ndjson", "arrow"])
def test_every_format_tells_the_same_records(
    api: httpx.Client, records: list[dict[str, Any]], name: str
) -> None:
    """Two rows a chunk, so that an answer is made of many."""
    assert records == _read(api.get(_PATH, params={"format": name}))
    assert records[:3] == _read(api.get(_PATH, params={"format": name, "limit": 3}))


def test_fault_34_no_cell_of_the_csv_is_a_formula(
    api: httpx.Client, records: list[dict[str, Any]]
) -> None:
    """Somebody who may run pods names one so that a spreadsheet would run it; numbers stay."""
    response = api.get(_PATH, params={"format": "csv"})
    assert 'attachment; filename="telemetry.csv"' == response.headers["content-disposition"]
    told = _read(response)
    for record in records:
        if record["pod"][:1] in tuple("=+-@"):
            record["pod"] = "'" + record["pod"]
    assert records == told
    assert [-2.5, 0.0, 1e300] == [row["value"] for row in told if row["metric_name"] == "M1"][:3]
    for row in csv.reader(io.StringIO(response.text, newline="")):
        for cell in row[:10] + row[11:]:
            assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@pytest.mark.parametrize("name", _NAMES)
def test_an_empty_answer_is_one_of_its_format(
    api: httpx.Client, records: list[dict[str, Any]], name: str
) -> None:
    """Nothing was measured then; a CSV still has its header, a stream its schema."""
    params = {"format": name, "end_time": "2001-01-01T00:00:00Z"}
    response = api.get(_PATH, params=params)
    assert [] == _read(response)
    if name == "csv":
        assert response.text.startswith("timestamp,metric_name,")
    nothing = {"format": name, "metric": "nobody"}
    assert [] == _read(api.get(_PATH, params=nothing))


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("application/*", "json"),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", "json"),
        ("application/json", "json"),
        ("application/x-ndjson", "ndjson"),
        ("application/ndjson, application/json;q=0.9", "ndjson"),
        ("text/csv", "csv"),
        ("TEXT/CSV; q=1.0", "csv"),
        ("text/*", "csv"),
        ("text/csv;q=0.5, */*;q=0.1", "csv"),
        ("application/json;q=0, */*", "ndjson"),
        ("application/json;q=0.2, text/csv;q=0.3", "csv"),
        ("application/vnd.apache.arrow.stream", "arrow"),
        ("nonsense", "json"),
        (";;;,,q=,/", None),
        ("text/csv;q=0", None),
        ("text/html", None),
        ("application/parquet", None),
        ("*/*;q=0", None),
    ],
)
def test_the_header_chooses_the_format(accept: str, expected: str | None) -> None:
    """Browsers, curl, data frames; quality by RFC 9110; what cannot be read is as if not there."""
    if expected is not None:
        assert expected == formats.chosen("", accept, formats.FORMATS).name
        return
    with pytest.raises(ProblemError, match="offered: application/json") as caught:
        formats.chosen("", accept, formats.FORMATS)
    assert 406 == caught.value.status


def test_the_parameter_wins_over_the_header(
    api: httpx.Client, records: list[dict[str, Any]]
) -> None:
    """A link in a browser, which asks for HTML."""
    response = api.get(_PATH, params={"format": "csv"}, headers={"accept": "text/html"})
    assert "text/csv; charset=utf-8" == response.headers["content-type"]
    assert "accept" == response.headers["vary"]
    response = api.get(_PATH, headers={"accept": "text/html"})
    assert 406 == response.status_code
    assert "application/problem+json" == response.headers["content-type"]
    assert "text/csv (format=csv)" in response.json()["detail"]


def test_without_pyarrow_arrow_is_not_offered_and_the_rest_is(
    dsn: str, conn: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody installed telemq without the extra."""
    add_samples(conn, add_series(conn, _GPU), [(at(0), 1)])
    monkeypatch.setattr(formats, "find_spec", lambda _: None)
    with serving(ApiSettings(dsn=dsn)) as api:
        accept = {"accept": "application/vnd.apache.arrow.stream"}
        for response in (
            api.get(_PATH, params={"format": "arrow"}),
            api.get(_PATH, headers=accept),
        ):
            assert 406 == response.status_code
            assert "pip install 'telemq[arrow]'" in response.json()["detail"]
        assert 1 == len(_read(api.get(_PATH, params={"format": "ndjson"})))


def test_arrow_has_times_and_dictionaries(api: httpx.Client, records: list[dict[str, Any]]) -> None:
    """What a data frame gets without parsing text."""
    with pa.ipc.open_stream(api.get(_PATH, params={"format": "arrow"}).content) as stream:
        table = stream.read_all()
    assert pa.timestamp("us", tz="UTC") == table.schema.field("timestamp").type
    assert pa.dictionary(pa.int32(), pa.string()) == table.schema.field("pod").type
    assert pa.float64() == table.schema.field("value").type
    assert list(records[0]) == table.schema.names
    first = datetime.fromisoformat(records[0]["timestamp"])
    assert first == table.column("timestamp")[0].as_py()
