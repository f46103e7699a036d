"""``/api/v1/status``: the brokers, and how storing goes.

Each part has its time limit and says what is wrong with it, so the answer is there, and soon, when
a broker or the database is not. Brokers are read once for all who ask within a second.
"""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Annotated, Any

import msgspec
from litestar import Request, get
from litestar.di import NamedDependency
from litestar.handlers import HTTPRouteHandler
from litestar.params import SkipValidation

from telemq.errors import StoreError
from telemq.gateway.follower import Follower
from telemq.gateway.query import only
from telemq.settings import ApiSettings
from telemq.store.columns import NEVER_US
from telemq.store.progress import STREAMS_MAX, progress
from telemq.store.reader import Reader
from telemq.watch.numbers import BrokerView, Watched, room_used
from telemq.watch.read import Reading, parse_urls, read_all
from telemq.web.problems import described

__all__ = ["ROUTES", "BrokerNow", "PipelineNow", "StoreNow", "StreamNow", "Watch", "get_status"]

#: Readings closer together than this are one; a rate needs some time between two.
_KEPT_S = 1.0
#: Longest wait for Postgres.
_STORE_S = 3.0


def _meta(description: str, *examples: object) -> msgspec.Meta:
    return msgspec.Meta(description=description, examples=list(examples))


class BrokerNow(msgspec.Struct, frozen=True, kw_only=True):
    """A broker; without an answer of it, its numbers are null."""

    address: Annotated[str, _meta("Its ops address.", "http://127.0.0.1:9601")]
    reachable: Annotated[bool, _meta("Whether it answered.", True)]
    fault: Annotated[str, _meta("Why it could not be read; empty if it could.", "")]
    version: Annotated[str | None, _meta("Of telemq.", "0.1.0")] = None
    uptime_s: Annotated[float | None, _meta("Seconds since its start.", 3600.5)] = None
    ready_records: Annotated[int | None, _meta("Records that wait for a consumer.", 0)] = None
    leased_records: Annotated[int | None, _meta("Records with a consumer.", 2000)] = None
    granted_records: Annotated[int | None, _meta("Credit of producers, not spent.", 98000)] = None
    capacity_records: Annotated[int | None, _meta("Records it may hold.", 1000000)] = None
    room_used: Annotated[
        float | None, _meta("How full it is, 0 to 1: of records or bytes, the fuller.", 0.1)
    ] = None
    producers: Annotated[int | None, _meta("Sessions of producers.", 1)] = None
    producers_waiting: Annotated[int | None, _meta("Those that wait for room.", 0)] = None
    consumers: Annotated[int | None, _meta("Sessions of consumers.", 1)] = None
    oldest_s: Annotated[float | None, _meta("Age of its oldest message, in s.", 0.02)] = None
    redelivered: Annotated[
        int | None, _meta("Messages that went back to the queue, since its start.", 0)
    ] = None
    dead: Annotated[int | None, _meta("Messages buried since its start.", 0)] = None
    in_per_s: Annotated[
        float | None, _meta("Records accepted a second; null before a second reading.", 1000.0)
    ] = None
    out_per_s: Annotated[
        float | None, _meta("Records settled a second; null before a second reading.", 1000.0)
    ] = None
    draining: Annotated[bool | None, _meta("Whether it takes nothing new.", False)] = None
    peers_in_trouble: Annotated[
        int | None, _meta("Producers and consumers that something is wrong with.", 0)
    ] = None


class StreamNow(msgspec.Struct, frozen=True, kw_only=True):
    """A stream."""

    stream_id: Annotated[str, _meta("Its name.", "dcgm_sample-1f0c")]
    next_row: Annotated[int, _meta("Rows reserved so far.", 2340)]
    leases: Annotated[int, _meta("Batches in flight.", 2)]
    lease_rows: Annotated[int, _meta("Rows of these.", 2000)]


class StoreNow(msgspec.Struct, frozen=True, kw_only=True):
    """The database; without an answer of it, its numbers are null."""

    reachable: Annotated[bool, _meta("Whether it answered.", True)]
    fault: Annotated[str, _meta("Why it could not be read; empty if it could.", "")]
    lag_s: Annotated[
        float | None,
        _meta(
            "Age of the newest of all samples, in s; null if there is none, or not known yet.", 1.2
        ),
    ] = None
    stored_s_ago: Annotated[
        float | None,
        _meta("Seconds since the last batch was stored; null if that was over a minute ago.", 0.3),
    ] = None
    records_per_s: Annotated[
        float | None, _meta("Records stored a second, over the last minute.", 1000.0)
    ] = None
    streams: Annotated[list[StreamNow], _meta(f"By name; {STREAMS_MAX} at most.", [])] = []
    stream_count: Annotated[int | None, _meta("How many streams there are.", 1)] = None
    dead_letters: Annotated[
        int | None, _meta("Rows kept as dead letters that nobody has dropped.", 0)
    ] = None


class PipelineNow(msgspec.Struct, frozen=True, kw_only=True):
    """The pipeline as it is now."""

    brokers: Annotated[
        list[BrokerNow],
        _meta("Those of the setting `--broker-ops`; empty if the gateway knows none.", []),
    ]
    brokers_known: Annotated[
        bool, _meta("Whether the gateway was told of any broker (`--broker-ops`).", True)
    ]
    store: Annotated[
        StoreNow, _meta("The database.", {"reachable": True, "fault": "", "lag_s": 1.2})
    ]


class Watch:
    """The brokers that the gateway was told of.

    Args:
        settings: of the gateway.

    Raises:
        SettingError: an address is malformed.
    """

    def __init__(self, settings: ApiSettings) -> None:
        urls = parse_urls(settings.broker_ops, "--broker-ops") if settings.broker_ops else []
        self._watched = [Watched(url) for url in urls]
        self._wait_s = settings.broker_wait_s
        self._task: asyncio.Task[list[Reading]] | None = None
        self._views: list[BrokerView] = []
        self._read_s = -_KEPT_S

    async def views(self) -> list[BrokerView]:
        """Read the brokers; takes little longer than the wait for one."""
        loop = asyncio.get_running_loop()
        urls = [watched.url for watched in self._watched]
        if not urls or (self._views and loop.time() - self._read_s < _KEPT_S):
            return self._views
        if self._task is None:
            self._task = asyncio.create_task(asyncio.to_thread(read_all, urls, self._wait_s))
        task = self._task
        # A name that is looked up has no limit of its own.
        await asyncio.wait({task}, timeout=self._wait_s + 0.5)
        if not task.done():
            return [BrokerView(url, f"no answer within {self._wait_s:g} s") for url in urls]
        if self._task is task:  # the first of those who waited
            self._task, self._read_s = None, loop.time()
            pairs = zip(self._watched, task.result(), strict=True)
            self._views = [w.take(reading.status, reading.fault) for w, reading in pairs]
        return self._views


@get(
    "/api/v1/status",
    tags=["operation"],
    operation_id="get_status",
    summary="Brokers and store as they are now",
    description="The brokers that the gateway was told of (`--broker-ops`), and how storing goes. "
    "200 also when some of it does not answer: each part says so.",
    response_description="The pipeline.",
    responses=described(
        BAD_REQUEST="A parameter is not accepted.",
        INTERNAL_SERVER_ERROR="The gateway failed; its log says why.",
    ),
)
async def get_status(
    request: Request[Any, Any, Any],
    watch: NamedDependency[SkipValidation[Watch]],
    reader: NamedDependency[SkipValidation[Reader]],
    follower: NamedDependency[SkipValidation[Follower]],
) -> PipelineNow:
    """Answer how the pipeline is."""
    only(request.query_params.multi_items())
    views, store, lag_s = await asyncio.gather(watch.views(), _store(reader), _lag_s(follower))
    return PipelineNow(
        brokers=[_broker(view) for view in views],
        brokers_known=bool(views),
        store=msgspec.structs.replace(store, lag_s=lag_s),
    )


async def _store(reader: Reader) -> StoreNow:
    try:
        async with asyncio.timeout(_STORE_S), reader.connection() as conn:
            found = await progress(conn)
    except TimeoutError:
        return StoreNow(reachable=False, fault=f"no answer within {_STORE_S:g} s")
    except StoreError as error:
        return StoreNow(reachable=False, fault=str(error))
    values = dataclasses.asdict(found)
    return msgspec.convert({"reachable": True, "fault": "", **values}, StoreNow)


async def _lag_s(follower: Follower) -> float | None:
    try:
        async with asyncio.timeout(_STORE_S):
            board = await follower.board()
    except (TimeoutError, StoreError):
        return None
    newest_us = int(board.last_us.max(initial=NEVER_US))
    return None if newest_us == NEVER_US else max(0.0, (board.at_us - newest_us) / 1e6)


def _broker(view: BrokerView) -> BrokerNow:
    if view.status is None:
        return BrokerNow(address=view.url, reachable=False, fault=view.fault)
    status, stats, rates = view.status, view.status.stats, view.rates
    return BrokerNow(
        address=view.url,
        reachable=True,
        fault="",
        version=status.version,
        uptime_s=status.uptime_s,
        ready_records=stats.ready_records,
        leased_records=stats.leased_records,
        granted_records=stats.granted_records,
        capacity_records=stats.capacity_records,
        room_used=room_used(stats),
        producers=stats.producers,
        producers_waiting=stats.producers_waiting,
        consumers=stats.consumers,
        oldest_s=stats.oldest_ns / 1e9,
        redelivered=stats.counters.redelivered,
        dead=stats.counters.buried,
        in_per_s=None if rates is None else rates.accepted,
        out_per_s=None if rates is None else rates.settled,
        draining=stats.draining,
        peers_in_trouble=sum(bool(peer.trouble) for peer in view.peers),
    )


ROUTES: tuple[HTTPRouteHandler, ...] = (get_status,)
