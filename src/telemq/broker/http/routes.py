"""``/publish``, ``/consume`` and ``/settle``, and what the ops address has, too."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from litestar import Request, Response, get, post
from litestar.background_tasks import BackgroundTask
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter, SkipValidation
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from telemq.broker.http.bodies import (
    ConsumedBody,
    PublishedBody,
    SettledBody,
    consumed,
    payload_of,
    read_publish,
    read_settle,
)
from telemq.broker.http.desk import RETRY, Desk, guard
from telemq.broker.http.door import (
    Answer,
    Consume,
    Consumed,
    Nothing,
    Publish,
    Published,
    Refusal,
    Settle,
    Settled,
)
from telemq.errors import RecordError
from telemq.web.problems import ProblemError, described

__all__ = ["ROUTES", "consume", "healthz", "metrics", "publish", "readyz", "settle"]

_GivenDesk = NamedDependency[SkipValidation[Desk]]
_Timeout = Annotated[
    str,
    QueryParameter(
        description="Longest wait, in seconds; left out or empty is the broker's `--http-wait-s`.",
        schema_extra={"pattern": r"^([0-9]+(\.[0-9]*)?)?$"},
    ),
]
_FORBIDDEN = "The request comes from a web page elsewhere, or by a foreign host name."
_UNAUTHORIZED = "The token is missing or wrong."
_FAULT = "The broker failed; its log says why."


@post(
    "/publish",
    tags=["messages"],
    operation_id="publish",
    summary="Queue a message",
    description="202 when the message is queued; with `confirm=stored`, 200 when it is stored. "
    "Waits while the queue is full.",
    guards=[guard],
    status_code=202,
    responses={
        200: ResponseSpec(PublishedBody, generate_examples=False, description="It is stored."),
        202: ResponseSpec(PublishedBody, generate_examples=False, description="It is queued."),
        **described(
            BAD_REQUEST="The body or a parameter is not accepted.",
            UNAUTHORIZED=_UNAUTHORIZED,
            FORBIDDEN=_FORBIDDEN,
            REQUEST_TIMEOUT="The body did not come in time.",
            REQUEST_ENTITY_TOO_LARGE="The body, or the message, is larger than is accepted.",
            INTERNAL_SERVER_ERROR=_FAULT,
            SERVICE_UNAVAILABLE="No room in time, or with `confirm=stored` not stored in time: "
            "the detail says which. `Retry-After` says when to try again.",
        ),
    },
)
async def publish(
    request: Request[Any, Any, Any],
    desk: _GivenDesk,
    confirm: Annotated[
        str,
        QueryParameter(
            description="What to wait for: `queued` (default) or `stored`.",
            schema_extra={"enum": ["queued", "stored"]},
        ),
    ] = "queued",
    timeout_s: _Timeout = "",
) -> Response[bytes]:
    """Queue a message."""
    _only(request, "confirm", "timeout_s")
    _one_of("confirm", confirm, "queued", "stored")
    body = await desk.read(request, read_publish)
    try:
        payload, records, metadata = payload_of(body)
    except RecordError as error:
        raise ProblemError(400, str(error)) from error
    with desk.admit("publish"):
        ask = Publish(
            id=body.id,
            records=records,
            key=body.key,
            metadata=metadata,
            payload=payload,
            stored=confirm == "stored",
            until_ns=desk.until_ns(timeout_s),
        )
        answer = await desk.ask(request, ask)
    if not isinstance(answer, Published):
        return _otherwise(answer)
    body_out = PublishedBody(id=answer.id, stored=answer.stored)
    return _json(msgspec.json.encode(body_out), 200 if answer.stored else 202)


@post(
    "/consume",
    tags=["messages"],
    operation_id="consume",
    summary="Take a message",
    description="Waits for a message. With `ack=auto` it counts as settled when the answer has "
    "been sent: at most once. With `ack=manual` it is lent, and is to be settled within its lease: "
    "at least once.",
    guards=[guard],
    status_code=200,
    responses={
        200: ResponseSpec(ConsumedBody, generate_examples=False, description="A message."),
        204: ResponseSpec(None, description="None came in time."),
        **described(
            BAD_REQUEST="A parameter is not accepted.",
            UNAUTHORIZED=_UNAUTHORIZED,
            FORBIDDEN=_FORBIDDEN,
            INTERNAL_SERVER_ERROR=_FAULT,
            SERVICE_UNAVAILABLE="Too many clients consume or hold messages, or the broker stops.",
        ),
    },
)
async def consume(
    request: Request[Any, Any, Any],
    desk: _GivenDesk,
    ack: Annotated[
        str,
        QueryParameter(
            description="Who settles: `auto` (default) the broker, `manual` the client.",
            schema_extra={"enum": ["auto", "manual"]},
        ),
    ] = "auto",
    timeout_s: _Timeout = "",
) -> Response[bytes]:
    """Lend a message."""
    _only(request, "ack", "timeout_s")
    _one_of("ack", ack, "auto", "manual")
    with desk.admit("consume"):
        answer = await desk.ask(request, Consume(until_ns=desk.until_ns(timeout_s)))
    if isinstance(answer, Nothing):
        return Response(b"", status_code=204, media_type="text/plain")
    if not isinstance(answer, Consumed):
        return _otherwise(answer)
    if ack == "manual":
        return _json(consumed(answer.delivery, answer.lease), 200)
    sent = BackgroundTask(desk.sent, answer.lease)
    return _json(consumed(answer.delivery, ""), 200, sent)


@post(
    "/settle",
    tags=["messages"],
    operation_id="settle",
    summary="Settle a message",
    description="Says what became of a message that `/consume?ack=manual` lent.",
    guards=[guard],
    status_code=200,
    responses={
        200: ResponseSpec(
            SettledBody, generate_examples=False, description="It is settled, once and for all."
        ),
        **described(
            BAD_REQUEST="The body is not accepted.",
            UNAUTHORIZED=_UNAUTHORIZED,
            FORBIDDEN=_FORBIDDEN,
            REQUEST_TIMEOUT="The body did not come in time.",
            GONE="The lease is over, was settled, or never was; another may have the message.",
            REQUEST_ENTITY_TOO_LARGE="The body is larger than is accepted.",
            INTERNAL_SERVER_ERROR=_FAULT,
            SERVICE_UNAVAILABLE="Too many clients settle, or the broker stops.",
        ),
    },
)
async def settle(request: Request[Any, Any, Any], desk: _GivenDesk) -> Response[bytes]:
    """Settle a message."""
    _only(request)
    body = await desk.read(request, read_settle)
    with desk.admit("settle"):
        ask = Settle(lease=body.lease, outcome=body.outcome, reason=body.reason)
        answer = await desk.ask(request, ask)
    if not isinstance(answer, Settled):
        return _otherwise(answer)
    return _json(msgspec.json.encode(SettledBody(outcome=body.outcome)), 200)


@get(
    "/healthz",
    tags=["operation"],
    operation_id="healthz",
    summary="Is the process alive?",
    response_description="It is.",
    media_type="text/plain",
    sync_to_thread=False,
)
def healthz() -> str:
    """Answer that the process runs."""
    return "ok\n"


@get(
    "/readyz",
    tags=["operation"],
    operation_id="readyz",
    summary="Does the broker take messages?",
    response_description="It does.",
    responses=described(SERVICE_UNAVAILABLE="It does not; the detail says why."),
    media_type="text/plain",
    sync_to_thread=False,
)
def readyz(desk: _GivenDesk) -> str:
    """Answer whether the broker takes messages."""
    if reason := desk.metrics.not_ready():
        raise ProblemError(503, reason, RETRY)
    return "ready\n"


@get(
    "/metrics",
    tags=["operation"],
    operation_id="metrics",
    summary="The broker's metrics",
    description="Prometheus text format.",
    guards=[guard],
    response_description="Metrics.",
    responses=described(UNAUTHORIZED=_UNAUTHORIZED, FORBIDDEN=_FORBIDDEN),
    media_type="text/plain",
    sync_to_thread=False,
)
def metrics(desk: _GivenDesk) -> Response[str]:
    """Answer the metrics of this process."""
    text = generate_latest(desk.metrics.registry).decode()
    return Response(text, media_type=CONTENT_TYPE_LATEST)


def _only(request: Request[Any, Any, Any], *names: str) -> None:
    """Refuse parameters that nothing would heed, and those given twice."""
    seen: set[str] = set()
    for name, _ in request.query_params.multi_items():
        if name not in names or name in seen:
            accepted = " and ".join(names) or "no parameter"
            detail = f"parameter {name[:40]!r} is not accepted here, or twice; accepted: {accepted}"
            raise ProblemError(400, detail)
        seen.add(name)


def _one_of(name: str, value: str, *accepted: str) -> None:
    if value not in accepted:
        detail = f"{name} {value[:40]!r} is not accepted; accepted: {', '.join(accepted)}"
        raise ProblemError(400, detail)


def _json(body: bytes, status: int, after: BackgroundTask | None = None) -> Response[bytes]:
    return Response(body, status_code=status, media_type="application/json", background=after)


def _otherwise(answer: Answer | None) -> Response[bytes]:
    """Refuse; or give what nobody reads to a client that has gone away."""
    if isinstance(answer, Refusal):
        headers = RETRY if answer.status == 503 else None
        raise ProblemError(answer.status, answer.detail, headers)
    return Response(b"", status_code=499, media_type="text/plain")


ROUTES: tuple[HTTPRouteHandler, ...] = (publish, consume, settle, healthz, readyz, metrics)
