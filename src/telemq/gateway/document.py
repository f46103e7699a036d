"""What the OpenAPI document says of tokens and rates, the same of every route that is guarded.

It is said whether or not this gateway needs tokens: clients are generated once, for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from litestar.routes import BaseRoute, HTTPRoute

from telemq.gateway.access import scope_of
from telemq.web.problems import MEDIA_TYPE

__all__ = ["guarded"]

_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "Made by `telemq tokens new`. A gateway on loopback needs none, unless told to.",
}
_TEXT, _SECONDS = {"type": "string"}, {"type": "integer", "minimum": 1}


def guarded(schema: dict[str, Any], routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Add to a document what the gate answers, at each route that it guards; gives the document."""
    schema.setdefault("components", {})["securitySchemes"] = {"token": _SCHEME}
    for route in routes:
        if not isinstance(route, HTTPRoute):
            continue
        for method, (handler, _) in route.route_handler_map.items():
            operation = schema["paths"].get(route.path_format, {}).get(method.lower())
            scope = scope_of(handler)
            if operation is None or scope is None:
                continue
            operation["security"] = [{}, {"token": []}]
            operation["responses"].update(_refusals(scope))
    return schema


def _refusals(scope: str) -> dict[str, Any]:
    challenge = {"WWW-Authenticate": {"description": "How to prove it.", "schema": _TEXT}}
    again = {"Retry-After": {"description": "Seconds until then.", "schema": _SECONDS}}
    return {
        "401": _answer("A token is needed, or the one given opens nothing.", challenge),
        "403": _answer(
            f"The token does not have the scope `{scope}`; or no token is needed, and `Host` is "
            "none of loopback's own names.",
            challenge,
        ),
        "429": _answer("Too many requests of this client.", again),
    }


def _answer(description: str, headers: dict[str, Any]) -> dict[str, Any]:
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {"description": description, "headers": headers, "content": content}
