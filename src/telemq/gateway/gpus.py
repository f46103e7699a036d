"""``/api/v1/gpus``: which GPUs there are, and what they measured."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import PathParameter, QueryParameter, SkipValidation
from litestar.types import ASGIApp

from telemq.gateway.answer import TelemetryAnswer
from telemq.gateway.metrics import GatewayMetrics
from telemq.gateway.query import only, window
from telemq.gateway.views import Record
from telemq.settings import ApiSettings
from telemq.store.reader import Reader
from telemq.web.problems import ProblemError, described

__all__ = ["ROUTES", "get_telemetry", "list_gpus"]

_BY = ("uuid", "gpu_id")
_UNAVAILABLE = "The database cannot be used now; `Retry-After` says when to ask again."
_FAULT = "The gateway failed; its log says why."
_MOMENT = {"format": "date-time"}
# First, because Swagger UI fills its form with the first.
_NO_BOUND = Example(summary="no bound", value="")


@get(
    "/api/v1/gpus",
    tags=["telemetry"],
    operation_id="list_gpus",
    summary="List GPUs",
    description="The ids of all GPUs that were ever seen, sorted; `[]` when there are none.",
    response_description="GPU ids: sorted, without repetition.",
    responses=described(
        BAD_REQUEST="A parameter is not accepted.",
        INTERNAL_SERVER_ERROR=_FAULT,
        SERVICE_UNAVAILABLE=_UNAVAILABLE,
    ),
)
async def list_gpus(
    request: Request[Any, Any, Any],
    reader: NamedDependency[SkipValidation[Reader]],
    by: Annotated[
        str,
        QueryParameter(
            description="Which id: `uuid`, the GPU's identity; or `gpu_id`, its index on its host, "
            "which repeats on every host.",
            schema_extra={"enum": list(_BY)},
            examples=[Example(summary=value, value=value) for value in _BY],
        ),
    ] = "uuid",
) -> list[str]:
    """Answer the ids of all GPUs."""
    only(request.query_params.multi_items(), "by")
    if by in {"", "uuid"}:
        return await reader.uuids()
    if by == "gpu_id":
        return sorted(await reader.gpu_ids(), key=_by_number)
    raise ProblemError(400, f"by {by[:80]!r} is not accepted; accepted: {', '.join(_BY)}")


@get(
    "/api/v1/gpus/{id:str}/telemetry",
    tags=["telemetry"],
    operation_id="get_telemetry",
    summary="Telemetry of a GPU",
    description="All samples of a GPU in a time window, ascending in time. Both bounds are "
    "inclusive and each may be left out. An answer of any size is streamed; one that the database "
    "fails to complete is cut off, so that it cannot be mistaken for a whole one.",
    responses={
        200: ResponseSpec(
            list[Record],
            generate_examples=False,
            description="Telemetry records, ascending in time; `[]` when the window is empty.",
        ),
        **described(
            BAD_REQUEST="A parameter is not accepted, the end is before the start, or the query "
            "takes longer than the gateway allows.",
            NOT_FOUND="There is no such GPU.",
            INTERNAL_SERVER_ERROR=_FAULT,
            SERVICE_UNAVAILABLE=_UNAVAILABLE,
        ),
    },
)
async def get_telemetry(
    *,
    request: Request[Any, Any, Any],
    reader: NamedDependency[SkipValidation[Reader]],
    metrics: NamedDependency[SkipValidation[GatewayMetrics]],
    settings: NamedDependency[SkipValidation[ApiSettings]],
    gpu: Annotated[
        str,
        PathParameter(
            name="id",
            description="A GPU's UUID; or a `gpu_id`, which means that index on every host.",
            examples=[
                Example(summary="that index on every host", value="0"),
                Example(summary="one GPU", value="GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8"),
            ],
        ),
    ],
    start_time: Annotated[
        str,
        QueryParameter(
            description="Earliest time, inclusive: RFC 3339 with an offset; empty is no bound.",
            schema_extra=_MOMENT,
            examples=[_NO_BOUND, Example(summary="in UTC", value="2025-07-18T20:42:34Z")],
        ),
    ] = "",
    end_time: Annotated[
        str,
        QueryParameter(
            description="Latest time, inclusive: RFC 3339 with an offset; empty is no bound.",
            schema_extra=_MOMENT,
            examples=[
                _NO_BOUND,
                Example(summary="with an offset", value="2025-07-18T22:42:34.5+02:00"),
            ],
        ),
    ] = "",
) -> ASGIApp:
    """Answer a GPU's telemetry."""
    only(request.query_params.multi_items(), "start_time", "end_time")
    start, end = window(start_time, end_time)
    return TelemetryAnswer(reader, metrics, gpu, start, end, settings.chunk_rows)


def _by_number(text: str) -> tuple[bool, int, str]:
    number = text.isascii() and text.isdigit() and len(text) < 20
    return not number, int(text) if number else 0, text


ROUTES: tuple[HTTPRouteHandler, ...] = (list_gpus, get_telemetry)
