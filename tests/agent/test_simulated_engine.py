"""The simulated engine as its clients meet it: raw HTTP, vLLM's shapes and names."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest

from agent.measure import engine_load
from agent.simulated_engine import Behaviour, start_server
from tests.agent.stand_in import MODEL, WAIT_S, free_port

QUICK = Behaviour(startup_s=0, first_token_ms=0, tokens_per_s=0)
PATIENT = Behaviour(startup_s=0, first_token_ms=0, tokens_per_s=0.01)
HELLO = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}


class Client:
    def __init__(self, http: aiohttp.ClientSession) -> None:
        self.http = http

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        async with self.http.post(path, data=data) as reply:
            return reply.status, msgspec.json.decode(await reply.read())

    async def read(self, path: str, body: dict[str, Any]) -> bytes:
        async with self.http.post(path, json=body) as reply:
            return await reply.read()

    async def stream(self, path: str, body: dict[str, Any]) -> list[Any]:
        """The events of a stream, decoded; the last one is the end mark itself."""
        async with self.http.post(path, json={**body, "stream": True}) as reply:
            assert reply.headers["Content-Type"].startswith("text/event-stream")
            lines = [line.strip() async for line in reply.content]
        events = [line.removeprefix(b"data: ") for line in lines if line]
        return [event if event == b"[DONE]" else msgspec.json.decode(event) for event in events]

    async def metrics(self) -> str:
        async with self.http.get("/metrics") as reply:
            return await reply.text()

    async def until_metrics(self, holds: Callable[[str], bool]) -> str:
        async with asyncio.timeout(WAIT_S):
            while not holds(page := await self.metrics()):  # noqa: ASYNC110 - another task's state, seen over HTTP
                await asyncio.sleep(0.01)
            return page


@asynccontextmanager
async def engine(behaviour: Behaviour = QUICK) -> AsyncIterator[Client]:
    port = free_port()
    runner = await start_server(MODEL, behaviour, host="127.0.0.1", port=port)
    try:
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            yield Client(http)
    finally:
        await runner.cleanup()


def series(page: str, start: str) -> float:
    return next(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(start))


def aborted(page: str) -> float:
    return next(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if 'finished_reason="abort"' in line)


async def test_it_lists_its_model() -> None:
    async with engine() as client, client.http.get("/v1/models") as reply:
        listed = await reply.json()
    assert [model["id"] for model in listed["data"]] == [MODEL]


async def test_a_plain_chat_is_answered_whole_with_usage() -> None:
    async with engine() as client:
        status, answer = await client.post("/v1/chat/completions", HELLO)
    assert status == 200
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "mock: hello"
    assert answer["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 3,
        "total_tokens": 5,
        "prompt_tokens_details": None,
    }


async def test_a_streamed_chat_comes_token_by_token_and_without_usage() -> None:
    async with engine() as client:
        role, *pieces, end = await client.stream("/v1/chat/completions", HELLO)
    assert role["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [piece["choices"][0]["delta"]["content"] for piece in pieces] == ["mock", ": he", "llo"]
    assert [piece["choices"][0]["finish_reason"] for piece in pieces] == [None, None, "stop"]
    assert all("usage" not in event for event in (role, *pieces))
    assert end == b"[DONE]"


async def test_usage_is_the_last_chunk_of_a_stream_that_asked_for_it() -> None:
    async with engine() as client:
        events = await client.stream("/v1/chat/completions", {**HELLO, "stream_options": {"include_usage": True}})
    assert events[-2]["choices"] == []
    assert events[-2]["usage"]["completion_tokens"] == 3


async def test_running_usage_is_in_every_chunk_that_asked_for_it() -> None:
    wanted = {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    async with engine() as client:
        *events, _ = await client.stream("/v1/chat/completions", {**HELLO, **wanted})
    assert [event["usage"]["completion_tokens"] for event in events] == [0, 1, 2, 3, 3]
    assert {event["usage"]["prompt_tokens"] for event in events} == {2}


async def test_a_responses_stream_ends_with_the_whole_response() -> None:
    async with engine() as client:
        body = {"model": MODEL, "input": "hello"}
        _, whole = await client.post("/v1/responses", body)
        text = (await client.read("/v1/responses", {**body, "stream": True})).decode()
    events = [msgspec.json.decode(line[6:]) for line in text.splitlines() if line.startswith("data: ")]
    assert whole["output"][0]["content"][0]["text"] == "mock: hello"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert (events[-1]["type"], events[-1]["response"]["usage"]) == ("response.completed", whole["usage"])
    assert whole["usage"]["output_tokens"] == 3


async def test_a_message_is_answered_as_anthropic_does() -> None:
    async with engine() as client:
        body = {"model": MODEL, "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]}
        _, whole = await client.post("/v1/messages", body)
        text = (await client.read("/v1/messages", {**body, "stream": True})).decode()
        status, error = await client.post("/v1/messages", {**body, "max_tokens": 0})
    assert (whole["stop_reason"], whole["usage"]) == ("max_tokens", {"input_tokens": 2, "output_tokens": 2})
    assert [line[7:] for line in text.splitlines() if line.startswith("event: ")] == [
        "message_start",
        "content_block_start",
        *["content_block_delta"] * 2,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert (status, error["type"], error["error"]["type"]) == (400, "error", "BadRequestError")


async def test_documents_are_ranked_and_scored_alike() -> None:
    async with engine() as client:
        _, ranked = await client.post("/v1/rerank", {"model": MODEL, "query": "abc", "documents": ["abcdefg", "xyz"]})
        _, scored = await client.post("/score", {"model": MODEL, "text_1": "abc", "text_2": ["abcdefg", "xyz"]})
    assert [one["index"] for one in ranked["results"]] == [1, 0]
    assert [one["score"] for one in scored["data"]] == [0.2, 1.0]
    assert ranked["usage"]["total_tokens"] == scored["usage"]["prompt_tokens"] == 5


async def test_an_upload_is_transcribed_and_its_length_told() -> None:
    async with engine() as client:
        form = aiohttp.FormData({"model": MODEL})
        form.add_field("file", b"x" * 70_000, filename="a.wav", content_type="audio/wav")
        async with client.http.post("/v1/audio/transcriptions", data=form) as reply:
            answer = await reply.json()
    assert answer["usage"] == {"type": "duration", "seconds": 3}


async def test_it_describes_where_it_can_be_asked() -> None:
    async with engine() as client, client.http.get("/openapi.json") as reply:
        paths = (await reply.json())["paths"]
    assert {"/v1/chat/completions", "/v1/messages", "/tokenize"} <= {at for at, how in paths.items() if "post" in how}
    assert "/v1/images/generations" not in paths


async def test_the_ledger_tells_what_was_sent_and_how_it_ended() -> None:
    async with engine() as client:
        for name, more in (("whole", {}), ("cut", {"max_tokens": 2}), ("both", {"n": 2, "stream": True})):
            async with client.http.post(
                "/v1/chat/completions", json={**HELLO, **more}, headers={"x-request-id": name}
            ) as reply:
                await reply.read()
        told = {}
        for name in ("whole", "cut", "both"):
            async with client.http.get(f"/simulated/requests/{name}") as reply:
                told[name] = await reply.json()
        async with client.http.get("/simulated/requests/other") as reply:
            assert reply.status == 404
    assert told == {
        "whole": {"prompt_tokens": 2, "completion_tokens": 3, "ended": "stop"},
        "cut": {"prompt_tokens": 2, "completion_tokens": 2, "ended": "length"},
        "both": {"prompt_tokens": 2, "completion_tokens": 6, "ended": "stop"},
    }


async def test_a_stream_that_was_left_is_an_abort_with_the_tokens_that_were_sent() -> None:
    slow = msgspec.structs.replace(PATIENT, tokens_per_s=50)
    async with engine(slow) as client:
        body = {**HELLO, "stream": True, "ignore_eos": True, "max_tokens": 1000}
        async with client.http.post("/v1/chat/completions", json=body, headers={"x-request-id": "left"}) as reply:
            for _ in range(8):
                await reply.content.readline()
        await client.until_metrics(lambda page: aborted(page) == 1)
        async with client.http.get("/simulated/requests/left") as reply:
            entry = await reply.json()
    assert entry["ended"] == "abort"
    assert 3 <= entry["completion_tokens"] < 1000


async def test_every_choice_is_streamed() -> None:
    async with engine() as client:
        *events, _ = await client.stream("/v1/chat/completions", {**HELLO, "n": 2, "max_tokens": 1})
    assert [event["choices"][0]["index"] for event in events] == [0, 1, 0, 1]


async def test_a_completion_echoes_its_prompt() -> None:
    async with engine() as client:
        _, answer = await client.post("/v1/completions", {"model": MODEL, "prompt": "once"})
        *pieces, end = await client.stream("/v1/completions", {"model": MODEL, "prompt": "once"})
    assert answer["choices"][0]["text"] == "mock: once"
    assert "".join(piece["choices"][0]["text"] for piece in pieces) == "mock: once"
    assert end == b"[DONE]"


async def test_embeddings_and_token_counts_are_answered() -> None:
    async with engine() as client:
        _, found = await client.post("/v1/embeddings", {"model": MODEL, "input": "text"})
        _, tokens = await client.post("/tokenize", {"model": MODEL, "prompt": "12345678"})
    assert found["data"][0]["embedding"] == [0.0, 0.0, 0.0]
    assert tokens["count"] == 2


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "BadRequestError"),
        (b'{"model":"mock-echo-model"}', 400, "BadRequestError"),
        (b'{"model":"mock-echo-model","messages":[]}', 400, "BadRequestError"),
        (b'{"model":"another","messages":[]}', 404, "NotFoundError"),
    ],
)
async def test_a_request_that_cannot_be_answered_is_refused_in_the_shape_of_openai(
    body: bytes, status: int, kind: str
) -> None:
    async with engine() as client:
        got, answer = await client.post("/v1/chat/completions", body)
    assert got == status
    assert answer["error"].keys() == {"message", "type", "param", "code"}
    assert (answer["error"]["type"], answer["error"]["code"]) == (kind, status)


async def test_a_path_that_is_not_there_is_refused_in_the_same_shape() -> None:
    async with engine() as client:
        status, answer = await client.post("/v1/nonsense", {})
    assert (status, answer["error"]["code"]) == (404, 404)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_who_goes_away_frees_the_engine_at_once(stream: bool) -> None:
    async with engine(PATIENT) as client:
        body = {**HELLO, "stream": stream, "ignore_eos": True, "max_tokens": 1000}
        request = asyncio.create_task(client.read("/v1/chat/completions", body))
        await client.until_metrics(lambda page: engine_load(page).requests_running == 1)
        request.cancel()
        page = await client.until_metrics(lambda page: aborted(page) == 1)
    assert engine_load(page).queue_depth == 0
    assert series(page, "vllm:generation_tokens_total") == 1, "long before the next token, which takes 100 s"


async def test_requests_beyond_the_limit_wait_and_are_counted_as_waiting() -> None:
    slow = msgspec.structs.replace(PATIENT, max_concurrency=1, tokens_per_s=20)
    async with engine(slow) as client:
        requests = [asyncio.create_task(client.post("/v1/chat/completions", HELLO)) for _ in range(3)]
        page = await client.until_metrics(lambda page: engine_load(page).queue_depth == 3)
        assert (engine_load(page).requests_running, engine_load(page).requests_waiting) == (1, 2)
        assert [status for status, _ in await asyncio.gather(*requests)] == [200, 200, 200]
        assert engine_load(await client.metrics()).queue_depth == 0


async def test_prompts_fill_the_kv_cache_while_they_are_answered() -> None:
    async with engine(PATIENT) as client:
        assert engine_load(await client.metrics()).kv_cache_usage == 0.0
        messages = [{"role": "user", "content": "word " * 10_000}]
        request = asyncio.create_task(client.read("/v1/chat/completions", {**HELLO, "messages": messages}))
        page = await client.until_metrics(lambda page: engine_load(page).requests_running == 1)
        assert 0.05 < (engine_load(page).kv_cache_usage or 0.0) < 1.0
        request.cancel()
        await client.until_metrics(lambda page: engine_load(page).kv_cache_usage == 0.0)


async def test_tokens_come_at_the_configured_pace() -> None:
    async with engine(Behaviour(startup_s=0, first_token_ms=50, tokens_per_s=50)) as client:
        began = time.monotonic()
        await client.post("/v1/chat/completions", {**HELLO, "ignore_eos": True, "max_tokens": 11})
    assert 0.25 <= time.monotonic() - began < 2.5, "50 ms and then ten pauses of 20 ms"


async def test_the_metrics_carry_the_names_of_vllm() -> None:
    async with engine() as client:
        await client.post("/v1/chat/completions", HELLO)
        page = await client.metrics()
    label = f'{{engine="0",model_name="{MODEL}"'
    assert series(page, f"vllm:prompt_tokens_total{label}") == 2
    assert series(page, f"vllm:generation_tokens_total{label}") == 3
    assert series(page, f"vllm:time_to_first_token_seconds_count{label}") == 1
    assert series(page, f'vllm:time_to_first_token_seconds_bucket{label},le="+Inf"') == 1
    for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc", "prefix_cache_hits_total"):
        assert series(page, f"vllm:{name}{label}") == 0


async def test_a_prompt_that_begins_like_an_earlier_one_hits_the_prefix_cache() -> None:
    start = "the same long beginning of a prompt, again and again " * 4
    async with engine() as client:
        for end in ("one", "two"):
            await client.post("/v1/completions", {"model": MODEL, "prompt": start + end})
        page = await client.metrics()
    assert series(page, "vllm:prefix_cache_hits_total") == len(start) // 64 * 16


async def test_it_does_not_listen_before_it_has_started() -> None:
    port = free_port()
    starting = asyncio.create_task(
        start_server(MODEL, msgspec.structs.replace(QUICK, startup_s=0.3), host="127.0.0.1", port=port)
    )
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientConnectorError):
            await http.get(f"http://127.0.0.1:{port}/health")
        runner = await starting
        async with http.get(f"http://127.0.0.1:{port}/health") as reply:
            assert reply.status == 200
    await runner.cleanup()
