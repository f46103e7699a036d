"""What hostile clients send to the gateway, made from its own document."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from telemq.gateway.app import openapi_json

__all__ = ["HOSTILE", "document", "hostile_requests"]

#: In place of any parameter: SQL, paths, scripts, numbers and times that there cannot be.
HOSTILE = (
    "'", "' OR 1=1 --", "'; DROP TABLE sample; --", "%' AND pg_sleep(9) --", "\\", "$1", "%s",
    "../../etc/passwd", "<script>alert(1)</script>", "=cmd()", "\x00", "\ud7ff", "x" * 5000,
    "-1", "0", "1e400", "NaN", "9" * 30, "1;2", "0x10", "٣", " ", "null", "[]", "{}",
    "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z", "2024-99-99T00:00:00Z", "infinity",
    "2024/01/01 00:00:00", "-infinity", "now", "eyJhIjogMX0=", "////", "*", "%",
)  # fmt: skip


def document() -> dict[str, Any]:
    """Give the OpenAPI document of the gateway."""
    found: dict[str, Any] = json.loads(openapi_json())
    return found


def hostile_requests() -> Iterator[tuple[str, str, dict[str, str]]]:
    """Yield template, path and query: each parameter of each operation with each hostile value."""
    for template, item in document()["paths"].items():
        parameters = item["get"].get("parameters", [])
        usual = {p["name"]: _usual(p) for p in parameters if p["in"] == "path"}
        for parameter in parameters:
            for value in HOSTILE:
                if parameter["in"] == "path":
                    if value.strip("/."):  # nothing of a path is left of the others
                        yield template, _fill(template, {**usual, parameter["name"]: value}), {}
                else:
                    yield template, _fill(template, usual), {parameter["name"]: value}


def _usual(parameter: dict[str, Any]) -> str:
    examples = parameter.get("examples") or {}
    values = [str(example["value"]) for example in examples.values()]
    return next((value for value in values if value.startswith("GPU-")), (values or ["0"])[0])


def _fill(template: str, values: dict[str, str]) -> str:
    for name, value in values.items():
        template = template.replace(f"{{{name}}}", quote(value, safe=""))
    return template
