"""A thread with an event loop and, most of the time, a connection to NATS JetStream.

nats-py is asyncio; a streamer and a collector are loops that poll. Here they meet: the owner's
thread hands over calls, and the loop hands back results under one lock. The connection does not
reconnect by itself: each is a new client, so that what belongs to one, subscriptions and requests
under way, ends with it, and the pauses grow, with jitter.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import threading
from collections.abc import Awaitable, Callable

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.js import JetStreamContext, api

from telemq import log
from telemq.engine.natsurl import NatsUrl

__all__ = ["NatsLoop", "Refused", "StreamBounds"]

#: The first pause between two connections, and the longest.
_PAUSE_S, _PAUSE_S_MAX = 0.1, 5.0
#: Longest wait for one server to take us, and for one answer of JetStream.
_CONNECT_S, _ANSWER_S = 5, 5.0
#: A server that answers none of this many PINGs, this far apart, is lost.
_PING_S, _PINGS = 2, 2
#: How often it is looked whether a connection has ended without a word.
_LOOK_S = 0.5
#: For how long JetStream remembers ids; a message that comes again later is known by the ledger.
_DUPLICATES_S = 120.0
#: Longest wait on close for the work under way.
_CLOSE_S = 5.0
#: What JetStream says when servers or room are missing now and may be there soon: no peers to place
#: replicas on, no leader, no storage.
_PASSING = {10005, 10008, 10023, 10028, 10047}


class Refused(Exception):
    """The servers will never do as asked; the text says what."""


class StreamBounds:
    """What a stream is made with, if there is none.

    Attributes:
        replicas: servers that keep each message.
        messages_max: then producers wait.
        bytes_max: then producers wait.
    """

    def __init__(self, replicas: int, messages_max: int, bytes_max: int) -> None:
        self.replicas, self.messages_max, self.bytes_max = replicas, messages_max, bytes_max


class NatsLoop:
    """Keeps a connection, and runs `work` on each, from `start` until closed.

    Args:
        url: where, and of which stream.
        name: of this peer, for the servers.
        bounds: of the stream, if it must be made.
        work: runs as long as a connection lasts; it is cancelled when that ends.

    Attributes:
        fault: why there is no connection; empty when there is one.
        refused: whether there never will be one.
        connections: made so far.
        changed: guards everything that both threads touch, and tells of results.
        error: what ended the work for good; `wait` raises it in the owner's thread.
    """

    def __init__(
        self,
        url: NatsUrl,
        *,
        name: str,
        bounds: StreamBounds,
        work: Callable[[Client, JetStreamContext], Awaitable[None]],
    ) -> None:
        self._url, self._name, self._bounds, self._work = url, name, bounds, work
        self._servers = itertools.cycle(random.sample(url.servers, len(url.servers)))
        self._log = log.get(engine=url.shown)
        self._closed_by_peer = asyncio.Event()
        self._last_error = ""
        self._woken = False
        self.fault = "not connected yet"
        self.refused = False
        self.connections = 0
        self.changed = threading.Condition()
        self.error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._task: asyncio.Task[None] | None = None
        self._thread = threading.Thread(target=self._run, name="nats", daemon=True)

    # Called from the owner's thread.

    def start(self) -> None:
        """Begin. Not done by `__init__`: `work` may use what its owner has not yet set by then."""
        self._thread.start()

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Have the loop call this soon; nothing happens once it is closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function, *args)

    def wait(self, has_result: Callable[[], bool], timeout_s: float) -> None:
        """Wait until there is a result, `wake` is called, or the time is over."""
        with self.changed:
            self.changed.wait_for(lambda: has_result() or self._woken, timeout_s)
            self._woken = False
        if self.error is not None:
            raise self.error

    def wake(self) -> None:
        """Make `wait` return; callable from any thread."""
        with self.changed:
            self._woken = True
            self.changed.notify_all()

    def finish(self, is_done: Callable[[], bool]) -> None:
        """Wait, within the limit of a close and as long as there is a connection."""
        with self.changed:
            self.changed.wait_for(lambda: is_done() or bool(self.fault), _CLOSE_S)

    def close(self) -> None:
        """End the connection and the thread."""
        self.call(self._cancel)
        self._thread.join(_CLOSE_S)

    # The loop's thread.

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        self._task = self._loop.create_task(self._stay())
        try:
            self._loop.run_until_complete(asyncio.wait({self._task}))
            if not self._task.cancelled() and (error := self._task.exception()):
                # A fault of ours: the owner must hear of it, not wait for ever.
                self.error = error
                self.wake()
            for task in asyncio.all_tasks(self._loop):
                task.cancel()
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()

    async def _stay(self) -> None:
        pause_s = _PAUSE_S
        while True:
            try:
                await self._once()
            except Refused as error:
                self._note(str(error), refused=True)
                return
            except (OSError, nats.errors.Error, TimeoutError) as error:
                if isinstance(error, nats.errors.AuthorizationError):
                    self._note("the server does not know this user", refused=True)
                    return
                self._note(self._last_error or str(error) or type(error).__name__)
            else:
                pause_s = _PAUSE_S
            if self.error is not None:
                return
            await asyncio.sleep(pause_s * random.uniform(0.5, 1))
            pause_s = min(2 * pause_s, _PAUSE_S_MAX)

    async def _once(self) -> None:
        """Connect to the next server, see to the stream, work until the connection ends."""
        client = Client()
        self._closed_by_peer.clear()
        self._last_error = ""
        try:
            await asyncio.wait_for(self._connect(client), _CONNECT_S)
            stream = client.jetstream(timeout=_ANSWER_S)
            await self._ensure(stream)
            self._note("")
            work = asyncio.ensure_future(self._work(client, stream))
            ended = asyncio.ensure_future(self._end(client))
            try:
                await asyncio.wait({work, ended}, return_when=asyncio.FIRST_COMPLETED)
                if work.done():
                    work.result()
            finally:
                ended.cancel()
                work.cancel()
                await asyncio.gather(work, ended, return_exceptions=True)
            self._note(self._last_error or "the connection was lost")
        finally:
            with contextlib.suppress(Exception):
                await client.close()
            if client._transport is not None:  # it is open still when the closing failed: see _end
                client._transport.close()  # type: ignore[no-untyped-call] # nats-py

    async def _end(self, client: Client) -> None:
        """Wait for the connection's end.

        Its callbacks tell at once. But nats-py never calls them when its own closing fails halfway,
        as when the server was killed while something was to be written.
        """
        while not (client.is_closed or self._closed_by_peer.is_set()):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed_by_peer.wait(), _LOOK_S)

    async def _connect(self, client: Client) -> None:
        async def note(error: Exception) -> None:
            self._last_error = str(error) or type(error).__name__

        async def ended() -> None:
            self._closed_by_peer.set()

        await client.connect(
            servers=[next(self._servers)],
            name=self._name,
            allow_reconnect=False,
            # One more than that is tried, with this pause; the pauses that grow are ours.
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=2,
            ping_interval=_PING_S,
            max_outstanding_pings=_PINGS,
            error_cb=note,
            disconnected_cb=ended,
            closed_cb=ended,
            user=self._url.user or None,
            password=self._url.password or None,
        )

    async def _ensure(self, stream: JetStreamContext) -> None:
        """See to it that the stream is there and is one of ours.

        Raises:
            Refused: it is another's, or cannot be made.
        """
        try:
            try:
                info = await stream.stream_info(self._url.stream)
            except nats.js.errors.NotFoundError:
                info = await self._make(stream)
        except nats.js.errors.APIError as error:
            said = error.description or str(error)
            if error.code in {408, 503} or error.err_code in _PASSING:
                raise nats.errors.Error(f"stream {self._url.stream}: {said}") from error
            raise Refused(f"stream {self._url.stream}: {said}") from error
        config = info.config
        if (
            config.retention != api.RetentionPolicy.WORK_QUEUE
            or config.discard != api.DiscardPolicy.NEW
            or config.subjects != [self._url.subjects]
        ):
            raise Refused(
                f"stream {self._url.stream} is not telemq's: it must have work-queue retention, "
                f"discard new, and the subject {self._url.subjects}"
            )

    async def _make(self, stream: JetStreamContext) -> api.StreamInfo:
        try:
            info = await stream.add_stream(self._config())
        except nats.js.errors.APIError:
            # Another may have made it in this moment, and the room for a second one is not there.
            with contextlib.suppress(nats.js.errors.NotFoundError):
                return await stream.stream_info(self._url.stream)
            raise
        self._log.info("stream made", replicas=self._bounds.replicas)
        return info

    def _config(self) -> api.StreamConfig:
        return api.StreamConfig(
            name=self._url.stream,
            subjects=[self._url.subjects],
            retention=api.RetentionPolicy.WORK_QUEUE,
            storage=api.StorageType.FILE,
            discard=api.DiscardPolicy.NEW,
            num_replicas=self._bounds.replicas,
            max_msgs=self._bounds.messages_max,
            max_bytes=self._bounds.bytes_max,
            duplicate_window=_DUPLICATES_S,
        )

    def _note(self, fault: str, *, refused: bool = False) -> None:
        if fault and fault != self.fault:
            self._log.warning("session lost", reason=fault)
        elif not fault:
            self._log.info("session open")
        with self.changed:
            self.connections += not fault
            self.fault, self.refused = fault, refused
            self.changed.notify_all()
