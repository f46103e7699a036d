"""What Grafana does to a dashboard before Postgres sees its SQL, and what its schema knows.

Macros and variables as Grafana documents them: "PostgreSQL data source", "Macros", and "Variable
syntax", "Advanced variable format options", ``sqlstring``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

__all__ = ["as_grafana_reads", "expand", "lost"]

register_default_plugins()


def as_grafana_reads(dashboard: Mapping[str, Any]) -> Any:
    """Read a dashboard with the types generated from Grafana's schema, and write it again.

    What the schema does not know is lost; what has a default is there.
    """
    return json.loads(JSONEncoder().encode(Dashboard.from_json(dict(dashboard))))


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Tell what is in `before` and not the same in `after`; additions do not count."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            if key not in after:
                yield f"{path}/{key}"
            else:
                yield from lost(value, after[key], f"{path}/{key}")
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}/{number}")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"


def expand(
    sql: str,
    since: datetime,
    until: datetime,
    *,
    interval_s: int = 60,
    chosen: Mapping[str, Sequence[str]],
) -> str:
    """Give the SQL that reaches Postgres.

    Raises:
        AssertionError: something is left that Grafana would not replace.
    """
    start, end = (f"{at:%Y-%m-%dT%H:%M:%SZ}" for at in (since, until))
    for name, values in chosen.items():
        quoted = ",".join("'" + value.replace("'", "''") + "'" for value in values)
        sql = sql.replace("${" + name + ":sqlstring}", quoted)
    sql = sql.replace("$__interval_ms", str(interval_s * 1000))
    sql = sql.replace("$__interval", f"{interval_s}s")
    sql = re.sub(
        r"\$__timeGroup\((\w+),\s*(\d+)s\)",
        r"floor(extract(epoch from \1)/\2)*\2",
        sql,
    )
    sql = re.sub(r"\$__timeFilter\((\w+)\)", rf"\1 BETWEEN '{start}' AND '{end}'", sql)
    sql = sql.replace("$__timeFrom()", f"'{start}'").replace("$__timeTo()", f"'{end}'")
    assert "$" not in sql, sql
    return sql
