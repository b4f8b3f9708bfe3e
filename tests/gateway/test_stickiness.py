"""The same conversation meets the same engine, through the real gateway; others are spread."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tests.gateway.routing import MODEL, draining, entries, key, ready, routing
from tests.gateway.scripted_engine import ScriptedEngine, echo
from tests.gateway.served import Served, served

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
REQUESTS = 6
LONG = "You are a helpful assistant. " * 200


@asynccontextmanager
async def three_workers() -> AsyncIterator[tuple[Served, list[ScriptedEngine]]]:
    async with ScriptedEngine(echo) as one, ScriptedEngine(echo) as two, ScriptedEngine(echo) as three:
        engines = [one, two, three]
        workers = (ready(f"i{number}", engine.url) for number, engine in enumerate(engines))
        async with served(routing(key(), *workers)) as gateway:
            yield gateway, engines


async def asked(gateway: Served, *bodies: object, session: str = "") -> None:
    headers = {"x-inventiv-session": session} if session else {}
    async with gateway.client() as client:
        for body in bodies:
            async with client.post(CHAT, json=body, headers=headers) as reply:
                assert reply.status == 200


def counts(engines: list[ScriptedEngine]) -> list[int]:
    return sorted(len(engine.asked) for engine in engines)


async def test_a_session_stays_with_its_worker() -> None:
    async with three_workers() as (gateway, engines):
        await asked(gateway, *[ASK] * REQUESTS, session="s1")
        assert counts(engines) == [0, 0, REQUESTS]


async def test_without_a_session_short_requests_are_spread() -> None:
    """The control."""
    async with three_workers() as (gateway, engines):
        await asked(gateway, *[ASK] * REQUESTS)
        assert counts(engines) == [REQUESTS // 3] * 3


async def test_many_sessions_are_spread() -> None:
    async with three_workers() as (gateway, engines):
        for number in range(30):
            await asked(gateway, ASK, session=f"s{number}")
        assert counts(engines)[0] >= 3


async def test_a_conversation_with_a_long_beginning_stays_while_it_grows() -> None:
    turns = [{"role": "system", "content": LONG}]
    bodies = []
    for number in range(REQUESTS):
        turns = [*turns, {"role": "user", "content": f"question {number}"}]
        bodies.append({"model": MODEL, "messages": turns, "temperature": number / 10})
    async with three_workers() as (gateway, engines):
        await asked(gateway, *bodies)
        assert counts(engines) == [0, 0, REQUESTS]


async def test_a_session_moves_when_its_worker_drains() -> None:
    async with three_workers() as (gateway, engines):
        await asked(gateway, ASK, session="s1")
        [number] = [number for number, engine in enumerate(engines) if engine.asked]
        for entry in entries(draining(f"i{number}"), after=gateway.table.position):
            gateway.table.apply(entry)
        await asked(gateway, *[ASK] * REQUESTS, session="s1")
        assert counts(engines) == [0, 1, REQUESTS]
