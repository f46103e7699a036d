"""``/api/v1/devices``, ``/hosts``, ``/metrics`` and ``/live``: how it stands now."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from litestar.params import HeaderParameter, PathParameter, QueryParameter, SkipValidation
from litestar.types import ASGIApp

from telemq.gateway.devices import Device, Host, MetricInfo, metrics_of
from telemq.gateway.fanout import Filter
from telemq.gateway.follower import Follower
from telemq.gateway.live import LiveAnswer
from telemq.gateway.query import only
from telemq.settings import ApiSettings
from telemq.store.reader import Reader
from telemq.web.problems import ProblemError, described

__all__ = ["ROUTES", "get_device", "list_devices", "list_hosts", "list_metrics", "live"]

#: GPUs made into documents before others have their turn: some 5 ms.
_AT_A_TIME = 200
_ERRORS = described(
    BAD_REQUEST="A parameter is not accepted.",
    INTERNAL_SERVER_ERROR="The gateway failed; its log says why.",
    SERVICE_UNAVAILABLE="The database cannot be used now; `Retry-After` says when to ask again.",
)
_FRESH = "At most a few seconds old (`--follow-s`), whatever the number of those who ask."
_ANY = Example(summary="any", value="")


def _filter(description: str, example: str) -> QueryParameter:
    return QueryParameter(
        description=f"{description}; empty is any.",
        examples=[_ANY, Example(summary=example, value=example)],
    )


@get(
    "/api/v1/devices",
    tags=["now"],
    operation_id="list_devices",
    summary="GPUs as they are now",
    description="Every GPU that was ever seen, with where it was seen last, its pods and the "
    f"latest value of each metric; sorted by UUID. {_FRESH}",
    responses={
        200: ResponseSpec(
            list[Device], generate_examples=False, description="GPUs, sorted by UUID."
        ),
        **_ERRORS,
    },
)
async def list_devices(
    request: Request[Any, Any, Any],
    follower: NamedDependency[SkipValidation[Follower]],
    host: Annotated[str, _filter("Only GPUs that were seen last on this host", "hopper-001")] = "",
    namespace: Annotated[
        str, _filter("Only GPUs used by a pod of this namespace", "research")
    ] = "",
    model: Annotated[str, _filter("Only GPUs of this model", "NVIDIA H100 80GB HBM3")] = "",
) -> Response[bytes]:
    """Answer all GPUs."""
    only(request.query_params.multi_items(), "host", "namespace", "model")
    parts: list[bytes] = []
    for number, (device, document) in enumerate(await follower.devices(), 1):
        if (
            host in {"", device.hostname}
            and model in {"", device.model_name}
            and (not namespace or any(p.namespace == namespace for p in device.pods))
        ):
            parts.append(document)
        if number % _AT_A_TIME == 0:
            await asyncio.sleep(0)
    return Response(b"[" + b",".join(parts) + b"]", media_type="application/json")


@get(
    "/api/v1/devices/{uuid:str}",
    tags=["now"],
    operation_id="get_device",
    summary="A GPU as it is now",
    description=f"One GPU, as in `/api/v1/devices`. {_FRESH}",
    responses={
        200: ResponseSpec(Device, generate_examples=False, description="The GPU."),
        **_ERRORS,
        **described(NOT_FOUND="There is no such GPU."),
    },
)
async def get_device(
    request: Request[Any, Any, Any],
    follower: NamedDependency[SkipValidation[Follower]],
    uuid: Annotated[
        str,
        PathParameter(
            description="A GPU's UUID.",
            examples=[Example(value="GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8")],
        ),
    ],
) -> Response[bytes]:
    """Answer one GPU."""
    only(request.query_params.multi_items())
    devices = await follower.devices()
    gpu = devices.board.gpu_index(uuid)
    if gpu is None:
        raise ProblemError(
            404, f"no GPU has the UUID {uuid[:80]!r}; /api/v1/gpus lists those there are"
        )
    return Response(devices.one(gpu)[1], media_type="application/json")


@get(
    "/api/v1/hosts",
    tags=["now"],
    operation_id="list_hosts",
    summary="Hosts",
    description=f"Every host on which a GPU was seen last, sorted by name. {_FRESH}",
    response_description="Hosts, sorted by name.",
    responses=_ERRORS,
)
async def list_hosts(
    request: Request[Any, Any, Any], follower: NamedDependency[SkipValidation[Follower]]
) -> list[Host]:
    """Answer all hosts."""
    only(request.query_params.multi_items())
    found: dict[str, list[Device]] = {}
    for number, (device, _) in enumerate(await follower.devices(), 1):
        found.setdefault(device.hostname, []).append(device)
        if number % _AT_A_TIME == 0:
            await asyncio.sleep(0)
    return [
        Host(
            hostname=name,
            gpus=len(devices),
            models=sorted({d.model_name for d in devices}),
            last_seen=max((d.last_seen for d in devices if d.last_seen), default=None),
        )
        for name, devices in sorted(found.items())
    ]


@get(
    "/api/v1/metrics",
    tags=["now"],
    operation_id="list_metrics",
    summary="Metrics",
    description="The metrics that GPUs have, with kind, unit and meaning; sorted by name. "
    "Those that telemq does not know are gauges without a unit. The gateway's own metrics, for "
    "Prometheus, are at `/metrics`.",
    response_description="Metrics, sorted by name.",
    responses=_ERRORS,
)
async def list_metrics(
    request: Request[Any, Any, Any], follower: NamedDependency[SkipValidation[Follower]]
) -> list[MetricInfo]:
    """Answer all metrics."""
    only(request.query_params.multi_items())
    return metrics_of(await follower.board())


@get(
    "/api/v1/live",
    tags=["now"],
    operation_id="live",
    summary="Samples as they come",
    description="Server-sent events. First the latest value of every series that is wanted, then "
    "every sample that is newer than the latest of its series, about once a second. An event "
    '`samples` has the data `{"samples":[[uuid, metric_name, timestamp, value], …]}`. The event '
    "`missed` says that the client was too slow or away for too long; the latest values follow "
    "it. Comments keep an idle connection open.",
    responses={
        200: ResponseSpec(
            str,
            generate_examples=False,
            media_type="text/event-stream",
            description="Events without end.",
            examples=[
                Example(
                    summary="an event",
                    value='id: t650b1c2d3e4f5\nevent: samples\ndata: {"samples":[["GPU-07e435ef-'
                    '3091-c9d0-8b2b-e7ffe076dbb8","DCGM_FI_DEV_GPU_UTIL",'
                    '"2025-07-18T20:42:34Z",97.0]]}\n\n',
                )
            ],
        ),
        **_ERRORS,
        **described(
            SERVICE_UNAVAILABLE="The database cannot be used now, or there are as many live "
            "clients as the gateway allows; `Retry-After` says when to ask again.",
        ),
    },
)
async def live(
    *,
    request: Request[Any, Any, Any],
    follower: NamedDependency[SkipValidation[Follower]],
    reader: NamedDependency[SkipValidation[Reader]],
    settings: NamedDependency[SkipValidation[ApiSettings]],
    gpu: Annotated[
        list[str] | None,
        QueryParameter(
            description="UUID of a GPU; may be given several times; none is all.",
            examples=[Example(value=["GPU-07e435ef-3091-c9d0-8b2b-e7ffe076dbb8"])],
        ),
    ] = None,
    metric: Annotated[
        list[str] | None,
        QueryParameter(
            description="Name of a metric; may be given several times; none is all.",
            examples=[Example(value=["DCGM_FI_DEV_GPU_UTIL"])],
        ),
    ] = None,
    last_event_id: Annotated[
        str,
        HeaderParameter(
            name="Last-Event-ID",
            description="The id of the last event that the client got: it goes on from there, if "
            "that is not too long ago (`--live-resume-s`).",
            examples=[Example(summary="from the beginning", value="")],
        ),
    ] = "",
) -> ASGIApp:
    """Answer what comes."""
    # Either may repeat.
    only(dict.fromkeys((name, "") for name, _ in request.query_params.multi_items()), *_LIVE)
    wanted = Filter(frozenset(filter(None, gpu or ())), frozenset(filter(None, metric or ())))
    await follower.board()
    if follower.fanout.full:
        raise ProblemError(
            503,
            f"{follower.fanout.clients} clients are live, as many as this gateway allows "
            "(--live-clients-max); ask again later, or another gateway",
            {"Retry-After": "5"},
        )
    return LiveAnswer(follower, reader, settings, wanted, last_event_id)


_LIVE = ("gpu", "metric")

ROUTES: tuple[HTTPRouteHandler, ...] = (list_devices, get_device, list_hosts, list_metrics, live)
