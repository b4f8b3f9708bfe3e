"""However a request ends: the client leaves, the engine dies, nobody answers. Always one usage record, never two."""

import asyncio
import gc
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO

import aiohttp
import pytest
from openai import APIError, AsyncOpenAI

from gateway.calls import STREAMED, Timeouts
from gateway.exchange import Exchange
from gateway.relay import HELD_BYTES
from tests.gateway.routing import CLEAR_KEY, MODEL, key, ready, routing
from tests.gateway.scripted_engine import BOUND_S, Line, Script, ScriptedEngine, echo, echo_answer, echo_chunks
from tests.gateway.served import HEADERS, Served, served, until

CHAT = "/v1/chat/completions"
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}
STREAM = {**ASK, "stream": True}
LEAVING_LIMIT_S = 0.5
"""The goal is 0.1 s; this machine may be busy with other tests."""


@asynccontextmanager
async def one_worker(script: Script, timeouts: Timeouts = STREAMED) -> AsyncIterator[tuple[Served, ScriptedEngine]]:
    async with (
        ScriptedEngine(script) as engine,
        served(routing(key(), ready("i1", engine.url)), streamed=timeouts, plain=timeouts) as gateway,
    ):
        yield gateway, engine


@asynccontextmanager
async def two_workers(first: Script | None, second: Script) -> AsyncIterator[tuple[Served, ScriptedEngine]]:
    """The first is asked first; None is an address where nobody listens."""
    async with ScriptedEngine(first or echo) as one, ScriptedEngine(second) as two:
        url = one.url if first else f"http://127.0.0.1:{closed_port()}"
        async with served(routing(key(), ready("i1", url), ready("i2", two.url))) as gateway:
            yield gateway, two


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


async def endless(line: Line) -> None:
    """A token every few milliseconds until somebody stops it."""
    await line.head()
    while not line.left.is_set():
        await line.send(echo_chunks(CHAT, line.asked.json)[0])
        await asyncio.sleep(0.005)


async def silent(line: Line) -> None:
    async with asyncio.timeout(BOUND_S):
        await line.left.wait()


async def three_tokens_then_dead(line: Line) -> None:
    await line.head()
    for chunk in echo_chunks(CHAT, line.asked.json)[:3]:
        await line.send(chunk)
    await line.send(b'data: {"choices":[{"ind')
    line.cut()


async def dead_at_once(line: Line) -> None:
    line.cut()


async def head_then_dead(line: Line) -> None:
    await line.head()
    line.cut()


async def half_an_answer(line: Line) -> None:
    body = echo_answer(CHAT, line.asked.json)
    await line.head(200, "application/json", len(body))
    await line.send(body[: len(body) // 2])
    line.cut()


async def left_in_time(line: Line) -> float:
    before_s = asyncio.get_running_loop().time()
    async with asyncio.timeout(BOUND_S):
        await line.left.wait()
    return asyncio.get_running_loop().time() - before_s


async def test_a_client_who_leaves_a_stream_stops_the_engine_at_once() -> None:
    async with one_worker(endless) as (gateway, engine):
        async with gateway.client() as client, client.post(CHAT, json=STREAM) as reply:
            for _ in range(5):
                await reply.content.readany()
            reply.close()
            assert await left_in_time(engine.lines[0]) < LEAVING_LIMIT_S
        record = (await gateway.recorded())[0]
        assert (record.outcome, record.counted_by, record.prompt_tokens) == ("client_left", "gateway", 0)
        assert record.completion_tokens >= 5


async def test_a_client_who_leaves_before_the_answer_stops_the_engine_at_once() -> None:
    async with one_worker(silent) as (gateway, engine):
        async with gateway.client() as client:
            asking = asyncio.ensure_future(client.post(CHAT, json=ASK))
            await until(lambda: bool(engine.lines))
            asking.cancel()
            assert await left_in_time(engine.lines[0]) < LEAVING_LIMIT_S
        record = (await gateway.recorded())[0]
        assert (record.outcome, record.status_code, record.completion_tokens) == ("client_left", 499, 0)


async def test_a_client_who_leaves_after_done_has_got_everything() -> None:
    async def never_closes(line: Line) -> None:
        await line.head()
        for chunk in echo_chunks(CHAT, line.asked.json):
            await line.send(chunk)
        await line.left.wait()

    async with one_worker(never_closes) as (gateway, _):
        async with gateway.client() as client, client.post(CHAT, json=STREAM) as reply:
            while not (await reply.content.readline()).startswith(b"data: [DONE]"):
                pass
            record = (await gateway.recorded())[0]
        assert (record.outcome, record.counted_by) == ("completed", "engine")
    assert len(gateway.usage) == 1


async def test_an_engine_that_dies_in_a_stream_leaves_an_error_event() -> None:
    async with one_worker(three_tokens_then_dead) as (gateway, _):
        async with gateway.client() as client, client.post(CHAT, json=STREAM) as reply:
            events = (await reply.read()).split(b"\n\n")
        assert reply.status == 200
        assert json.loads(events[-2].removeprefix(b"data: "))["error"]["code"] == "upstream_read_failed"
        assert b'"ind' not in b"".join(events[3:-2])
        record = (await gateway.recorded())[0]
        assert (record.outcome, record.counted_by, record.completion_tokens) == ("upstream_failed", "gateway", 3)


async def test_a_broken_answer_is_not_quoted_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    async def garbles_its_chunks(line: Line) -> None:
        await line.head()
        line.writer.write(b"the-answer-that-nobody-logs\r\n")
        line.cut()

    async with one_worker(garbles_its_chunks) as (gateway, _), gateway.client() as client:
        async with client.post(CHAT, json=STREAM) as reply:
            assert reply.status == 502
        await gateway.recorded()
    captured = capsys.readouterr()
    assert "upstream_failed" in captured.out + captured.err
    assert "nobody-logs" not in captured.out + captured.err


async def test_openais_client_raises_when_the_engine_dies() -> None:
    words: list[str | None] = []

    async def listen(gateway: Served) -> None:
        async with AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=CLEAR_KEY, max_retries=0) as openai:
            async for chunk in await openai.chat.completions.create(model=MODEL, messages=[], stream=True):
                words.append(chunk.choices[0].delta.content)  # noqa: PERF401 - what came before the error counts

    async with one_worker(three_tokens_then_dead) as (gateway, _):
        with pytest.raises(APIError, match="broke off"):
            await listen(gateway)
    assert words == ["Hello", " there", "!"]


@pytest.mark.parametrize("first", [None, dead_at_once, head_then_dead, half_an_answer])
@pytest.mark.parametrize("body", [ASK, STREAM], ids=["plain", "stream"])
async def test_another_worker_answers_while_the_client_has_seen_nothing(
    first: Script | None, body: dict[str, object]
) -> None:
    async with two_workers(first, echo) as (gateway, two), gateway.client() as client:
        async with client.post(CHAT, json=body) as reply:
            assert reply.status == 200
            assert b"Hello" in await reply.read()
        record = (await gateway.recorded())[0]
        assert (record.outcome, record.instance_id, record.counted_by) == ("completed", "i2", "engine")
        assert [asked.headers["x-request-id"] for asked in two.asked] == [record.request_id]
    assert len(gateway.usage) == 1


async def test_after_three_workers_failed_no_fourth_is_asked() -> None:
    async with ScriptedEngine(dead_at_once) as bad, ScriptedEngine(echo) as good:
        table = routing(key(), *(ready(f"i{n}", bad.url) for n in range(1, 4)), ready("i4", good.url))
        async with served(table) as gateway, gateway.client() as client:
            async with client.post(CHAT, json=ASK) as reply:
                assert (reply.status, (await reply.json())["error"]["code"]) == (502, "upstream_read_failed")
            assert [record.outcome for record in await gateway.recorded()] == ["upstream_failed"]
    assert (len(bad.asked), good.asked) == (3, [])


async def test_a_lone_worker_whose_old_connection_died_is_asked_again_on_a_new_one() -> None:
    async def closes_on_reuse(line: Line) -> None:
        if line.nth == 1:
            line.cut()
        else:
            await echo(line)

    async with one_worker(closes_on_reuse) as (gateway, engine), gateway.client() as client:
        for _ in range(2):
            async with client.post(CHAT, json=ASK) as reply:
                assert reply.status == 200
    assert len(engine.asked) == 3
    assert len(await gateway.recorded(2)) == 2


async def test_when_nobody_can_be_reached_the_client_is_told() -> None:
    table = routing(key(), ready("i1", f"http://127.0.0.1:{closed_port()}"))
    async with served(table) as gateway, gateway.client() as client:
        async with client.post(CHAT, json=STREAM) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (502, "upstream_unreachable")
        record = (await gateway.recorded())[0]
        assert (record.outcome, record.status_code, record.completion_tokens) == ("upstream_failed", 502, 0)


async def test_a_silent_engine_is_given_up_and_not_asked_twice() -> None:
    async with (
        one_worker(silent, Timeouts(first_byte_s=0.1)) as (gateway, engine),
        gateway.client() as client,
    ):
        for body in (ASK, STREAM):
            async with client.post(CHAT, json=body) as reply:
                assert (reply.status, (await reply.json())["error"]["code"]) == (504, "upstream_timeout")
        assert len(engine.asked) == 2
        assert [record.status_code for record in await gateway.recorded(2)] == [504, 504]


async def test_a_long_plain_answer_that_breaks_is_cut_rather_than_closed() -> None:
    async def long_and_cut(line: Line) -> None:
        await line.head(200, "application/json", 4 * HELD_BYTES)
        await line.send(b"x" * 2 * HELD_BYTES)
        line.cut()

    async with one_worker(long_and_cut) as (gateway, _), gateway.client() as client:
        async with client.post(CHAT, json=ASK) as reply:
            with pytest.raises(aiohttp.ClientPayloadError):
                await reply.read()
        assert [record.outcome for record in await gateway.recorded()] == ["upstream_failed"]


@pytest.mark.parametrize("status", [400, 422, 429])
async def test_an_engines_own_refusal_passes_through(status: int) -> None:
    async def refuses(line: Line) -> None:
        await line.answer(b'{"error":{"message":"max_tokens is too large"}}', status)

    async with one_worker(refuses) as (gateway, _), gateway.client() as client:
        async with client.post(CHAT, json=STREAM) as reply:
            assert (reply.status, await reply.json()) == (status, {"error": {"message": "max_tokens is too large"}})
        record = (await gateway.recorded())[0]
        assert (record.outcome, record.status_code, record.completion_tokens) == ("refused_by_engine", status, 0)


@pytest.mark.parametrize(("status", "told"), [(500, 502), (502, 502), (503, 503)])
async def test_an_engines_own_failure_is_told_in_fixed_words(status: int, told: int) -> None:
    async def fails(line: Line) -> None:
        await line.answer(b"Traceback: secret of the house", status, "text/plain")

    async with one_worker(fails) as (gateway, _), gateway.client() as client:
        async with client.post(CHAT, json=ASK) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (told, "upstream_error")
            assert b"secret" not in await reply.read()
        record = (await gateway.recorded())[0]
        assert (record.outcome, record.status_code) == ("upstream_failed", told)


async def test_an_endless_refusal_is_not_waited_for() -> None:
    async def goes_on(line: Line) -> None:
        await line.head(400, "text/plain")
        while not line.left.is_set():
            await line.send(b"x" * 16 * 1024)

    async with one_worker(goes_on) as (gateway, engine), gateway.client() as client:
        async with client.post(CHAT, json=ASK) as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (502, "upstream_error")
        assert await left_in_time(engine.lines[0]) < LEAVING_LIMIT_S
        record = (await gateway.recorded())[0]
        assert (record.outcome, record.status_code) == ("refused_by_engine", 502)


async def test_what_one_engine_fails_at_another_may_do() -> None:
    async def fails(line: Line) -> None:
        await line.answer(b"{}", 500)

    async with two_workers(fails, echo) as (gateway, _), gateway.client() as client:
        async with client.post(CHAT, json=STREAM) as reply:
            assert (await reply.read()).endswith(b"data: [DONE]\n\n")
        record = (await gateway.recorded())[0]
        assert (record.outcome, record.instance_id, record.attempts) == ("completed", "i2", 2)


async def test_megabytes_of_prompt_arrive_whole() -> None:
    body = {**STREAM, "user": "x" * 3_000_000}
    data = BytesIO(json.dumps(body).encode())
    async with (
        one_worker(echo) as (gateway, engine),
        gateway.client() as client,
        client.post(CHAT, data=data) as reply,
    ):
        assert (await reply.read()).endswith(b"data: [DONE]\n\n")
    assert engine.asked[0].json == {**body, "stream_options": {"include_usage": True, "continuous_usage_stats": True}}


CHUNK_BYTES = 64 * 1024
FLOOD_BYTES = 200 * 1024 * 1024
SOCKETS_BYTES = 40 * 1024 * 1024
"""What the kernel may hold in the four socket buffers between engine and client, generously."""


async def test_a_stalled_reader_stops_the_engine_instead_of_filling_memory() -> None:
    async def flood(line: Line) -> None:
        event = b"data: " + b"x" * CHUNK_BYTES + b"\n\n"
        await line.head()
        while line.sent_bytes < FLOOD_BYTES:
            await line.send(event)
        await line.end()

    async with one_worker(flood) as (gateway, engine):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", int(gateway.url.rsplit(":", 1)[1]), limit=CHUNK_BYTES
        )
        body = json.dumps(STREAM)
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-api-key: {CLEAR_KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        await until(lambda: bool(engine.lines) and engine.lines[0].sent_bytes > 0)
        stalled_at = await settled(engine.lines[0])
        assert stalled_at < SOCKETS_BYTES
        writer.transport.abort()
        assert await left_in_time(engine.lines[0]) < LEAVING_LIMIT_S
        del reader
        assert [record.outcome for record in await gateway.recorded()] == ["client_left"]


async def settled(line: Line) -> int:
    """Bytes that the engine could send, once it cannot send more."""
    before, still = -1, 0
    async with asyncio.timeout(BOUND_S):
        while still < 10:
            still = still + 1 if line.sent_bytes == before else 0
            before = line.sent_bytes
            await asyncio.sleep(0.02)
    return before


async def test_a_stopping_gateway_still_records_what_it_cuts() -> None:
    async with aiohttp.ClientSession(headers=HEADERS) as client:
        async with one_worker(endless) as (gateway, _):
            reply = await client.post(gateway.url + CHAT, json=STREAM)
            await reply.content.readany()
        (record,) = gateway.usage
        assert record.outcome == "gateway_died"
        assert record.completion_tokens >= 1
        reply.close()


def prompts_held() -> list[bytes]:
    """Of the requests that run in this process."""
    gc.collect()
    return [one._body for one in gc.get_objects() if isinstance(one, Exchange) and not one._booked]


async def test_a_prompt_is_kept_until_its_answer_has_begun_and_no_longer() -> None:
    begin = asyncio.Event()

    async def late(line: Line) -> None:
        await begin.wait()
        await endless(line)

    async with one_worker(late) as (gateway, engine), gateway.client() as client:
        asking = asyncio.ensure_future(client.post(CHAT, json=STREAM))
        await until(lambda: len(engine.asked) == 1)
        assert [json.loads(prompt) for prompt in prompts_held()] == [STREAM], "another worker may have to be asked"
        begin.set()
        async with await asking as reply:
            await reply.content.readany()
            assert prompts_held() == [b""]
