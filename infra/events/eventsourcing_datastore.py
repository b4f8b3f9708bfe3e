"""Blocking calls from any thread into our async core, for the `eventsourcing` library, whose interface is synchronous.

    recorder (any thread) ── call(coroutine) ──> event loop in a thread of its own ──> two connections to NATS

The one door where our errors become the library's. The surprising rule: nobody has to close it. The library drops the
factory of a projection's view and keeps its recorder, so the thread ends with the last object that can use it.
"""

import asyncio
import contextlib
import threading
import weakref
from collections.abc import Coroutine
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from typing import Any, TypeVar

import nats.errors
import structlog
from eventsourcing.persistence import DataError, InterfaceError, InternalError, OperationalError
from nats.aio.client import Client

from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.eventsourcing_store import StreamStore
from infra.events.eventsourcing_streams import ensure_stream, stream_name
from infra.events.jetstream import REPLY_TIMEOUT_S, RETRY_BUDGET_S, JetStreamLog
from infra.events.port import AppendRefusedError, GapError, LogUnavailableError, UnreadableMessageError
from infra.events.reads import ApiError

_log = structlog.get_logger(__name__)

T = TypeVar("T")

CALL_BUDGETS = 4
"""A call may spend its budget on each of: connecting, looking, appending, looking again; then something hangs."""
CLOSE_TIMEOUT_S = 5.0
_CLOSED = "this factory is closed"


@dataclass(frozen=True)
class Settings:
    """How a datastore reaches its streams.

    Attributes:
        url: nats://user:password@host:port, several separated by commas. A secret: not shown.
        prefix: of stream names.
        replicas: copies of a stream that is created.
        creates_streams: whether missing streams are created, which the user of `url` must be allowed to.
        timeout_s: how long one operation is tried while the server is away or a leader is being elected.
    """

    url: str
    prefix: str = "ES"
    replicas: int = 1
    creates_streams: bool = True
    timeout_s: float = RETRY_BUDGET_S

    def __repr__(self) -> str:
        return f"Settings({self.prefix!r}, replicas={self.replicas}, timeout_s={self.timeout_s})"


class JetStreamDatastore:
    """An event loop in a thread, its connections, and the streams opened on them. Starts with the first call."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._closed = False
        self._running: _Running | None = None
        self._stores: dict[str, StreamStore] = {}

    def open(self, application_name: str, purpose: str = "events") -> StreamStore:
        """The stream of an application, created when it is missing.

        Raises:
            ProgrammingError: it is missing and must not be created, or its settings would lose events.
            OperationalError, InterfaceError: see call.
        """
        return self.call(self._open(application_name, purpose))

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the loop, and waits for it, bounded by the settings' timeout_s.

        Raises:
            OperationalError: the server is away, or what became of a write is unknown.
            DataError: the server can never store this.
            InternalError: messages are missing from the stream, or are not ours.
            InterfaceError: closed.
        """
        return self.wait(self.submit(coroutine), self._settings.timeout_s * CALL_BUDGETS)

    def wait(self, future: "Future[T]", timeout_s: float | None) -> T:
        """Waits for what was submitted; with None until it is cancelled or the datastore closed. Raises as call."""
        try:
            return future.result(timeout_s)
        except BaseException as error:
            future.cancel()
            _raise_translated(error)
            raise

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> "Future[T]":
        """Starts a coroutine on the loop.

        Raises:
            InterfaceError: closed.
        """
        with self._lock:
            if self._closed:
                coroutine.close()
                raise InterfaceError(_CLOSED)
            if self._running is None:
                self._running = _Running()
                weakref.finalize(self, self._running.stop)
            return asyncio.run_coroutine_threadsafe(coroutine, self._running.loop)

    async def writer(self) -> Client:
        """For appends and reads."""
        return await self._client("writer")

    async def reader(self) -> Client:
        """For following."""
        return await self._client("reader")

    def close(self) -> None:
        """Disconnects and ends the thread; calls under way fail. Safe to repeat."""
        with self._lock:
            self._closed = True
            running, self._running = self._running, None
        if running is not None:
            running.stop()
            running.join()

    async def _open(self, application_name: str, purpose: str) -> StreamStore:
        stream = stream_name(self._settings.prefix, application_name, purpose)
        if stream not in self._stores:
            client, timeout_s = await self.writer(), self._settings.timeout_s
            async with asyncio.timeout(timeout_s):
                await ensure_stream(
                    client, stream, replicas=self._settings.replicas, creating=self._settings.creates_streams
                )
            log = JetStreamLog(
                client, stream, reply_timeout_s=min(REPLY_TIMEOUT_S, timeout_s), retry_budget_s=timeout_s
            )
            self._stores[stream] = StreamStore(log, stream)
        return self._stores[stream]

    async def _client(self, kind: str) -> Client:
        running = self._running
        if running is None:
            raise InterfaceError(_CLOSED)
        async with running.connecting:
            clients = running.clients
            if kind not in clients:
                connect = connect_writer if kind == "writer" else connect_reader
                async with asyncio.timeout(self._settings.timeout_s):
                    clients[kind] = await connect(self._settings.url, f"eventsourcing-{kind}")
            return clients[kind]


class _Running:
    """The thread, its loop and connections. Knows nothing of the datastore, so that it can be ended with it."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.connecting = asyncio.Lock()
        self.clients: dict[str, Client] = {}
        self._thread = threading.Thread(target=self._run, name="eventsourcing-jetstream", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Asks the thread to end; from any thread, for a finalizer may run in its own."""
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.loop.stop)

    def join(self) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(2 * CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._end())
        finally:
            self.loop.close()

    async def _end(self) -> None:
        for client in self.clients.values():
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await disconnect(client)
            except (OSError, nats.errors.Error) as error:
                _log.warning("eventsourcing_disconnect_failed", error=repr(error))
        if tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=CLOSE_TIMEOUT_S)
        await self.loop.shutdown_asyncgens()


def _raise_translated(error: BaseException) -> None:
    """Raises the library's error for one of ours; returns when it is none of ours."""
    match error:
        case CancelledError() | asyncio.CancelledError() | nats.errors.ConnectionClosedError():
            raise InterfaceError(_CLOSED) from error
        case AppendRefusedError():
            raise DataError(str(error)) from error
        case GapError() | UnreadableMessageError():
            raise InternalError(str(error)) from error
        case TimeoutError():
            raise OperationalError("NATS did not answer in time; a write may be stored or not") from error
        case LogUnavailableError() | ApiError() | nats.errors.Error() | OSError():
            raise OperationalError(str(error) or repr(error)) from error
        case _:
            return
