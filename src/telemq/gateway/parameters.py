"""What several questions have in common in the OpenAPI document: parameters and errors."""

from __future__ import annotations

from typing import Annotated

from litestar.openapi.spec import Example, OpenAPIType
from litestar.params import QueryParameter

__all__ = ["FAULT", "UNAVAILABLE", "EndTime", "StartTime", "enumerated", "examples", "numeric"]

UNAVAILABLE = "The database cannot be used now; `Retry-After` says when to ask again."
FAULT = "The gateway failed; its log says why."


def examples(**values: str) -> list[Example]:
    """Give examples by summary; underscores are spaces."""
    return [Example(summary=name.replace("_", " "), value=of) for name, of in values.items()]


def enumerated(description: str, *words: str, absent: str = "") -> QueryParameter:
    """Describe a parameter that is one of some words.

    Args:
        description: what it says.
        words: accepted.
        absent: what it means to give none, where that is to be the first example: Swagger UI fills
            its form with the first.
    """
    first = [Example(summary=absent, value="")] if absent else []
    return QueryParameter(
        description=description,
        schema_extra={"enum": list(words)},
        examples=first + [Example(summary=word, value=word) for word in words],
    )


def numeric(
    description: str, low: float, high: float, example: float, *, whole: bool = False
) -> QueryParameter:
    """Describe a number; its handler takes text, because an empty one is absent."""
    kind = OpenAPIType.INTEGER if whole else OpenAPIType.NUMBER
    return QueryParameter(
        description=description,
        schema_extra={"type": kind, "minimum": low, "maximum": high},
        examples=[Example(summary=str(example), value=example)],
    )


_MOMENT = {"format": "date-time"}
StartTime = Annotated[
    str,
    QueryParameter(
        description="Earliest time, inclusive: RFC 3339 with an offset; empty is no bound.",
        schema_extra=_MOMENT,
        # First, because Swagger UI fills its form with the first.
        examples=examples(no_bound="", in_UTC="2025-07-18T20:42:34Z"),
    ),
]
EndTime = Annotated[
    str,
    QueryParameter(
        description="Latest time, inclusive: RFC 3339 with an offset; empty is no bound.",
        schema_extra=_MOMENT,
        examples=examples(no_bound="", with_an_offset="2025-07-18T22:42:34.5+02:00"),
    ),
]
