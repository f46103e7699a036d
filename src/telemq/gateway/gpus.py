"""``/api/v1/gpus``: which GPUs there are."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import SkipValidation

from telemq.gateway.parameters import FAULT, UNAVAILABLE, enumerated
from telemq.gateway.query import choice, only
from telemq.store.reader import Reader
from telemq.web.problems import described

__all__ = ["ROUTES", "list_gpus"]

_BY = ("uuid", "gpu_id")


@get(
    "/api/v1/gpus",
    tags=["telemetry"],
    operation_id="list_gpus",
    summary="List GPUs",
    description="The ids of all GPUs that were ever seen, sorted; `[]` when there are none.",
    response_description="GPU ids: sorted, without repetition.",
    responses=described(
        BAD_REQUEST="A parameter is not accepted.",
        INTERNAL_SERVER_ERROR=FAULT,
        SERVICE_UNAVAILABLE=UNAVAILABLE,
    ),
)
async def list_gpus(
    request: Request[Any, Any, Any],
    reader: NamedDependency[SkipValidation[Reader]],
    by: Annotated[
        str,
        enumerated(
            "Which id: `uuid`, the GPU's identity; or `gpu_id`, its index on its host, "
            "which repeats on every host.",
            *_BY,
        ),
    ] = "uuid",
) -> list[str]:
    """Answer the ids of all GPUs."""
    only(request.query_params.multi_items(), "by")
    if choice("by", by, _BY) == "uuid":
        return await reader.uuids()
    return sorted(await reader.gpu_ids(), key=_by_number)


def _by_number(text: str) -> tuple[bool, int, str]:
    number = text.isascii() and text.isdigit() and len(text) < 20
    return not number, int(text) if number else 0, text


ROUTES: tuple[HTTPRouteHandler, ...] = (list_gpus,)
