"""``/api/v1/fleet/…``: what operators ask about all GPUs at once, each for a window of time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter, SkipValidation
from litestar.types import ASGIApp

from telemq.gateway import fleet_answers
from telemq.gateway.answer import Whole, WholeAnswer
from telemq.gateway.fleet_answers import GROUPS, Window
from telemq.gateway.fleet_views import Idle, Troubled, Usage
from telemq.gateway.memo import Memo
from telemq.gateway.metrics import GatewayMetrics
from telemq.gateway.parameters import (
    FAULT,
    UNAVAILABLE,
    EndTime,
    StartTime,
    enumerated,
    examples,
    numeric,
)
from telemq.gateway.query import choice, number, only, window
from telemq.settings import ApiSettings
from telemq.store.fleet import Fleet, fleet
from telemq.store.reader import Reader
from telemq.web.problems import ProblemError, described

__all__ = ["ROUTES", "FleetDesk", "get_health", "get_idle", "get_usage"]

_DEFAULT = timedelta(hours=24)
_GROUPS = tuple(GROUPS)
_BELOW, _MINUTES = 5.0, 30.0
_ERRORS = described(
    BAD_REQUEST="A parameter is not accepted, the end is before the start, the window is longer "
    "than the gateway allows, or the query takes longer.",
    INTERNAL_SERVER_ERROR=FAULT,
    SERVICE_UNAVAILABLE=UNAVAILABLE,
)
_WINDOW = (
    "The window is the last 24 hours unless it is given; without an end it ends now, without a "
    "start it begins 24 hours before its end. Metrics that no GPU measures are said to be missing, "
    "never taken for 0."
)


@dataclass(frozen=True, slots=True)
class FleetDesk:
    """Answers questions about the fleet, each once for all who ask it at the same time.

    Attributes:
        reader: where the samples come from.
        metrics: where answers that were given up are counted.
        settings: the limits.
        memo: what was answered a moment ago.
    """

    reader: Reader
    metrics: GatewayMetrics
    settings: ApiSettings
    memo: Memo[Whole]

    def answer(
        self,
        asked: tuple[Any, ...],
        bounds: tuple[datetime | None, datetime | None],
        find: Callable[[Fleet, Window], Awaitable[Whole]],
    ) -> ASGIApp:
        """Give the response to a question.

        Args:
            asked: its name and parameters, without the window.
            bounds: the window as it was asked for.
            find: finds the answer.

        Raises:
            ProblemError: 400, the window is too long.
        """
        self._window(*bounds)

        async def search() -> Whole:
            async with fleet(self.reader) as now:
                return await find(now, self._window(*bounds))

        return WholeAnswer(
            self.metrics, str(asked[0]), lambda: self.memo.get((asked, bounds), search)
        )

    def _window(self, start: datetime | None, end: datetime | None) -> Window:
        now = datetime.now(UTC)
        if start is not None and end is None and start > now:
            raise ProblemError(400, "start_time is in the future; give an end_time after it")
        # Nobody can say of the future that a GPU was silent or idle in it.
        end = now if end is None else min(end, now)
        try:
            start = end - _DEFAULT if start is None else min(start, end)
        except OverflowError:  # an end in the year 1
            start = end
        if end - start > timedelta(days=self.settings.fleet_days_max):
            raise ProblemError(
                400,
                f"the window is longer than the limit of {self.settings.fleet_days_max:g} days "
                "(--fleet-days-max); ask for a shorter one",
            )
        return Window(start, end)


@get(
    "/api/v1/fleet/idle",
    tags=["fleet"],
    operation_id="get_idle",
    summary="GPUs that a pod has and does not use",
    description="GPUs that have a pod at the end of the window, and whose utilisation has been "
    f"below a limit for some minutes up to then; the longest idle first. {_WINDOW}",
    responses={
        200: ResponseSpec(list[Idle], generate_examples=False, description="The longest first."),
        **_ERRORS,
    },
)
async def get_idle(
    *,
    request: Request[Any, Any, Any],
    desk: NamedDependency[SkipValidation[FleetDesk]],
    below: Annotated[
        str, numeric(f"A utilisation below this is no use, %; {_BELOW:g} by default.", 0, 100, 5)
    ] = "",
    minutes: Annotated[
        str, numeric(f"For so long, min; {_MINUTES:g} by default.", 1, 525_600, 30)
    ] = "",
    namespace: Annotated[
        str,
        QueryParameter(
            description="Only of pods in this namespace.", examples=examples(all="", one="research")
        ),
    ] = "",
    start_time: StartTime = "",
    end_time: EndTime = "",
) -> ASGIApp:
    """Answer which GPUs are idle."""
    asked = request.query_params.multi_items()
    only(asked, "below", "minutes", "namespace", "start_time", "end_time")
    limit = number("below", below, 0, 100)
    lasting = number("minutes", minutes, 1, 525_600)
    limit = _BELOW if limit is None else limit
    lasting = _MINUTES if lasting is None else lasting

    async def find(now: Fleet, of: Window) -> Whole:
        found = await fleet_answers.idle(now, of, below=limit, minutes=lasting, namespace=namespace)
        return Whole(msgspec.json.encode(found))

    return desk.answer(("idle", limit, lasting, namespace), window(start_time, end_time), find)


@get(
    "/api/v1/fleet/usage",
    tags=["fleet"],
    operation_id="get_usage",
    summary="Who had how much of the GPUs",
    description="GPU-hours, mean utilisation and energy of each namespace, pod or host; the most "
    f"GPU-hours first. {_WINDOW}",
    responses={
        200: ResponseSpec(list[Usage], generate_examples=False, description="The most first."),
        **_ERRORS,
    },
)
async def get_usage(
    *,
    request: Request[Any, Any, Any],
    desk: NamedDependency[SkipValidation[FleetDesk]],
    group_by: Annotated[str, enumerated("What is added up.", *_GROUPS)] = "",
    start_time: StartTime = "",
    end_time: EndTime = "",
) -> ASGIApp:
    """Answer who used how much."""
    only(request.query_params.multi_items(), "group_by", "start_time", "end_time")
    group = choice("group_by", group_by, _GROUPS)
    gap = timedelta(seconds=desk.settings.fleet_gap_s)

    async def find(now: Fleet, of: Window) -> Whole:
        return Whole(
            msgspec.json.encode(await fleet_answers.usage(now, of, group_by=group, gap=gap))
        )

    return desk.answer(("usage", group), window(start_time, end_time), find)


@get(
    "/api/v1/fleet/health",
    tags=["fleet"],
    operation_id="get_health",
    summary="GPUs with whom something is wrong",
    description="GPUs that were too hot, had an XID error or counted double-bit ECC errors in the "
    f"window, and those that are silent at its end; those with most problems first. {_WINDOW} "
    "The header `Telemq-Not-Measured` says of how many GPUs a kind cannot be told: "
    "`xid=24, ecc=24`.",
    responses={
        200: ResponseSpec(
            list[Troubled], generate_examples=False, description="Those with most problems first."
        ),
        **_ERRORS,
    },
)
async def get_health(
    *,
    request: Request[Any, Any, Any],
    desk: NamedDependency[SkipValidation[FleetDesk]],
    start_time: StartTime = "",
    end_time: EndTime = "",
) -> ASGIApp:
    """Answer what is wrong with which GPU."""
    only(request.query_params.multi_items(), "start_time", "end_time")

    async def find(now: Fleet, of: Window) -> Whole:
        found = await fleet_answers.health(now, of, hot_c=desk.settings.hot_c)
        missing = ", ".join(f"{kind}={count}" for kind, count in found.not_measured.items())
        headers = {"telemq-not-measured": missing} if missing else {}
        return Whole(msgspec.json.encode(found.troubled), headers)

    return desk.answer(("health",), window(start_time, end_time), find)


ROUTES: tuple[HTTPRouteHandler, ...] = (get_idle, get_usage, get_health)
