"""What goes wrong, told to the client as a problem document (RFC 9457).

Every answer that is not a success is one, that of an unknown path too: its ``detail`` says what was
wrong and what is accepted. A fault of ours tells nothing of its inside; that is in the log.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Any

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ExceptionHandlersMap

from telemq import log
from telemq.errors import AggregateError, SlowQueryError, StoreError, TelemqError

__all__ = ["HANDLERS", "MEDIA_TYPE", "Problem", "ProblemError", "described"]

MEDIA_TYPE = "application/problem+json"
#: When to ask again while the database cannot be used: a restart of Postgres takes that long.
_RETRY_S = 5


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A problem document, RFC 9457."""

    type: Annotated[
        str,
        msgspec.Meta(
            description="A URI reference that names the kind of problem; `about:blank` where the "
            "status says it all.",
            examples=["about:blank"],
        ),
    ] = "about:blank"
    title: Annotated[
        str, msgspec.Meta(description="The status in words.", examples=["Bad Request"])
    ]
    status: Annotated[
        int, msgspec.Meta(description="The HTTP status.", ge=400, le=599, examples=[400])
    ]
    detail: Annotated[
        str,
        msgspec.Meta(
            description="What was wrong, and what is accepted.",
            examples=["end_time is before start_time"],
        ),
    ]


class ProblemError(TelemqError):
    """A request that cannot be answered as it was asked.

    Args:
        status: the HTTP status.
        detail: what was wrong and what is accepted.
        headers: of the answer, such as ``Retry-After``.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.detail = detail
        self.headers = headers
        super().__init__(detail)


def described(**errors: str) -> dict[int, ResponseSpec]:
    """Describe a route's errors for the OpenAPI document, by ``HTTPStatus`` name."""
    return {
        HTTPStatus[name].value: ResponseSpec(
            Problem, generate_examples=False, description=description, media_type=MEDIA_TYPE
        )
        for name, description in errors.items()
    }


def _answer(
    status: int, detail: str, headers: Mapping[str, str] | None = None
) -> Response[Problem]:
    return Response(
        Problem(title=HTTPStatus(status).phrase, status=status, detail=detail),
        status_code=status,
        media_type=MEDIA_TYPE,
        headers=headers or {},
    )


def _on_problem(_request: Request[Any, Any, Any], error: ProblemError) -> Response[Problem]:
    return _answer(error.status, error.detail, error.headers)


def _on_http(request: Request[Any, Any, Any], error: HTTPException) -> Response[Problem]:
    if error.status_code == HTTPStatus.NOT_FOUND:
        return _answer(404, "there is nothing at this path; /openapi.json lists what there is")
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        allow = ", ".join(sorted((error.headers or {}).get("allow", "").split(", ")))
        return _answer(
            405, f"{request.method} is not accepted here; accepted: {allow}", {"Allow": allow}
        )
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _on_fault(request, error)
    return _answer(error.status_code, error.detail or HTTPStatus(error.status_code).phrase)


def _on_other_query(_request: Request[Any, Any, Any], error: StoreError) -> Response[Problem]:
    """Tell a fault of the store that another question would not meet."""
    return _answer(400, str(error))


def _on_store(_request: Request[Any, Any, Any], error: StoreError) -> Response[Problem]:
    return _answer(503, str(error), {"Retry-After": str(_RETRY_S)})


def _on_fault(request: Request[Any, Any, Any], error: Exception) -> Response[Problem]:
    log.get().error("request failed", method=request.method, path=request.url.path, exc_info=error)
    return _answer(500, "it failed on this request; its log says why")


#: For Litestar; the most specific class wins.
HANDLERS: ExceptionHandlersMap = {
    ProblemError: _on_problem,
    HTTPException: _on_http,
    SlowQueryError: _on_other_query,
    AggregateError: _on_other_query,
    StoreError: _on_store,
    Exception: _on_fault,
}
