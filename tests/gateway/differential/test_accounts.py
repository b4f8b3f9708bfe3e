"""A stream that its client left is booked as the engine itself counted it, whatever language it was in."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Any

import aiohttp
import pytest

from agent.simulated_engine import Behaviour, start_server
from domain.usage import UsageRecord
from tests.agent.stand_in import free_port
from tests.gateway.routing import MODEL, key, ready, routing
from tests.gateway.scripted_engine import BOUND_S
from tests.gateway.served import Served, served, until

STREAMS = 20
TOKENS = 400
PACED = Behaviour(startup_s=0, first_token_ms=0, tokens_per_s=400)
SAID = [{"role": "user", "content": "hi"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": SAID, "max_tokens": TOKENS},
    "/v1/completions": {"prompt": "hi", "max_tokens": TOKENS},
    "/v1/responses": {"input": "hi", "max_output_tokens": TOKENS},
    "/v1/messages": {"messages": SAID, "max_tokens": TOKENS},
}


@dataclass(frozen=True)
class Sides:
    engine_url: str
    gateway: Served

    async def leave(self, path: str, after_lines: int, **more: Any) -> None:
        """Reads so many lines of an endless stream, and goes away."""
        body = {"model": MODEL, "stream": True, "ignore_eos": True, **BODIES[path], **more}
        async with self.gateway.client() as client, client.post(path, json=body) as reply:
            for _ in range(after_lines):
                await reply.content.readline()

    async def entry(self, record: UsageRecord) -> dict[str, Any]:
        """The engine's own count, once it has stopped."""
        async with aiohttp.ClientSession(self.engine_url) as client, asyncio.timeout(BOUND_S):
            while True:
                async with client.get(f"/simulated/requests/{record.request_id}") as reply:
                    entry: dict[str, Any] = json.loads(await reply.read())
                if entry["ended"]:
                    return entry
                await asyncio.sleep(0.005)


@pytest.fixture
async def sides() -> AsyncIterator[Sides]:
    port = free_port()
    runner = await start_server(MODEL, PACED, host="127.0.0.1", port=port)
    url = f"http://127.0.0.1:{port}"
    try:
        async with served(routing(key(), ready("i1", url))) as gateway:
            yield Sides(url, gateway)
    finally:
        await runner.cleanup()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("path", BODIES)
async def test_streams_left_at_any_moment_are_booked_as_the_engine_counted(sides: Sides, path: str) -> None:
    draw = Random(7)
    await asyncio.gather(*(sides.leave(path, draw.randint(1, 200)) for _ in range(STREAMS)))
    await until(lambda: len(sides.gateway.usage) >= STREAMS)
    records = sides.gateway.usage
    entries = [await sides.entry(record) for record in records]
    assert len({record.request_id for record in records}) == len(records) == STREAMS
    assert {record.outcome for record in records} == {"client_left"}
    assert {entry["ended"] for entry in entries} == {"abort"}
    booked = [record.completion_tokens for record in records]
    assert booked == [entry["completion_tokens"] for entry in entries]
    if path != "/v1/responses":  # which tells of its prompt only at its end
        assert [record.prompt_tokens for record in records] == [entry["prompt_tokens"] for entry in entries]


async def test_two_answers_left_together_are_both_booked(sides: Sides) -> None:
    await sides.leave("/v1/chat/completions", 30, n=2)
    (record,) = await sides.gateway.recorded()
    entry = await sides.entry(record)
    assert record.completion_tokens == entry["completion_tokens"] > 2
    assert record.prompt_tokens == entry["prompt_tokens"]
