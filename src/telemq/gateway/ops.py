"""``/healthz`` and ``/readyz``: for whoever sends requests to the gateway.

Its metrics are at its ops address, as those of the other services.
"""

from __future__ import annotations

from litestar import get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import SkipValidation

from telemq.errors import StoreError
from telemq.store.reader import Reader
from telemq.web.access import OPEN
from telemq.web.problems import described

__all__ = ["ROUTES", "healthz", "readyz"]


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


ROUTES: tuple[HTTPRouteHandler, ...] = (healthz, readyz)
