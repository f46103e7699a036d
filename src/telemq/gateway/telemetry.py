"""``/api/v1/gpus/{id}/telemetry``: what a GPU measured."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Example,
    OpenAPIHeader,
    OpenAPIMediaType,
    OpenAPIResponse,
    OpenAPIType,
    Operation,
    Schema,
)
from litestar.params import PathParameter, QueryParameter, SkipValidation
from litestar.types import ASGIApp

from telemq.gateway.answer import TelemetryAnswer
from telemq.gateway.formats import FORMATS, chosen, offered
from telemq.gateway.metrics import GatewayMetrics
from telemq.gateway.paging import cursor_of, place_of
from telemq.gateway.parameters import (
    FAULT,
    UNAVAILABLE,
    EndTime,
    StartTime,
    enumerated,
    examples,
    numeric,
)
from telemq.gateway.query import choice, names, number, only, step_s, window
from telemq.settings import ApiSettings
from telemq.store.reader import Reader
from telemq.store.records import Record
from telemq.store.telemetry_query import AGGREGATES, STEP_S_MAX, Place, Question
from telemq.web.problems import ProblemError, described

__all__ = ["ROUTES", "get_telemetry"]

#: Most rows of a page: what a client would rather stream than page through.
_LIMIT_MAX = 1_000_000
_ORDERS = ("asc", "desc")
_AGGREGATES = ("mean", *(name for name in AGGREGATES if name != "mean"))
_ACCEPTED = (
    "start_time", "end_time", "metric", "step", "agg", "order", "limit", "cursor", "format",
)  # fmt: skip
_FORM = {
    "ndjson": "one as JSON a line",
    "csv": "a line each, after a header",
    "arrow": "an IPC stream, its labels as dictionaries",
}

GpuId = Annotated[
    str,
    PathParameter(
        name="id",
        description="A GPU's UUID; or a `gpu_id`, which means that index on every host.",
        examples=examples(
            that_index_on_every_host="0", one_GPU="GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8"
        ),
    ),
]
Metrics = Annotated[
    tuple[str, ...],
    QueryParameter(
        description="Names of metrics, once each; without it all.",
        examples=[Example(summary="one metric", value=["DCGM_FI_DEV_GPU_UTIL"])],
    ),
]
Step = Annotated[
    str,
    QueryParameter(
        description="Give one record a series and step instead of every sample: seconds, or a "
        "whole number and `s`, `m`, `h` or `d`. A step's time is its start; steps of days begin "
        "at midnight UTC, those of weeks on Mondays. Empty gives every sample.",
        schema_extra={"pattern": "^([0-9]+[smhd]?)?$"},
        examples=examples(every_sample="", of_five_minutes="5m", of_thirty_seconds="30"),
    ),
]
Cursor = Annotated[
    str,
    QueryParameter(
        description="The page that begins there: take it from the `Link` header of the page "
        "before, and leave the other parameters as they were.",
        examples=examples(the_first_page=""),
    ),
]
Agg = Annotated[
    str,
    enumerated(
        "What becomes of the samples of a step; `p95` is a value that was measured.",
        *_AGGREGATES,
        absent="no step, or its mean",
    ),
]
Limit = Annotated[
    str,
    numeric(
        "Most records of the answer; the header `Link` leads to the next page if there is one. "
        "Without it all are streamed.",
        1, _LIMIT_MAX, 1000, whole=True,
    ),
]  # fmt: skip
FormatName = Annotated[
    str,
    enumerated("How it is told; without it, the header `Accept` says.", *(f.name for f in FORMATS)),
]


@dataclasses.dataclass
class _Telemetry(Operation):
    """Adds what Litestar cannot describe: the other media types, and the header `Link`."""

    def __post_init__(self) -> None:
        response = (self.responses or {})["200"]
        assert isinstance(response, OpenAPIResponse)
        assert response.content is not None
        for other in FORMATS[1:]:
            response.content[other.media_type] = OpenAPIMediaType(
                Schema(
                    type=OpenAPIType.STRING, description=f"The same records: {_FORM[other.name]}."
                )
            )
        link = '`<URL>; rel="next"`: the next page; without it this page is the last.'
        response.headers = {
            "Link": OpenAPIHeader(Schema(type=OpenAPIType.STRING), description=link)
        }


@get(
    "/api/v1/gpus/{id:str}/telemetry",
    tags=["telemetry"],
    operation_id="get_telemetry",
    operation_class=_Telemetry,
    summary="Telemetry of a GPU",
    description="Samples of a GPU in a time window, in order of time. Both bounds are inclusive "
    "and each may be left out. An answer of any size is streamed; one that the database fails to "
    "complete is cut off, so that it cannot be mistaken for a whole one.",
    responses={
        200: ResponseSpec(
            list[Record],
            generate_examples=False,
            description="Telemetry records in order of time; none when the window is empty.",
        ),
        **described(
            BAD_REQUEST="A parameter is not accepted, the end is before the start, the query "
            "takes longer than the gateway allows, or the values have no such aggregate.",
            NOT_FOUND="There is no such GPU.",
            NOT_ACCEPTABLE="No format that is asked for is offered; the detail says which are.",
            INTERNAL_SERVER_ERROR=FAULT,
            SERVICE_UNAVAILABLE=UNAVAILABLE,
        ),
    },
)
async def get_telemetry(
    *,
    request: Request[Any, Any, Any],
    reader: NamedDependency[SkipValidation[Reader]],
    metrics: NamedDependency[SkipValidation[GatewayMetrics]],
    settings: NamedDependency[SkipValidation[ApiSettings]],
    gpu: GpuId,
    start_time: StartTime = "",
    end_time: EndTime = "",
    metric: Metrics = (),
    step: Step = "",
    agg: Agg = "",
    order: Annotated[str, enumerated("Which time comes first.", *_ORDERS)] = "",
    limit: Limit = "",
    cursor: Cursor = "",
    format: FormatName = "",
) -> ASGIApp:
    """Answer a GPU's telemetry."""
    asked = list(request.query_params.multi_items())
    only(asked, *_ACCEPTED, repeatable={"metric"})
    start, end = window(start_time, end_time)
    seconds = step_s(step, STEP_S_MAX)
    if agg and not seconds:
        raise ProblemError(400, "agg needs a step, such as step=5m")
    rows = number("limit", limit, 1, _LIMIT_MAX, whole=True)
    question = Question(
        gpu,
        start,
        end,
        names("metric", metric),
        descending=choice("order", order, _ORDERS) == "desc",
        step_s=seconds,
        aggregate=choice("agg", agg, _AGGREGATES),
        limit=None if rows is None else int(rows),
    )
    if cursor:
        question = dataclasses.replace(question, place=place_of(cursor, question))

    def link(place: Place) -> str:
        others = [(name, of) for name, of in asked if name != "cursor" and of]
        query = urlencode([*others, ("cursor", cursor_of(place, question))])
        return f"{quote(request.url.path)}?{query}"

    told = chosen(format, request.headers.get("accept", ""), offered())
    return TelemetryAnswer(metrics, gpu, reader, question, told, link, settings.chunk_rows)


ROUTES: tuple[HTTPRouteHandler, ...] = (get_telemetry,)
