"""Limits and the queue over real sockets: what clients are told when there is no room, and when their turn comes."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI, RateLimitError

from domain.limits import OrganizationLimits
from domain.organization import OrganizationLimitsChanged
from tests.examples import ACME
from tests.gateway.routing import CLEAR_KEY, MODEL, Said, deployed, entries, key, ready, routing, scoped
from tests.gateway.scripted_engine import Line, ScriptedEngine, echo
from tests.gateway.served import served, until

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


class Slow:
    """An engine's script that answers when it is told to."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    async def __call__(self, line: Line) -> None:
        await self.go_on.wait()
        await echo(line)


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine(echo) as running:
        yield running


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def busy(slow: Slow) -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine(slow) as running:
        yield running


def limited(**limits: int) -> list[Said]:
    """The organisation's limits."""
    return [(ACME, ACME, OrganizationLimitsChanged(limits=OrganizationLimits(**limits)))]


async def statuses(replies: Sequence[asyncio.Future[aiohttp.ClientResponse]]) -> list[int]:
    return [(await reply).status for reply in replies]


def ask(client: aiohttp.ClientSession, **headers: str) -> asyncio.Future[aiohttp.ClientResponse]:
    return asyncio.ensure_future(client.post(CHAT, json=ASK, headers=headers))


async def test_openais_client_is_told_its_limits_and_when_to_come_back(engine: ScriptedEngine) -> None:
    table = routing(scoped(requests_per_minute=2), limited(tokens_per_minute=100_000), ready("i1", engine.url))
    async with (
        served(table) as gateway,
        AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=CLEAR_KEY, max_retries=0) as client,
    ):
        create = client.chat.completions.with_raw_response.create
        first = await create(**ASK)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert first.headers["x-ratelimit-reset-requests"] == "1m0s"
        await create(**ASK)
        with pytest.raises(RateLimitError) as refused:
            await create(**ASK)
        assert refused.value.code == "rate_limit_exceeded"
        assert 1 <= int(refused.value.response.headers["retry-after"]) <= 61
        settled = gateway.limits.shared.tallies[ACME].tokens
        used = sum(record.prompt_tokens + record.completion_tokens for record in await gateway.recorded(2))
    assert settled == used, "what was reserved beyond is given back"


async def test_an_answer_is_no_longer_than_policy_allows(engine: ScriptedEngine) -> None:
    table = routing(key(), limited(max_completion_tokens=50), ready("i1", engine.url))
    async with served(table) as gateway, gateway.client() as client:
        for asked in ({}, {"max_tokens": 500}, {"max_completion_tokens": 500}, {"max_tokens": 7}):
            async with client.post(CHAT, json={**ASK, **asked}) as reply:
                assert (reply.status, reply.headers["x-inventiv-max-tokens"]) == (200, "50")
    sent = [one.json.get("max_completion_tokens") or one.json.get("max_tokens") for one in engine.asked]
    assert sent == [50, 50, 50, 7]


async def test_who_finds_every_worker_busy_waits_for_one(busy: ScriptedEngine, slow: Slow) -> None:
    table = routing(key(), ready("i1", busy.url))
    async with served(table, requests_per_gpu=1) as gateway, gateway.client() as client:
        replies = [ask(client) for _ in range(3)]
        await until(lambda: len(busy.asked) == 1)
        await asyncio.wait(replies, timeout=0.2)
        assert len(busy.asked) == 1
        slow.go_on.set()
        assert await statuses(replies) == [200, 200, 200]
        records = await gateway.recorded(3)
    assert sorted(record.queue_ms > 100 for record in records) == [False, True, True]


async def test_who_will_not_wait_is_refused_at_once(busy: ScriptedEngine, slow: Slow) -> None:
    table = routing(key(), ready("i1", busy.url))
    async with served(table, requests_per_gpu=1) as gateway, gateway.client() as client:
        running = ask(client)
        await until(lambda: len(busy.asked) == 1)
        async with client.post(CHAT, json=ASK, headers={"x-inventiv-max-wait": "0"}) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (503, "no_ready_worker")
            assert "retry-after" in refused.headers
        async with client.post(CHAT, json=ASK, headers={"x-inventiv-max-wait": "0.3"}) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (503, "queue_timeout")
        slow.go_on.set()
        assert (await running).status == 200
        await gateway.recorded(1)
    assert len(gateway.usage) == 1


async def test_with_no_worker_at_all_only_who_asks_to_waits(engine: ScriptedEngine) -> None:
    table = routing(key(), deployed())
    async with served(table) as gateway, gateway.client() as client:
        async with client.post(CHAT, json=ASK) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (503, "no_ready_worker")
        reply = ask(client, **{"x-inventiv-max-wait": "30"})
        await asyncio.wait([reply], timeout=0.2)
        assert not reply.done()
        for entry in entries(ready("i1", engine.url), after=table.position):
            table.apply(entry)
        assert (await reply).status == 200


async def test_a_ticket_tells_its_owner_where_it_stands(busy: ScriptedEngine, slow: Slow) -> None:
    table = routing(scoped(concurrency=3), ready("i1", busy.url))
    async with served(table, requests_per_gpu=1) as gateway, gateway.client() as client:
        running = ask(client)
        await until(lambda: len(busy.asked) == 1)
        before, mine = ask(client), ask(client, **{"x-inventiv-ticket": "job-1", "x-inventiv-priority": "low"})

        async def told() -> dict[str, Any]:
            async with client.get("/v1/queue/job-1") as reply:
                assert reply.status == 200
                return dict(await reply.json())

        await until(lambda: gateway.limits.open == 3)
        standing = await told()
        assert (standing["state"], standing["position"], standing["waiting"]) == ("waiting", 2, 2)
        assert standing["model"] == MODEL
        slow.go_on.set()
        assert await statuses([running, before, mine]) == [200, 200, 200]
        assert (await told())["state"] == "unknown"


async def test_a_client_that_leaves_while_it_waits_gives_everything_back(busy: ScriptedEngine, slow: Slow) -> None:
    table = routing(scoped(concurrency=2), ready("i1", busy.url))
    async with served(table, requests_per_gpu=1) as gateway, gateway.client() as client:
        running = ask(client)
        await until(lambda: len(busy.asked) == 1)
        waiting = ask(client)
        await until(lambda: gateway.limits.open == 2)
        async with client.post(CHAT, json=ASK) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (429, "concurrency_limit_exceeded")
        waiting.cancel()
        await until(lambda: gateway.limits.open == 1)
        slow.go_on.set()
        assert (await running).status == 200
        await gateway.recorded(1)
        await until(lambda: gateway.limits.open == 0)
    assert len(busy.asked) == 1
    assert gateway.limits.dropped == 0


async def test_headers_that_cannot_be_meant_are_refused_when_it_comes_to_waiting(
    busy: ScriptedEngine, slow: Slow
) -> None:
    table = routing(key(), ready("i1", busy.url))
    async with served(table, requests_per_gpu=1) as gateway, gateway.client() as client:
        running = ask(client)
        await until(lambda: len(busy.asked) == 1)
        async with client.post(CHAT, json=ASK, headers={"x-inventiv-priority": "urgent"}) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (400, "invalid_priority")
        slow.go_on.set()
        assert (await running).status == 200
    assert gateway.limits.open == 0


async def test_what_costs_more_than_is_left_is_refused(engine: ScriptedEngine) -> None:
    table = routing(scoped(spend_limit_eur_micros=1), ready("i1", engine.url))
    async with served(table) as gateway, gateway.client() as client:
        async with client.post(CHAT, json=ASK) as reply:
            assert reply.status == 200, "an own model costs nothing"
        assert gateway.limits.spend.by_key("k1") == 0
