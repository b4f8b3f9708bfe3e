"""What the agent learns of an engine that speaks vLLM's HTTP, and of one that says less."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import msgspec
import pytest
from aiohttp import web

from agent.child import Child
from agent.engine import ChildEngine, EngineCommand, Milestones
from agent.event_log import RotatingFile
from agent.protocol import MAX_PATHS
from tests.agent.stand_in import MODEL, free_port


@asynccontextmanager
async def probing(
    folder: Path, description: tuple[int, bytes], listed: object
) -> AsyncIterator[tuple[ChildEngine, list[str]]]:
    """An engine, and the paths that were asked of it."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        if request.path == "/v1/models":
            return web.Response(body=msgspec.json.encode({"data": [listed]}))
        status, body = description
        return web.Response(status=status, body=body)

    app, port = web.Application(), free_port()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    url = f"http://127.0.0.1:{port}"
    log = RotatingFile(folder / "engine.log")
    child = Child(pid_file=folder / "engine.pid", log=log)
    command = EngineCommand((), {})
    try:
        async with aiohttp.ClientSession() as http:
            yield (
                ChildEngine(command, child, http, model_id=MODEL, url=url, metrics_url=f"{url}/metrics", warmup=False),
                asked,
            )
    finally:
        log.close()
        await runner.cleanup()


def described(*paths: str, method: str = "post") -> tuple[int, bytes]:
    return 200, msgspec.json.encode({"openapi": "3.1.0", "paths": {path: {method: {"x": []}} for path in paths}})


async def test_what_the_engine_answers_is_asked_once_when_the_model_is_loaded(tmp_path: Path) -> None:
    async with probing(tmp_path, described("/v1/score", "/v1/embeddings"), {"id": MODEL, "max_model_len": 4096}) as (
        engine,
        asked,
    ):
        first = await engine.probe(Milestones())
        assert (first.loaded, first.paths, first.context_tokens) == (True, ("/v1/embeddings", "/v1/score"), 4096)
        assert await engine.probe(first) == first
    assert asked.count("/openapi.json") == 1


@pytest.mark.parametrize(
    "description",
    [
        (404, b""),
        (200, b"<html>"),
        (200, b"[]"),
        (200, b'{"paths":7}'),
        (200, b'{"openapi":"3"}'),
        described("/v1/models", method="get"),
    ],
)
async def test_an_engine_that_does_not_say_is_served_all_the_same(
    tmp_path: Path, description: tuple[int, bytes]
) -> None:
    async with probing(tmp_path, description, {"id": MODEL}) as (engine, _):
        found = await engine.probe(Milestones())
    assert (found.loaded, found.warm, found.paths, found.context_tokens) == (True, True, (), 0)


async def test_no_report_grows_with_what_an_engine_says(tmp_path: Path) -> None:
    async with probing(tmp_path, described(*(f"/{n}" for n in range(3 * MAX_PATHS))), {"id": MODEL}) as (engine, _):
        assert len((await engine.probe(Milestones())).paths) == MAX_PATHS


async def test_an_engine_with_another_model_is_asked_nothing_more(tmp_path: Path) -> None:
    async with probing(tmp_path, described("/v1/score"), {"id": "other"}) as (engine, asked):
        assert await engine.probe(Milestones()) == Milestones(up=True)
    assert asked == ["/v1/models"]
