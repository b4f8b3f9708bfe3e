"""The gateway over real sockets: the official client's four calls, true streaming, and what bad requests are told."""

import asyncio
import json
from collections.abc import AsyncIterator
from io import BytesIO

import aiohttp
import pytest
from openai import AsyncOpenAI, AuthenticationError, NotFoundError

from gateway.wire import MAX_BODY_BYTES
from tests.examples import ACME, GLOBEX
from tests.gateway.routing import (
    CLEAR_KEY,
    MODEL,
    STRANGERS_KEY,
    deployed,
    draining,
    entries,
    key,
    ready,
    routing,
)
from tests.gateway.scripted_engine import BOUND_S, Line, ScriptedEngine, echo, echo_chunks
from tests.gateway.served import HEADERS, Served, served

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
async def engine() -> AsyncIterator[ScriptedEngine]:
    async with ScriptedEngine(echo) as running:
        yield running


@pytest.fixture
async def gateway(engine: ScriptedEngine) -> AsyncIterator[Served]:
    async with served(routing(key(), ready("i1", engine.url), deployed("asleep/model"))) as running:
        yield running


@pytest.fixture
async def openai(gateway: Served) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=CLEAR_KEY, max_retries=0) as client:
        yield client


async def test_openais_client_lists_the_live_models(openai: AsyncOpenAI) -> None:
    assert [model.id async for model in await openai.models.list()] == [MODEL]
    assert (await openai.models.retrieve(MODEL)).id == MODEL


async def test_openais_client_gets_a_plain_chat(openai: AsyncOpenAI, gateway: Served) -> None:
    reply = await openai.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "hi"}])
    assert reply.choices[0].message.content == "Hello there!"
    record = (await gateway.recorded())[0]
    assert (record.outcome, record.status_code, record.counted_by) == ("completed", 200, "engine")
    assert (record.prompt_tokens, record.completion_tokens, record.finish_reason) == (11, 3, "stop")
    assert (record.organization_id, record.api_key_id, record.instance_id) == (ACME, "k1", "i1")


async def test_openais_client_streams_a_chat_without_usage(openai: AsyncOpenAI, gateway: Served) -> None:
    stream = await openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello there!"
    assert all(chunk.usage is None for chunk in chunks)
    record = (await gateway.recorded())[0]
    assert (record.prompt_tokens, record.completion_tokens, record.counted_by) == (11, 3, "engine")
    assert record.ttft_ms is not None
    assert record.ttft_ms <= record.duration_ms


async def test_openais_client_streams_a_chat_with_usage_when_it_asks(openai: AsyncOpenAI) -> None:
    stream = await openai.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "hi"}], stream=True, stream_options={"include_usage": True}
    )
    usages = [chunk.usage async for chunk in stream if chunk.usage]
    assert [usage.total_tokens for usage in usages] == [14]


async def test_openais_client_completes_and_embeds(openai: AsyncOpenAI, gateway: Served) -> None:
    completion = await openai.completions.create(model=MODEL, prompt="hi")
    assert completion.choices[0].text == "Hello there!"
    embedding = await openai.embeddings.create(model=MODEL, input="hi", encoding_format="float")
    assert embedding.data[0].embedding == [0.5, 0.25]
    assert [record.endpoint for record in await gateway.recorded(2)] == ["/v1/completions", "/v1/embeddings"]


async def test_openais_client_raises_its_own_errors(openai: AsyncOpenAI, gateway: Served) -> None:
    with pytest.raises(NotFoundError) as missing:
        await openai.chat.completions.create(model="nope", messages=[])
    assert (missing.value.code, missing.value.param) == ("model_not_found", "model")
    async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=STRANGERS_KEY, max_retries=0) as stranger:
        with pytest.raises(AuthenticationError) as refused:
            await stranger.models.list()
    assert refused.value.code == "invalid_api_key"


async def test_each_chunk_arrives_before_the_next_is_made() -> None:
    may_go_on = asyncio.Event()

    async def one_at_a_time(line: Line) -> None:
        await line.head()
        for chunk in echo_chunks(CHAT, line.asked.json):
            may_go_on.clear()
            await line.send(chunk)
            if b"[DONE]" not in chunk:
                async with asyncio.timeout(BOUND_S):
                    await may_go_on.wait()
        await line.end()

    async with ScriptedEngine(one_at_a_time) as engine, served(routing(key(), ready("i1", engine.url))) as gateway:
        body = {**ASK, "stream": True, "stream_options": {"include_usage": True}}
        async with gateway.client() as client, client.post(CHAT, json=body) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            events = []
            async for event in reply.content.iter_any():
                events.append(event)
                may_go_on.set()
    assert len(events) == 6


async def test_figures_are_shown_to_who_is_near_and_comes_through_nobody(gateway: Served) -> None:
    async with gateway.client() as client:
        async with client.get("/metrics") as reply:
            assert reply.status == 200
        for header in ("x-forwarded-for", "forwarded"):
            async with client.get("/metrics", headers={header: "127.0.0.1"}) as reply:
                assert (reply.status, (await reply.json())["error"]["code"]) == (404, "unknown_url")


async def test_only_a_few_headers_reach_the_engine(gateway: Served, engine: ScriptedEngine) -> None:
    headers = {
        "accept": "text/event-stream",
        "x-inventiv-session": "s-1",
        "x-request-id": "chosen by the client",
        "x-forwarded-for": "1.2.3.4",
        "cookie": "a=b",
        "openai-organization": "o",
    }
    async with gateway.client() as client, client.post(CHAT, json=ASK, headers=headers) as reply:
        assert reply.headers["x-request-id"] == "req-1"
    seen = engine.asked[0].headers
    assert {name: seen[name] for name in ("accept", "x-inventiv-session", "x-request-id")} == {
        "accept": "text/event-stream",
        "x-inventiv-session": "s-1",
        "x-request-id": "req-1",
    }
    assert set(seen) <= {
        "host", "accept", "content-type", "accept-encoding", "x-request-id", "x-inventiv-session", "content-length",
        "traceparent",
    }  # fmt: skip


BAD_REQUESTS: list[tuple[str, str, bytes, int, str]] = [
    ("POST", CHAT, b"{", 400, "invalid_json"),
    ("POST", CHAT, b"{}", 400, "missing_model"),
    ("POST", CHAT, b'{"model":"nope"}', 404, "model_not_found"),
    ("POST", CHAT, b'{"model":"no/where"}', 404, "offering_not_found"),
    ("POST", CHAT, b'{"model":"asleep/model"}', 503, "no_ready_worker"),
    ("POST", CHAT, b" " * (MAX_BODY_BYTES + 1), 413, "request_too_large"),
    ("GET", CHAT, b"", 405, "method_not_allowed"),
    ("POST", "/v1/models", b"", 405, "method_not_allowed"),
    ("GET", "/v1/models/nope", b"", 404, "model_not_found"),
    ("GET", "/", b"", 404, "unknown_url"),
    ("POST", "/v1/images/edits", b"{}", 404, "unknown_url"),
]


@pytest.mark.parametrize(("method", "path", "body", "status", "code"), BAD_REQUESTS)
async def test_a_bad_request_is_told_so_in_openais_shape(
    gateway: Served, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    async with gateway.client() as client, client.request(method, path, data=BytesIO(body)) as reply:
        told = await reply.json()
    assert (reply.status, told["error"]["code"]) == (status, code)
    assert set(told["error"]) == {"message", "type", "param", "code"}
    assert reply.headers["x-request-id"]
    assert ("retry-after" in reply.headers) == (status == 503)
    assert gateway.usage == []


async def test_a_body_without_a_length_is_counted_while_it_is_read(gateway: Served) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 2**20 + 2):
            yield b" " * 2**20

    async with gateway.client() as client, client.post(CHAT, data=endless()) as reply:
        assert (reply.status, (await reply.json())["error"]["code"]) == (413, "request_too_large")


async def test_without_a_key_no_body_is_read(gateway: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(gateway.url.rsplit(":", 1)[1]))
    writer.write(f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n".encode())
    async with asyncio.timeout(BOUND_S):
        assert b" 401 " in await reader.readline()
    writer.close()
    await writer.wait_closed()


async def test_a_neighbours_model_does_not_exist_for_us(engine: ScriptedEngine) -> None:
    table = routing(key(), ready("i1", engine.url, organization=GLOBEX), deployed(organization=GLOBEX))
    async with served(table) as gateway, gateway.client() as client:
        async with client.post(CHAT, json=ASK) as reply:
            assert reply.status == 404
        async with client.get("/v1/models") as reply:
            assert (await reply.json())["data"] == []
    assert engine.asked == []


async def test_before_the_table_is_loaded_nobody_is_called_unknown(gateway: Served) -> None:
    gateway.ready = False
    async with gateway.client() as client:
        async with client.post(CHAT, json=ASK) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (503, "gateway_starting")
            assert "retry-after" in reply.headers
        async with client.get("/readyz") as reply:
            assert (reply.status, (await reply.json())["ready"]) == (503, False)
        async with client.get("/healthz") as reply:
            assert reply.status == 200


async def test_readiness_tells_the_tables_position_and_age(gateway: Served) -> None:
    async with gateway.client() as client, client.get("/readyz") as reply:
        told = await reply.json()
    assert reply.status == 200
    assert told["position"] == gateway.table.position
    assert set(told) == {"ready", "trusted", "source", "position", "log_connected", "age_s", "usage_kept"}


async def test_a_draining_worker_finishes_its_stream_and_gets_no_new_one() -> None:
    finish = asyncio.Event()

    async def slow(line: Line) -> None:
        chunks = echo_chunks(CHAT, line.asked.json)
        await line.head()
        await line.send(chunks[0])
        async with asyncio.timeout(BOUND_S):
            await finish.wait()
        await line.send(b"".join(chunks[1:]))
        await line.end()

    async with ScriptedEngine(slow) as engine, served(routing(key(), ready("i1", engine.url))) as gateway:
        async with gateway.client() as client, client.post(CHAT, json={**ASK, "stream": True}) as running:
            first = await running.content.readany()
            for entry in entries(draining("i1"), after=gateway.table.position):
                gateway.table.apply(entry)
            async with client.post(CHAT, json=ASK) as refused:
                assert (refused.status, (await refused.json())["error"]["code"]) == (503, "no_ready_worker")
            finish.set()
            assert (first + await running.content.read()).endswith(b"data: [DONE]\n\n")
        assert [record.outcome for record in await gateway.recorded()] == ["completed"]


async def test_prompts_and_answers_are_never_logged(
    gateway: Served, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "the-prompt-that-nobody-logs"
    body = {**ASK, "messages": [{"role": "user", "content": secret}]}
    async with gateway.client() as client:
        for asked in (body, {**body, "stream": True}, {**body, "model": "nope"}, {**body, "stream": "x"}):
            async with client.post(CHAT, data=json.dumps(asked)) as reply:
                await reply.read()
    out = capsys.readouterr()
    logged = out.out + out.err + caplog.text
    assert secret not in logged
    assert "Hello there" not in logged
    assert CLEAR_KEY not in logged


async def test_sixty_four_clients_at_once_share_two_workers() -> None:
    async with (
        ScriptedEngine(echo) as one,
        ScriptedEngine(echo) as two,
        served(routing(key(), ready("i1", one.url), ready("i2", two.url))) as gateway,
        gateway.client() as client,
    ):
        await asyncio.gather(*(_answered(client) for _ in range(64)))
        await gateway.recorded(64)
        assert len({record.request_id for record in gateway.usage}) == 64
    assert (len(one.asked), len(two.asked)) == (32, 32)


async def _answered(client: aiohttp.ClientSession) -> None:
    async with client.post(CHAT, json={**ASK, "stream": True}, headers=HEADERS) as reply:
        assert (await reply.read()).endswith(b"data: [DONE]\n\n")


async def test_when_usage_cannot_be_kept_no_request_is_taken(engine: ScriptedEngine) -> None:
    async with (
        served(routing(key(), ready("i1", engine.url)), spool_bytes=0) as gateway,
        gateway.client() as client,
        client.post(CHAT, json=ASK) as reply,
    ):
        assert (reply.status, (await reply.json())["error"]["code"]) == (503, "usage_not_kept")
    assert engine.asked == []
