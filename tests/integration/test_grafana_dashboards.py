"""The dashboards of deploy/grafana: what Grafana's schema says of them, and every query run."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest
import yaml
from psycopg.conninfo import make_conninfo

from deploy.grafana.generate.__main__ import files
from deploy.grafana.generate.boards import BOARDS
from deploy.grafana.generate.panel import Board, Choice, Panel
from telemq.store.leases import open_stream, reserve
from telemq.store.writer import Writer
from tests.support.batches import stored_batch
from tests.support.fleets import store_fleet
from tests.support.grafana import as_grafana_reads, expand, lost
from tests.support.maintaining import pass_over
from tests.support.postgres import Databases

FOLDER = Path(__file__).parents[2] / "deploy/grafana"
PASSWORD = "read me"
QUERY = {"refId", "datasource", "format", "rawQuery", "editorMode", "rawSql"}
Conn = psycopg.Connection[Any]
EVERY = [(board, panel) for board in BOARDS for row in board.panels.values() for panel in row]
OF_SAMPLES = [(board, panel) for board, panel in EVERY if "samples_between" in panel.sql]
CHOICES = [choice for board in BOARDS for choice in board.choices]


def name_of(value: Board | Panel) -> str:
    """As a test's name."""
    return value.title


class Store(NamedTuple):
    """A database with data, as the role that Grafana has; and what is chosen on its dashboards."""

    conn: Conn
    until: datetime
    chosen: dict[str, list[str]]


@pytest.fixture(scope="module")
def store(postgres: Databases) -> Iterator[Store]:
    """Two hosts of four GPUs over two hours, one of them compacted; a stream, and dead letters."""
    with postgres.fresh() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        until = datetime.now(UTC).replace(microsecond=0)
        store_fleet(conn, minutes=120, interval_s=60, end=until)
        open_stream(conn, "s", "source")
        reserve(conn, "s", "a", batch_records=10, batches=5, rows_max=0, lease_s=60)
        Writer(conn).store([stored_batch(0), stored_batch(10, bad=(4,))])
        conn.execute("UPDATE series SET pod = 'it''s' WHERE id = (SELECT min(id) FROM series)")
        conn.execute("ANALYZE")
        recipe = (FOLDER / "reader.sql").read_text().replace(":'password'", f"'{PASSWORD}'")
        conn.execute(recipe.encode())
        role = make_conninfo(dsn, user="telemq_grafana", password=PASSWORD)
        try:
            with psycopg.connect(role, autocommit=True) as reader:
                uuid = reader.execute("SELECT min(uuid) FROM gpu WHERE hostname = 'hopper-001'")
                row = uuid.fetchone()
                chosen = {
                    "host": ["hopper-001", "hopper-002", "it's none"],
                    "namespace": ["research", "serving", "vision"],
                    "gpu": [row[0] if row else ""],
                }
                # Grafana's window ends at a whole second, and now.
                yield Store(reader, datetime.now(UTC) + timedelta(seconds=1), chosen)
        finally:
            conn.execute("DROP OWNED BY telemq_grafana")
            conn.execute("DROP ROLE telemq_grafana")


def ask(store: Store, sql: str, hours: float = 3) -> tuple[list[str], list[tuple[Any, ...]]]:
    """The columns and rows that Grafana gets."""
    text = expand(sql, store.until - timedelta(hours=hours), store.until, chosen=store.chosen)
    found = store.conn.execute(text.encode())
    return [column.name for column in found.description or ()], found.fetchall()


@pytest.mark.parametrize(("board", "panel"), EVERY, ids=name_of)
def test_every_panel_gets_rows_with_what_it_shows(store: Store, board: Board, panel: Panel) -> None:
    """Somebody opens the dashboard: as Grafana's role, in the window that it opens with."""
    columns, rows = ask(store, panel.sql, board.hours)
    assert set(panel.columns) <= set(columns)
    assert {*panel.units, *panel.links, *panel.column_limits} <= set(columns)
    assert rows
    if panel.kind != "timeseries":
        return
    assert ["time", "metric", "value"] == columns
    times = [float(time) for time, _, _ in rows]
    assert sorted(times) == times
    assert store.until.timestamp() - board.hours * 3600 - 60 <= times[0]
    assert all(isinstance(metric, str) and metric for _, metric, _ in rows)
    assert all(value is None or float(value) >= 0 for _, _, value in rows)
    assert len(rows) == len({(time, metric) for time, metric, _ in rows})


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: choice.name)
def test_every_choice_has_something_to_choose(store: Store, choice: Choice) -> None:
    """The boxes at the head of a dashboard."""
    columns, rows = ask(store, choice.sql)
    assert columns in (["__text", "__value"], [columns[0]])
    assert rows
    assert all(isinstance(text, str) and text for row in rows for text in row)


@pytest.mark.parametrize(("board", "panel"), EVERY, ids=name_of)
def test_nothing_there_is_no_error(postgres: Databases, board: Board, panel: Panel) -> None:
    """The first look, before the first record."""
    chosen = {"host": ["x"], "namespace": ["x"], "gpu": ["x"]}
    until = datetime.now(UTC)
    with postgres.fresh() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        sql = expand(panel.sql, until - timedelta(hours=3), until, chosen=chosen)
        conn.execute(sql.encode())


def test_numbers_are_those_of_the_store(store: Store) -> None:
    """What a query says is worth what it is checked against."""
    panels = {panel.title: panel for _, panel in EVERY}
    assert [7, 0] == list(ask(store, panels["Now"].sql)[1][0][:2])
    ((columns, rows),) = [ask(store, panels["By namespace"].sql)]
    usage = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    # Four GPUs of hopper-001 train for 120 scrapes a minute apart: 119 minutes.
    research = usage["research"]
    assert 4 == research["gpus"]
    assert abs(float(research["GPU-hours"]) - 4 * 119 / 60) < 0.01
    assert 90 < float(research["utilization"]) <= 100
    assert abs(float(research["energy"]) - 4 * 119 / 60 * 0.68) < 0.3
    now = ask(store, panels["GPUs now"].sql)
    rows_now = [dict(zip(now[0], row, strict=True)) for row in now[1]]
    assert [("hopper-001", str(n)) for n in range(4)] == [
        (row["host"], row["gpu"]) for row in rows_now[:4]
    ]
    assert all(row["seen"] and row["utilization"] is not None for row in rows_now)


@pytest.mark.parametrize(("board", "panel"), OF_SAMPLES, ids=name_of)
def test_only_the_window_s_partitions_are_read_and_by_index(
    store: Store, board: Board, panel: Panel
) -> None:
    """A year is stored, and a dashboard of three hours must not read it."""
    sql = expand(panel.sql, store.until - timedelta(hours=1), store.until, chosen=store.chosen)
    plan = "\n".join(row[0] for row in store.conn.execute(b"EXPLAIN " + sql.encode()))
    assert f"sample_{store.until + timedelta(days=2):%Y%m%d}" not in plan
    assert "Seq Scan on sample_" not in plan


def test_same_numbers_from_chunks(postgres: Databases) -> None:
    """Yesterday was compacted last night."""
    day = datetime(2026, 3, 1, 12, tzinfo=UTC)
    chosen = {"namespace": ["research"], "host": ["hopper-001"]}
    with postgres.fresh() as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        store_fleet(conn, minutes=30, interval_s=60, end=day)
        asked = [
            expand(panel.sql, day - timedelta(hours=1), day, chosen={**chosen, "gpu": ["x"]})
            for _, panel in OF_SAMPLES
        ]
        before = [conn.execute(sql.encode()).fetchall() for sql in asked]
        assert pass_over(dsn).chunks
        assert before == [conn.execute(sql.encode()).fetchall() for sql in asked]
        assert any(before)


def test_role_reads_telemetry_and_nothing_else(store: Store) -> None:
    """Whoever has Grafana's password cannot change a record, nor read what somebody has sent."""
    store.conn.execute("SET default_transaction_read_only = off")
    for refused in (
        "SELECT payload FROM dead_letter",
        "DELETE FROM sample",
        "INSERT INTO gpu (uuid) VALUES ('x')",
        "CREATE TABLE x ()",
        "SELECT * FROM schema_migration",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            store.conn.execute(refused.encode())


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_file_is_current_and_grafana_s_schema_knows_all_of_it(path: Path) -> None:
    """Panels, variables, links and options, by the types that Grafana generates from its schema."""
    assert files()[path] == path.read_text(), "run python -m deploy.grafana.generate"
    dashboard = json.loads(path.read_text())
    assert [] == list(lost(dashboard, as_grafana_reads(dashboard)))
    panels = dashboard["panels"]
    assert len(panels) == len({panel["id"] for panel in panels})
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for target in panel.get("targets", []):
            # The types know no PostgreSQL query, so what its editor writes is checked here.
            assert QUERY == set(target)
            assert target["format"] in {"time_series", "table"}
            assert "grafana-postgresql-datasource" == target["datasource"]["type"]
    for one, other in combinations(panels, 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


def test_schema_check_finds_what_grafana_does_not_know() -> None:
    """The check must be able to fail."""
    dashboard = json.loads(next(iter(files().values())))
    dashboard["panels"][0]["gridPos"]["depth"] = 1
    dashboard["templating"]["list"][0]["labell"] = "x"
    dashboard["panels"][0]["options"]["colourMode"] = "x"
    assert {
        "/panels/0/gridPos/depth",
        "/panels/0/options/colourMode",
        "/templating/list/0/labell",
    } == set(lost(dashboard, as_grafana_reads(dashboard)))


def test_provisioning_names_what_is_there() -> None:
    """The dashboards' data source, their folder, and the role of the recipe."""
    (source,) = yaml.safe_load((FOLDER / "provisioning/datasources/telemq.yaml").read_text())[
        "datasources"
    ]
    assert "grafana-postgresql-datasource" == source["type"]
    assert f"CREATE ROLE {source['user']} " in (FOLDER / "reader.sql").read_text()
    (provider,) = yaml.safe_load((FOLDER / "provisioning/dashboards/telemq.yaml").read_text())[
        "providers"
    ]
    assert "/etc/telemq/dashboards" == provider["options"]["path"]
    on_disk = {path.name for path in (FOLDER / "dashboards").iterdir()}
    assert {path.name for path in files()} == on_disk
    linked = {uid for text in files().values() for uid in re.findall(r"/d/([\w-]+)", text)}
    assert {"telemq-gpu"} == linked & {board.uid for board in BOARDS}
    assert linked <= {board.uid for board in BOARDS}


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
