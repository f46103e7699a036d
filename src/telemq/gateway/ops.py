"""``/healthz``, ``/readyz`` and ``/metrics``: for those who run the gateway."""

from __future__ import annotations

from litestar import Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import SkipValidation
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from telemq.errors import StoreError
from telemq.gateway.metrics import GatewayMetrics
from telemq.store.reader import Reader
from telemq.web.access import OPEN
from telemq.web.problems import described

__all__ = ["ROUTES", "healthz", "metrics", "readyz"]


@get(
    "/healthz",
    opt=OPEN,
    tags=["operation"],
    operation_id="healthz",
    summary="Is the process alive?",
    description="200 as long as the process can answer at all, with or without the database.",
    response_description="It is.",
    media_type="text/plain",
    sync_to_thread=False,
)
def healthz() -> str:
    """Answer that the process runs."""
    return "ok\n"


@get(
    "/readyz",
    opt=OPEN,
    tags=["operation"],
    operation_id="readyz",
    summary="Can it answer questions now?",
    response_description="It can.",
    responses=described(
        SERVICE_UNAVAILABLE="The database cannot be reached or has no schema yet; the detail says "
        "which."
    ),
    media_type="text/plain",
)
async def readyz(reader: NamedDependency[SkipValidation[Reader]]) -> str:
    """Answer whether the database can be asked."""
    if reason := await reader.ready():
        raise StoreError(reason)
    return "ready\n"


@get(
    "/metrics",
    opt=OPEN,
    tags=["operation"],
    operation_id="metrics",
    summary="The gateway's own metrics",
    description="Prometheus text format; of the gateway, not of the GPUs.",
    response_description="Metrics.",
    media_type="text/plain",
    sync_to_thread=False,
)
def metrics(metrics: NamedDependency[SkipValidation[GatewayMetrics]]) -> Response[str]:
    """Answer the metrics of this process."""
    return Response(generate_latest(metrics.registry).decode(), media_type=CONTENT_TYPE_LATEST)


ROUTES: tuple[HTTPRouteHandler, ...] = (healthz, readyz, metrics)
