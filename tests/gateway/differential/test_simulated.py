"""The same requests to the simulated engine, directly and through the gateway: the same bytes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from agent.simulated_engine import Behaviour, start_server
from gateway.relay import Relay
from tests.agent.stand_in import free_port
from tests.gateway.differential.cases import (
    CONVERSATIONS,
    OWN_WORDS,
    POOLING,
    REFUSALS,
    Case,
    recorded,
)
from tests.gateway.differential.recorded import Recording, differences, masked
from tests.gateway.routing import MODEL, key, ready, routing
from tests.gateway.served import Served, served

QUICK = Behaviour(startup_s=0, first_token_ms=0, tokens_per_s=0, context_tokens=2048)


@dataclass(frozen=True)
class Sides:
    direct: str
    gateway: Served

    async def differences(self, case: Case) -> list[str]:
        direct = await recorded(self.direct, MODEL, case)
        return differences(direct, await recorded(self.gateway.url, MODEL, case))


@pytest.fixture
async def sides() -> AsyncIterator[Sides]:
    port = free_port()
    runner = await start_server(MODEL, QUICK, host="127.0.0.1", port=port)
    url = f"http://127.0.0.1:{port}"
    try:
        async with served(routing(key(), ready("i1", url))) as gateway:
            yield Sides(url, gateway)
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("case", "status"),
    [
        *(pytest.param(case, 200, id=name) for name, case in {**CONVERSATIONS, **POOLING}.items()),
        *(pytest.param(case, 400, id=name) for name, case in REFUSALS.items()),
    ],
)
async def test_every_byte_is_the_engines_own(sides: Sides, case: Case, status: int) -> None:
    direct = await recorded(sides.direct, MODEL, case)
    through = await recorded(sides.gateway.url, MODEL, case)
    assert differences(direct, through) == []
    assert {answer.status for answer in through} == {status}


@pytest.mark.parametrize("name", OWN_WORDS)
async def test_what_the_gateway_refuses_itself_has_the_engines_status(sides: Sides, name: str) -> None:
    direct = await recorded(sides.direct, MODEL, OWN_WORDS[name])
    through = await recorded(sides.gateway.url, MODEL, OWN_WORDS[name])
    assert [one.status for one in direct] == [one.status for one in through] == [404]


COUNTED = [
    "streamed chat",
    "streamed chat, two answers",
    "streamed completion",
    "streamed response",
    "streamed message",
]


@pytest.mark.parametrize("name", COUNTED)
async def test_what_is_booked_is_what_the_engine_counted(sides: Sides, name: str) -> None:
    await recorded(sides.gateway.url, MODEL, CONVERSATIONS[name])
    (record,) = await sides.gateway.recorded()
    async with (
        sides.gateway.client() as client,
        client.get(f"{sides.direct}/simulated/requests/{record.request_id}") as reply,
    ):
        entry = await reply.json()
    assert (record.prompt_tokens, record.completion_tokens) == (entry["prompt_tokens"], entry["completion_tokens"])
    assert (record.counted_by, record.outcome) == ("engine", "completed")


async def test_audio_is_booked_by_its_length(sides: Sides) -> None:
    await recorded(sides.gateway.url, MODEL, POOLING["transcription"])
    (record,) = await sides.gateway.recorded()
    assert record.input_audio_seconds == 2.0


@pytest.mark.parametrize("name", ["chat", "streamed chat", "streamed chat with usage", "message", "streamed response"])
async def test_one_changed_byte_is_found(sides: Sides, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    honest = Relay.receive

    def planted(relay: Relay, data: bytes, *, ended: bool) -> bytes:
        return honest(relay, data, ended=ended).replace(b"mock", b"mocK", 1)

    monkeypatch.setattr(Relay, "receive", planted)
    (found,) = await sides.differences(CONVERSATIONS[name])
    assert "mocK" in found


@pytest.mark.parametrize("name", ["streamed chat", "streamed completion", "streamed chat with usage"])
async def test_usage_that_is_not_hidden_is_found(sides: Sides, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def receive(_relay: Relay, data: bytes, *, ended: bool) -> bytes:
        return data

    monkeypatch.setattr(Relay, "receive", receive)
    monkeypatch.setattr(Relay, "start", lambda relay, _kind: setattr(relay, "is_stream", True))
    assert any("usage" in found for found in await sides.differences(CONVERSATIONS[name]))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'{"id":"a","created":1,"x":1}', b'{"id":"b","created":2,"x":1}'),
        (b'{"x":1,"system_fingerprint":"f"}', b'{"x":1}'),
        (b'{"x":1,"system_fingerprint":null}', b'{"x":1,"system_fingerprint":"g"}'),
    ],
)
def test_only_listed_fields_may_differ(before: bytes, after: bytes) -> None:
    def one(body: bytes) -> list[Recording]:
        return [Recording(200, "application/json", body)]

    assert differences(one(before), one(after)) == []
    assert differences(one(before), one(after.replace(b'"x":1', b'"x":2'))) != []
    assert b'"x":1' in masked(before)


def test_a_status_or_a_kind_that_differs_is_found() -> None:
    base: dict[str, Any] = {"status": 200, "content_type": "a/b", "body": b""}
    one = [Recording(**base)]
    assert differences(one, [Recording(**{**base, "status": 201})]) != []
    assert differences(one, [Recording(**{**base, "content_type": "a/c"})]) != []
    assert differences(one, []) != []
