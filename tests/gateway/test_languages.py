"""The endpoints beyond chat, over real sockets: what reaches the engine, what each library makes of a broken one."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

import anthropic
import httpx2
import openai
import pytest

from agent.simulated_engine import Behaviour, start_server
from domain.instance_events import ModelLoaded
from tests.agent.stand_in import free_port
from tests.examples import ACME
from tests.gateway.forms import form
from tests.gateway.routing import CLEAR_KEY, MODEL, key, offered, ready, routing
from tests.gateway.scripted_engine import Line, ScriptedEngine
from tests.gateway.served import HEADERS, served
from tests.gateway.streams import MESSAGES, RESPONSES, message_stream, response_stream

USAGE_OF_RERANK = b'{"results":[],"usage":{"prompt_tokens":4,"total_tokens":4}}'


async def _dies(line: Line) -> None:
    """In the middle of its stream."""
    whole = message_stream(5, 6) if line.asked.path == MESSAGES else response_stream(5, 6)
    await line.head()
    await line.send(whole[: len(whole) // 2])
    line.cut()


async def _read_message(url: str) -> None:
    async with anthropic.AsyncAnthropic(base_url=url, api_key=CLEAR_KEY, max_retries=0) as client:
        said: Any = [{"role": "user", "content": "hi"}]
        async for _ in await client.messages.create(model=MODEL, max_tokens=9, messages=said, stream=True):
            pass


async def _read_response(url: str) -> None:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=CLEAR_KEY, max_retries=0) as client:
        async for _ in await client.responses.create(model=MODEL, input="hi", stream=True):
            pass


@pytest.mark.parametrize(
    ("path", "reading", "error"),
    [(MESSAGES, _read_message, anthropic.APIStatusError), (RESPONSES, _read_response, openai.APIError)],
)
async def test_each_library_raises_when_the_engine_dies(
    path: str, reading: Callable[[str], Awaitable[None]], error: type[Exception]
) -> None:
    async with ScriptedEngine(_dies) as engine, served(routing(key(), ready("i1", engine.url))) as gateway:
        with pytest.raises(error, match="broke off"):
            await reading(gateway.url)
        (record,) = await gateway.recorded()
    assert (record.endpoint, record.outcome, record.counted_by) == (path, "upstream_failed", "gateway")
    assert 0 < record.completion_tokens < 6


async def test_a_refusal_is_told_in_anthropics_words() -> None:
    async with served(routing(key())) as gateway:
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key=CLEAR_KEY, max_retries=0) as client:
            said: Any = [{"role": "user", "content": "hi"}]
            with pytest.raises(anthropic.NotFoundError) as refused:
                await client.messages.create(model="no/such", max_tokens=9, messages=said)
        assert isinstance(refused.value.body, dict)
        assert refused.value.body["error"]["type"] == "not_found_error"
        async with anthropic.AsyncAnthropic(base_url=gateway.url, api_key="wrong", max_retries=0) as client:
            with pytest.raises(anthropic.AuthenticationError):
                await client.messages.create(model=MODEL, max_tokens=9, messages=said)


@pytest.mark.parametrize(
    ("asked", "reached"),
    [
        ("/v1/rerank", "/v1/rerank"),
        ("/v2/rerank", "/v1/rerank"),
        ("/rerank", "/v1/rerank"),
        ("/score", "/v1/score"),
        ("/v1/tokenize", "/tokenize"),
        ("/detokenize", "/detokenize"),
        ("/v1/messages/count_tokens", "/v1/messages/count_tokens"),
    ],
)
async def test_an_endpoint_with_several_paths_is_one_to_the_engine(asked: str, reached: str) -> None:
    async def answers(line: Line) -> None:
        await line.answer(USAGE_OF_RERANK)

    async with ScriptedEngine(answers) as engine, served(routing(key(), ready("i1", engine.url))) as gateway:
        async with gateway.client() as client, client.post(asked, json={"model": MODEL}) as reply:
            assert (reply.status, await reply.read()) == (200, USAGE_OF_RERANK)
        (record,) = await gateway.recorded()
    assert (engine.asked[0].path, record.endpoint, record.prompt_tokens) == (reached, reached, 4)


@pytest.mark.parametrize("name", [MODEL, "acme/chat"])
async def test_an_upload_reaches_the_engine_with_its_own_name_for_the_model(name: str) -> None:
    async def answers(line: Line) -> None:
        await line.answer(b'{"text":"hm","usage":{"type":"duration","seconds":7}}')

    content_type, body = form(("file", b"\x00\xff" * 200_000), ("model", name.encode()))
    async with (
        ScriptedEngine(answers) as engine,
        served(routing(key(), offered("chat"), ready("i1", engine.url))) as gateway,
        gateway.client() as client,
    ):
        headers = {"content-type": content_type.decode()}
        async with client.post("/v1/audio/transcriptions", data=body, headers=headers) as reply:
            assert reply.status == 200
        (record,) = await gateway.recorded()
    (asked,) = engine.asked
    assert asked.body == body.replace(b"acme/chat", MODEL.encode())
    assert asked.headers["content-type"] == content_type.decode()
    assert record.input_audio_seconds == 7.0


@pytest.mark.parametrize("said", [None, ("chat", "embeddings")])
async def test_an_endpoint_that_the_model_has_not_is_refused_clearly(said: tuple[str, ...] | None) -> None:
    """Whether its engine has said so before, or says so when it is asked."""
    port = free_port()
    quick = Behaviour(startup_s=0, first_token_ms=0, tokens_per_s=0)
    runner = await start_server(MODEL, quick, host="127.0.0.1", port=port)
    told = [(ACME, "i1", ModelLoaded(endpoints=said, context_tokens=0))] if said else []
    try:
        async with served(routing(key(), ready("i1", f"http://127.0.0.1:{port}"), told)) as gateway:
            async with httpx2.AsyncClient(base_url=gateway.url, headers=HEADERS) as client:
                reply = await client.post("/v1/images/generations", json={"model": MODEL, "prompt": "a cat"})
            booked = len(gateway.usage)
    finally:
        await runner.cleanup()
    error = json.loads(reply.content)["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "model_does_not_support", "model")
    assert "/v1/images/generations" in error["message"]
    assert booked == 0 or said is None


async def test_speech_comes_as_it_is_made() -> None:
    async def speaks(line: Line) -> None:
        await line.head(content_type="audio/mpeg")
        await line.send(b"ID3")
        await line.left.wait()

    async with (
        ScriptedEngine(speaks) as engine,
        served(routing(key(), ready("i1", engine.url))) as gateway,
        gateway.client() as client,
        client.post("/v1/audio/speech", json={"model": MODEL, "input": "hi", "voice": "a"}) as reply,
    ):
        assert reply.content_type == "audio/mpeg"
        assert await reply.content.read(3) == b"ID3"
