"""Live updates: one follower of the log in this process, however many browsers look on.

    log ──follow──> ring of the newest events ──┬─> client at its own position ──> text/event-stream
                                                └─> ...
    a client from further back ──> pages of the audit log, until the ring has what follows

A client owns nothing but a position, so it cannot make the server buffer for it. The surprising rule: who reads too
slowly for the ring is not cut off, but becomes one from further back, and catches up by pages like any other.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import structlog

from domain.message import Recorded
from projections.audit_log import EventFilter, list_events
from projections.projection import Read
from web.services import Log

RING_EVENTS = 4096
KEEP_ALIVE_S = 15.0
PAGE_EVENTS = 500
MAX_CLIENTS = 1000
"""Streams open at once in one process; each holds a socket and a task."""
RESTART_DELAY_S = 1.0

_log = structlog.get_logger()


class LiveEvents:
    """Follows the log and wakes whoever waits. `run` is a task of the application's life."""

    def __init__(self, log: Log) -> None:
        self._source = log
        self._ring: list[Recorded] = []
        self._news = asyncio.Event()
        self._begun = asyncio.Event()
        self._closed = False
        self.position = 0
        self.clients = 0

    async def run(self) -> None:
        """Follows for ever, through any trouble of the log."""
        while not self._closed:
            try:
                await self._follow()
            except Exception as error:  # noqa: BLE001 - whatever it was, the browsers' news must go on
                _log.warning("live_follow_interrupted", error=repr(error), position=self.position)
                await asyncio.sleep(RESTART_DELAY_S)

    async def _follow(self) -> None:
        if not self._begun.is_set():
            self.position = await self._source.head()
            self._begun.set()
        async with self._source.follow(after=self.position) as batches:
            async for batch in batches:
                self._take(list(batch))

    def _take(self, batch: list[Recorded]) -> None:
        self._ring = (self._ring + batch)[-RING_EVENTS:]
        self.position = batch[-1].position
        self._news.set()
        self._news = asyncio.Event()

    def close(self) -> None:
        """Ends every stream, so that the server can stop without waiting for its browsers."""
        self._closed = True
        self._news.set()

    @property
    def closed(self) -> bool:
        return self._closed

    async def begun(self) -> None:
        await self._begun.wait()

    def newer(self, position: int) -> list[Recorded] | None:
        """What came after `position`; None when the ring does not reach back so far."""
        first = self.position - len(self._ring) + 1
        return self._ring[position - first + 1 :] if position >= first - 1 else None

    async def wait(self, position: int) -> bool:
        """True when there is something after `position`; False after KEEP_ALIVE_S of silence, or when closed."""
        news = self._news
        if self.position > position:
            return True
        try:
            await asyncio.wait_for(news.wait(), KEEP_ALIVE_S)
        except TimeoutError:
            return False
        return self.position > position


def _hello(position: int) -> bytes:
    return b"event: hello\ndata: " + msgspec.json.encode({"position": position}) + b"\n\n"


def envelope_json(recorded: Recorded) -> bytes:
    """The stored envelope, its position put in front; on one line, as the codec wrote it."""
    return b'{"position":%d,' % recorded.position + recorded.payload[1:]


def _sse(recorded: Recorded) -> bytes:
    name = recorded.envelope.type.encode()
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (recorded.position, name, envelope_json(recorded))


async def event_stream(
    live: LiveEvents,
    read: Read,
    *,
    after: int | None,
    organization_id: str,
    still_allowed: Callable[[], Awaitable[bool]],
) -> AsyncIterator[bytes]:
    """The bytes of one client's stream.

    Args:
        live: this process's follower.
        read: for the past, which lies in the audit log.
        after: the last position the client has; None means from now on.
        organization_id: only its events; empty means all.
        still_allowed: asked every KEEP_ALIVE_S; a revoked session ends its stream.
    """
    await live.begun()
    position = live.position if after is None else after
    now = asyncio.get_running_loop().time
    checked_at = now()
    live.clients += 1
    try:
        yield _hello(position)
        while not live.closed:
            events, position = await _next(live, read, organization_id, position)
            if now() - checked_at >= KEEP_ALIVE_S:
                checked_at = now()
                if not await still_allowed():
                    return
            if events is None:
                yield b": keep-alive\n\n"
            elif events:
                yield b"".join(map(_sse, events))
    except OSError as error:
        _log.info("live_stream_ended", error=str(error))
    finally:
        live.clients -= 1


async def _next(live: LiveEvents, read: Read, organization_id: str, position: int) -> tuple[list[Recorded] | None, int]:
    """The organisation's next events and the position up to which nothing is missing; None after a silence."""
    if not await live.wait(position):
        return None, position
    news = live.newer(position)
    if news is None:
        return await _page(read, organization_id, position, live.position)
    news = news[:PAGE_EVENTS]
    return [r for r in news if organization_id in {"", r.envelope.organization}], news[-1].position


async def _page(read: Read, organization_id: str, position: int, head: int) -> tuple[list[Recorded], int]:
    """The next page from further back, and the position up to which nothing is missing now."""
    async with read("audit_log", position=head) as connection:
        wanted = EventFilter(organization_id=organization_id)
        page = await list_events(connection, wanted, after=position, limit=PAGE_EVENTS)
    last = page[-1].position if page else position
    return page, last if len(page) == PAGE_EVENTS else max(head, last)
