"""The requests that both sides get: what the official libraries send, each case one short conversation.

A case makes its calls and reads its streams to the end; what came over the wire is kept by the recorder below it. A
library's own exception is part of the conversation, since its answer was recorded before it was raised.
"""

import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anthropic
import httpx2
import openai

from tests.gateway.differential.recorded import Recorder, Recording
from tests.gateway.routing import CLEAR_KEY

TIMEOUT_S = 60.0
PIXEL = (
    "data:image/png;base64,"
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "unit": {"enum": ["celsius", "kelvin"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}
PERSON: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "person",
        "schema": {
            "type": "object",
            "properties": {"name": {"enum": ["Ada", "Alan"]}, "age": {"type": "integer", "minimum": 1, "maximum": 9}},
            "required": ["name", "age"],
            "additionalProperties": False,
        },
    },
}
SAID: Any = [{"role": "user", "content": 'Tell me \u2019bout größe & \n\ndata: [DONE] "usage":{}}'}]


@dataclass(frozen=True)
class Libraries:
    """The official ones, pointed at one side."""

    openai: openai.AsyncOpenAI
    anthropic: anthropic.AsyncAnthropic
    http: httpx2.AsyncClient
    model: str

    async def chat(self, **more: Any) -> Any:
        return await self.openai.chat.completions.create(**{"model": self.model, "messages": SAID, **SHORT, **more})

    async def post(self, path: str, **body: Any) -> None:
        """For what the libraries have no call for."""
        await self.http.post(path, json={"model": self.model, **body})


SHORT: Mapping[str, Any] = {"temperature": 0, "seed": 1, "max_tokens": 24}
SURELY: Mapping[str, Any] = {"extra_body": {"temperature": 0}}
"""Anthropic's library does not know the word any more; its server and vLLM do."""
Case = Callable[[Libraries], Awaitable[Any]]


async def read(stream: AsyncIterable[Any]) -> None:
    async for _ in stream:
        pass


async def _streamed(use: Libraries, **more: Any) -> None:
    await read(await use.chat(stream=True, **more))


async def _with_tools(use: Libraries) -> None:
    await use.chat(tools=[WEATHER], tool_choice={"type": "function", "function": {"name": "get_weather"}})


async def _tools_streamed(use: Libraries) -> None:
    choice = {"type": "function", "function": {"name": "get_weather"}}
    await _streamed(use, tools=[WEATHER], tool_choice=choice, max_tokens=60)


async def _after_a_tool(use: Libraries) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Lyon"}'}}
    messages = [
        *SAID,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "rain"},
    ]
    await use.chat(messages=messages)


async def _with_a_picture(use: Libraries) -> None:
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": PIXEL}}]
    await use.chat(messages=[{"role": "user", "content": parts}])


async def _completion(use: Libraries, **more: Any) -> None:
    asked: dict[str, Any] = {"model": use.model, "prompt": "once upon", **SHORT, **more}
    made: Any = await use.openai.completions.create(**asked)
    if more.get("stream"):
        await read(made)


async def _response(use: Libraries, **more: Any) -> None:
    asked: dict[str, Any] = {"model": use.model, "input": "hi", "temperature": 0, "max_output_tokens": 24, **more}
    made: Any = await use.openai.responses.create(**asked)
    if more.get("stream"):
        await read(made)


async def _message(use: Libraries, **more: Any) -> None:
    asked: dict[str, Any] = {"model": use.model, "messages": SAID, "max_tokens": 24, **SURELY, **more}
    made: Any = await use.anthropic.messages.create(**asked)
    if more.get("stream"):
        await read(made)


async def _message_events(use: Libraries) -> None:
    """By the library's helper, which puts the message together again."""
    asked: dict[str, Any] = {"model": use.model, "messages": SAID, "max_tokens": 24, **SURELY}
    async with use.anthropic.messages.stream(**asked) as stream:
        await read(stream.text_stream)


TWO: Mapping[str, Any] = {"n": 2, "temperature": 0.5}
"""Greedy answers are all the same, so vLLM refuses to give two; the seed makes these the same each time."""
BOTH_USAGES = {"include_usage": True, "continuous_usage_stats": True}

CONVERSATIONS: Mapping[str, Case] = {
    "chat": lambda use: use.chat(),
    "chat, two answers": lambda use: use.chat(**TWO),
    "chat with tools": _with_tools,
    "chat after a tool": _after_a_tool,
    "chat with structured output": lambda use: use.chat(response_format=PERSON, max_tokens=60),
    "chat with logprobs": lambda use: use.chat(logprobs=True, top_logprobs=2),
    "streamed chat": _streamed,
    "streamed chat with usage": lambda use: _streamed(use, stream_options={"include_usage": True}),
    "streamed chat with running usage": lambda use: _streamed(use, stream_options=BOTH_USAGES),
    "streamed chat that declines usage": lambda use: _streamed(use, stream_options={"include_usage": False}),
    "streamed chat, two answers": lambda use: _streamed(use, **TWO),
    "streamed chat with tools": _tools_streamed,
    "streamed chat with structured output": lambda use: _streamed(use, response_format=PERSON, max_tokens=60),
    "streamed chat with logprobs": lambda use: _streamed(use, logprobs=True, top_logprobs=2),
    "completion": _completion,
    "completion with logprobs": lambda use: _completion(use, logprobs=2),
    "streamed completion": lambda use: _completion(use, stream=True),
    "streamed completion with usage": lambda use: _completion(use, stream=True, stream_options={"include_usage": True}),
    "response": _response,
    "streamed response": lambda use: _response(use, stream=True),
    "message": _message,
    "streamed message": lambda use: _message(use, stream=True),
    "streamed message, by events": _message_events,
    "token ids": lambda use: use.post("/tokenize", prompt="once upon a time"),
    "text of token ids": lambda use: use.post("/detokenize", tokens=[5, 6, 7]),
}
"""What every engine that can chat answers."""

POOLING: Mapping[str, Case] = {
    "chat with a picture": _with_a_picture,
    "embeddings": lambda use: use.openai.embeddings.create(model=use.model, input=["one", "two"]),
    "rerank": lambda use: use.post("/v1/rerank", query="abc", documents=["abcdef", "xyz"], top_n=1),
    "rerank by its older path": lambda use: use.post("/rerank", query="abc", documents=["abcdef", "xyz"]),
    "score": lambda use: use.post("/v1/score", text_1="abc", text_2=["abcdef", "xyz"]),
    "transcription": lambda use: use.openai.audio.transcriptions.create(
        model=use.model, file=("a.wav", b"RIFF" * 9000, "audio/wav")
    ),
}
"""What only some engines answer."""

REFUSALS: Mapping[str, Case] = {
    "a temperature that is a word": lambda use: use.chat(temperature="hot"),
    "fewer than no tokens": lambda use: use.chat(max_tokens=-1),
    "a bound that is a word": lambda use: use.chat(max_tokens="many"),
    "no messages": lambda use: use.chat(messages=None),
    "too long a prompt": lambda use: use.chat(messages=[{"role": "user", "content": "word " * 3000}]),
    "too long a prompt, streamed": lambda use: _streamed(use, messages=[{"role": "user", "content": "word " * 3000}]),
    "too many logprobs": lambda use: use.chat(logprobs=True, top_logprobs=99),
    "stream options without a stream": lambda use: use.chat(stream_options={"include_usage": True}),
    "a completion of nothing": lambda use: use.post("/v1/completions", max_tokens=1),
    "too long a message": lambda use: _message(use, messages=[{"role": "user", "content": "word " * 3000}]),
    "a message without messages": lambda use: use.post("/v1/messages", max_tokens=5),
}
"""What an engine refuses in its own words, which are passed on."""

OWN_WORDS: Mapping[str, Case] = {
    "an unknown model": lambda use: use.chat(model="no/such-model"),
    "a streamed chat of an unknown model": lambda use: _streamed(use, model="no/such-model"),
    "a message of an unknown model": lambda use: _message(use, model="no/such-model"),
}
"""What the gateway refuses itself: the status is the engine's, the words are ours."""


@asynccontextmanager
async def libraries(url: str, model: str) -> AsyncIterator[tuple[Libraries, Recorder]]:
    recorder = Recorder()
    async with (
        httpx2.AsyncClient(
            transport=recorder, base_url=url, timeout=TIMEOUT_S, headers={"authorization": f"Bearer {CLEAR_KEY}"}
        ) as http,
        httpx2.AsyncClient(transport=recorder, timeout=TIMEOUT_S) as bare,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=CLEAR_KEY, max_retries=0, http_client=bare) as openais,
        anthropic.AsyncAnthropic(base_url=url, api_key=CLEAR_KEY, max_retries=0, http_client=bare) as anthropics,
    ):
        yield Libraries(openais, anthropics, http, model), recorder


async def recorded(url: str, model: str, case: Case) -> list[Recording]:
    """The answers that one conversation got from one side; at least one."""
    async with libraries(url, model) as (use, recorder):
        with contextlib.suppress(openai.APIError, anthropic.APIError):
            await case(use)
    assert recorder.recordings, "nothing was asked"
    return recorder.recordings
