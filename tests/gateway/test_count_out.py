"""A client that left, told to engines by a half-close: they stop, and every event they had written is told."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from aiohttp import web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from gateway.calls import Calls
from gateway.origin import origin_of
from tests.gateway.scripted_engine import BOUND_S
from tests.gateway.told import Told, over, request_to, until

ON_BOTH_LOOPS = True
AT_ONCE_S = 0.5
"""A few milliseconds on an idle machine."""
PAD = b"." * 2000


@dataclass
class Generating:
    """An engine's handler: event after event until it is cancelled.

    Attributes:
        written: events whose sending returned.
        cancelled_s: when it ended.
    """

    pause_s: float = 0.002
    written: list[bytes] = field(default_factory=list)
    cancelled_s: float | None = None

    async def events(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                event = b"data: %d %s\n\n" % (len(self.written), PAD)
                yield event
                self.written.append(event)
                await asyncio.sleep(self.pause_s)
        finally:
            self.cancelled_s = time.monotonic()


@asynccontextmanager
async def on_aiohttp(generating: Generating) -> AsyncIterator[str]:
    """As `agent/simulated_engine.py` serves."""

    async def chat(request: web.Request) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await reply.prepare(request)
        async with aclosing(generating.events()) as events:
            async for event in events:
                await reply.write(event)
        return reply

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def on_uvicorn(generating: Generating) -> AsyncIterator[str]:
    """As vLLM serves: Starlette's StreamingResponse on uvicorn with httptools."""

    async def chat(_request: Request) -> StreamingResponse:
        return StreamingResponse(generating.events(), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
    config = uvicorn.Config(app, http="httptools", lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpToolsProtocol(config, state, {}), "127.0.0.1", 0
    )
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        if state.tasks:
            await asyncio.wait(state.tasks, timeout=BOUND_S)
        await server.wait_closed()


Serve = Callable[[Generating], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def streaming(serve: Serve, generating: Generating) -> AsyncIterator[tuple[Told, Any]]:
    async with serve(generating) as url:
        calls = Calls(now_s=time.monotonic, sweep_s=0.05)
        try:
            told, origin = Told(), origin_of(url)
            call = calls.begin(origin, request_to(origin), told)
            await until(lambda: len(told.pieces) > 5)
            yield told, call
        finally:
            await calls.close()


@pytest.mark.parametrize("serve", [on_uvicorn, on_aiohttp])
async def test_the_engine_stops_at_once_and_every_event_it_had_written_is_told(serve: Serve) -> None:
    generating = Generating()
    async with streaming(serve, generating) as (told, call):
        call.count_out()
        left_s = time.monotonic()
        await over(told)
        await until(lambda: generating.cancelled_s is not None)
        assert generating.cancelled_s is not None
        assert generating.cancelled_s - left_s < AT_ONCE_S
        assert told.kind == "dropped"
        assert_all_written_is_told(told, generating)


@pytest.mark.parametrize("serve", [on_uvicorn, on_aiohttp])
async def test_so_it_does_when_its_client_was_slow_and_much_lay_in_between(serve: Serve) -> None:
    generating = Generating(pause_s=0)
    async with streaming(serve, generating) as (told, call):
        call.pause()
        await until(is_stuck(generating))
        behind = len(generating.written) - len(told.data.splitlines()) // 2
        assert behind > 100
        call.count_out()
        await over(told)
        await until(lambda: generating.cancelled_s is not None)
        assert told.kind == "dropped"
        assert_all_written_is_told(told, generating)


@pytest.mark.parametrize("serve", [on_uvicorn, on_aiohttp])
async def test_leaving_instead_loses_what_was_on_its_way(serve: Serve) -> None:
    """The control: why a leaving client's stream is counted out."""
    generating = Generating(pause_s=0)
    async with streaming(serve, generating) as (told, call):
        call.pause()
        await until(is_stuck(generating))
        call.leave()
        await until(lambda: generating.cancelled_s is not None)
        assert len(told.data) < len(b"".join(generating.written)) / 2


def is_stuck(generating: Generating) -> Callable[[], bool]:
    """Holds once nothing has been written for a while."""
    seen = [(-1, 0.0)]

    def stuck() -> bool:
        now_s = time.monotonic()
        if len(generating.written) != seen[0][0]:
            seen[0] = (len(generating.written), now_s)
        return now_s - seen[0][1] > 0.1

    return stuck


def assert_all_written_is_told(told: Told, generating: Generating) -> None:
    """But for one event: uvicorn drops, and says nothing, what it is given between the client's leaving and the end."""
    written = b"".join(generating.written[:-1])
    assert told.data.startswith(written), (len(told.data), len(written))
    assert told.data[len(written) :].count(b"data: ") <= 2
