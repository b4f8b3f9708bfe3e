"""An engine without a model: the HTTP, the streaming and the metric names of vLLM, an echo for an answer.

    POST /v1/chat/completions ──> admitted (or queued: max_concurrency) ──> first token ──> a chunk per token ──> [DONE]
                                                └─── the client goes away: aborted at once, counted ───┘

It runs as a process of its own, `python agent.pyz engine ...`, because what is true of vLLM must be true of it: it can
be killed, it can be slow to start, and it holds nothing of the agent's.
"""

import argparse
import asyncio
import json
import os
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from agent.child import die_with, own_command
from agent.engine import EngineCommand
from agent.settings import Settings, engine_args
from agent.simulated_metrics import Metrics
from agent.simulated_reply import (
    Answer,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Generation,
    InvalidRequestError,
    TokenizeRequest,
    Wire,
    answer_chat,
    answer_completion,
    count_tokens,
    embeddings,
)

MAX_BODY_BYTES = 16 << 20
MAX_WAITING = 10_000

T = TypeVar("T")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Behaviour(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """WORKER_ENGINE_ARGS of a simulated engine.

    Attributes:
        tokens_per_s: of one request; 0 means as fast as it can.
        first_token_ms: time before the first token, without queueing.
        startup_s: time before it listens, as if weights were loaded.
        max_concurrency: requests generated at once, the others wait; 0 means no limit.
        context_tokens: the longest prompt plus answer.
    """

    tokens_per_s: float = 50.0
    first_token_ms: float = 20.0
    startup_s: float = 0.2
    max_concurrency: int = 0
    context_tokens: int = 131_072


class SimulatedEngine:
    """The routes and their shared figures; one per process."""

    def __init__(self, model: str, behaviour: Behaviour) -> None:
        self._model = model
        self._behaviour = behaviour
        self._created = int(time.time())
        self._metrics = Metrics(model)
        self._slots = asyncio.Semaphore(behaviour.max_concurrency or MAX_WAITING)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors_as_openai])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completion)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_post("/tokenize", self._tokenize)
        return app

    async def _health(self, _request: web.Request) -> web.Response:
        return web.Response()

    async def _show_metrics(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._metrics.page(), content_type="text/plain", charset="utf-8")

    async def _models(self, _request: web.Request) -> web.Response:
        model = {
            "id": self._model,
            "object": "model",
            "created": self._created,
            "owned_by": "simulated",
            "root": self._model,
            "parent": None,
            "max_model_len": self._behaviour.context_tokens,
        }
        return _json({"object": "list", "data": [model]})

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request, ChatRequest)
        return await self._generate(request, asked, answer_chat(asked, self._behaviour.context_tokens), chat=True)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request, CompletionRequest)
        return await self._generate(
            request, asked, answer_completion(asked, self._behaviour.context_tokens), chat=False
        )

    async def _embeddings(self, request: web.Request) -> web.Response:
        return _json(embeddings(await self._read(request, EmbeddingRequest)))

    async def _tokenize(self, request: web.Request) -> web.Response:
        asked = _decoded(await request.read(), TokenizeRequest)
        count = count_tokens(asked.prompt)
        context = self._behaviour.context_tokens
        return _json({"count": count, "max_model_len": context, "tokens": list(range(count))})

    async def _read(self, request: web.Request, shape: type[T]) -> T:
        asked = _decoded(await request.read(), shape)
        model = getattr(asked, "model", "")
        if model != self._model:
            raise web.HTTPNotFound(text=f"The model `{model}` does not exist.")
        return asked

    async def _generate(
        self, request: web.Request, asked: Generation, answer: Answer, *, chat: bool
    ) -> web.StreamResponse:
        name = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        wire = Wire(name, self._model, int(time.time()), chat)
        async with self._admitted(answer):
            if asked.stream:
                return await self._stream(request, asked, answer, wire)
            async for _ in self._tokens(answer):
                pass
            return _json(wire.whole(answer))

    async def _stream(self, request: web.Request, asked: Generation, answer: Answer, wire: Wire) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await reply.prepare(request)
        choices = range(answer.choices)
        if wire.chat:
            await reply.write(b"".join(_event(wire.opening(index)) for index in choices))
        last = len(answer.pieces) - 1
        async for at in self._tokens(answer):
            reason = answer.finish_reason if at == last else None
            await reply.write(b"".join(_event(wire.piece(index, answer.pieces[at], reason)) for index in choices))
        if asked.stream_options and asked.stream_options.include_usage:
            await reply.write(_event(wire.usage(answer)))
        await reply.write(b"data: [DONE]\n\n")
        await reply.write_eof()
        return reply

    @asynccontextmanager
    async def _admitted(self, answer: Answer) -> AsyncIterator[None]:
        """A place among the running requests; whatever ends the request early counts as an abort."""
        reason = "abort"
        try:
            await self._wait_for_slot()
            try:
                self._metrics.running += 1
                self._metrics.tokens_in_flight += answer.prompt_tokens
                self._metrics.prompt_read(answer)
                yield
                reason = answer.finish_reason
            finally:
                self._metrics.running -= 1
                self._metrics.tokens_in_flight -= answer.prompt_tokens
                self._slots.release()
        finally:
            self._metrics.ended(reason)

    async def _wait_for_slot(self) -> None:
        if self._metrics.waiting >= MAX_WAITING:
            raise web.HTTPServiceUnavailable(text="The engine's queue is full.")
        self._metrics.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._metrics.waiting -= 1

    async def _tokens(self, answer: Answer) -> AsyncIterator[int]:
        """Yields each token's index when its moment has come; moments are absolute, so that delays do not add up."""
        began = time.monotonic()
        due = began + self._behaviour.first_token_ms / 1000
        pause_s = 1 / self._behaviour.tokens_per_s if self._behaviour.tokens_per_s > 0 else 0.0
        for at, _ in enumerate(answer.pieces):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            if at == 0:
                self._metrics.first_token(time.monotonic() - began)
            self._metrics.generation_tokens += answer.choices
            due += pause_s
            yield at


@web.middleware
async def _errors_as_openai(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidRequestError as error:
        return _error(400, "BadRequestError", str(error))
    except web.HTTPException as error:
        kind = (
            "NotFoundError"
            if error.status == 404
            else "BadRequestError"
            if error.status < 500
            else "InternalServerError"
        )
        return _error(error.status, kind, error.text or error.reason)


def _decoded(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(str(error)) from error


def _error(status: int, kind: str, message: str) -> web.Response:
    return _json({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _event(value: Any) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


async def start_server(model: str, behaviour: Behaviour, *, host: str, port: int) -> web.AppRunner:
    """Listens when this returns; the caller cleans the runner up."""
    await asyncio.sleep(behaviour.startup_s)
    # handler_cancellation: a handler ends the moment its client goes away, as vLLM's does.
    runner = web.AppRunner(SimulatedEngine(model, behaviour).app(), handler_cancellation=True, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner


def simulated_command(settings: Settings) -> EngineCommand:
    """Raises SettingsError when WORKER_ENGINE_ARGS is not a Behaviour."""
    behaviour = msgspec.json.encode(engine_args(settings, Behaviour)).decode()
    listen = ("--host", settings.bind_ip, "--port", str(settings.vllm_port))
    own = ("--parent", str(os.getpid()), "--model", settings.model_id, "--behaviour", behaviour)
    return EngineCommand(tuple(own_command("engine", *own, *listen)), settings.engine_environment)


def main(arguments: Sequence[str]) -> int:
    """Serves until it is ended by a signal: the agent has waited for running requests before it sends one."""
    parser = argparse.ArgumentParser(prog="engine")
    parser.add_argument("--parent", type=int)
    parser.add_argument("--model", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--behaviour", default="{}")
    given = parser.parse_args(arguments)
    if given.parent is not None:
        die_with(given.parent)
    behaviour = msgspec.json.decode(given.behaviour, type=Behaviour)
    asyncio.run(_serve(given.model, behaviour, given.host, given.port))
    return 0


async def _serve(model: str, behaviour: Behaviour, host: str, port: int) -> None:
    await start_server(model, behaviour, host=host, port=port)
    print(json.dumps({"listening": f"http://{host}:{port}", "model": model}), flush=True)
    await asyncio.Event().wait()
