"""``/metrics/gpus``: what an existing Prometheus scrapes instead of every exporter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import SkipValidation
from litestar.response import Stream

from telemq.gateway.exposition import CONTENT_TYPE, Exposition
from telemq.gateway.follower import Follower
from telemq.gateway.query import only
from telemq.settings import ApiSettings
from telemq.web.problems import described

__all__ = ["ROUTES", "gpu_metrics"]

_EXAMPLE = (
    "# HELP DCGM_FI_DEV_GPU_TEMP Temperature of the GPU. In °C.\n"
    "# TYPE DCGM_FI_DEV_GPU_TEMP gauge\n"
    'DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8",'
    'device="nvidia0",modelName="NVIDIA H100 80GB HBM3",Hostname="hopper-001",'
    'container="train",pod="train-0",namespace="research"} 61.0\n'
)


@get(
    "/metrics/gpus",
    tags=["now"],
    operation_id="gpu_metrics",
    summary="The latest values, for Prometheus",
    description="Prometheus text format: the latest value of every series whose last sample is not "
    "older than `--stale-s`, with the names and labels of DCGM. A scrape sees what is at most a "
    "few seconds old.",
    responses={
        200: ResponseSpec(
            str,
            generate_examples=False,
            media_type="text/plain",
            description="Metrics of the GPUs.",
            examples=[Example(summary="one series", value=_EXAMPLE)],
        ),
        **described(
            BAD_REQUEST="A parameter is not accepted.",
            INTERNAL_SERVER_ERROR="The gateway failed; its log says why.",
            SERVICE_UNAVAILABLE="The database cannot be used now; `Retry-After` says when to ask "
            "again.",
        ),
    },
)
async def gpu_metrics(
    request: Request[Any, Any, Any],
    follower: NamedDependency[SkipValidation[Follower]],
    settings: NamedDependency[SkipValidation[ApiSettings]],
) -> Stream:
    """Answer the latest values."""
    only(request.query_params.multi_items())
    exposition = await follower.exposition()
    text = _spelt(exposition, round(settings.stale_s * 1e6))
    return Stream(text, headers={"Content-Type": CONTENT_TYPE})


async def _spelt(exposition: Exposition, stale_us: int) -> AsyncIterator[bytes]:
    for piece in exposition.pieces(stale_us):
        if piece:
            yield piece
        await asyncio.sleep(0)  # others have their turn


ROUTES: tuple[HTTPRouteHandler, ...] = (gpu_metrics,)
