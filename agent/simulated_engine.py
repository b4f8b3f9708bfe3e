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
from typing import Any, Literal, TypeVar

import msgspec
from aiohttp import web

from agent.child import die_with, own_command
from agent.engine import EngineCommand
from agent.settings import Settings, engine_args
from agent.simulated_languages import MessagesScript, ResponsesScript
from agent.simulated_ledger import Entry, Ledger, counting
from agent.simulated_metrics import Metrics
from agent.simulated_pooling import (
    DetokenizeRequest,
    EmbeddingRequest,
    RerankRequest,
    ScoreRequest,
    TokenizeRequest,
    embeddings,
    reranked,
    scores,
    text_of,
    tokens_of,
)
from agent.simulated_reply import Answer, FinishReason, answer_chat, answer_completion
from agent.simulated_requests import (
    ChatRequest,
    CompletionRequest,
    InvalidRequestError,
    MessagesRequest,
    ResponsesRequest,
    count_tokens,
)
from agent.simulated_wire import OpenAIScript, Script

MAX_BODY_BYTES = 32 << 20
MAX_WAITING = 10_000
AUDIO_BYTES_PER_S = 32_000
"""16 kHz of 16 bits, which is what every upload is taken for."""

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
        self._ledger = Ledger()
        self._slots = asyncio.Semaphore(behaviour.max_concurrency or MAX_WAITING)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=MAX_BODY_BYTES, middlewares=[_errors_as_documented])
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._show_metrics)
        app.router.add_get("/openapi.json", self._describe)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/simulated/requests/{id}", self._show_entry)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/v1/completions", self._completion)
        app.router.add_post("/v1/responses", self._response)
        app.router.add_post("/v1/messages", self._message)
        app.router.add_post("/v1/embeddings", self._embeddings)
        app.router.add_post("/v1/audio/transcriptions", self._transcribe)
        app.router.add_post("/tokenize", self._tokenize)
        app.router.add_post("/detokenize", self._detokenize)
        for path in ("/v1/rerank", "/v2/rerank", "/rerank"):
            app.router.add_post(path, self._rerank)
        for path in ("/v1/score", "/score"):
            app.router.add_post(path, self._score)
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

    async def _describe(self, request: web.Request) -> web.Response:
        """As FastAPI's description, of which the paths matter."""
        paths: dict[str, dict[str, Any]] = {}
        for route in request.app.router.routes():
            if route.resource is not None and route.method != "HEAD":
                paths.setdefault(route.resource.canonical, {})[route.method.lower()] = {}
        return _json({"openapi": "3.1.0", "info": {"title": "simulated engine", "version": "1"}, "paths": paths})

    async def _show_entry(self, request: web.Request) -> web.Response:
        entry = self._ledger.find(request.match_info["id"])
        if entry is None:
            raise web.HTTPNotFound(text="No request of this id came here.")
        return _json(entry)

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request, ChatRequest)
        script = self._openai("chatcmpl", asked, chat=True)
        return await self._generate(request, bool(asked.stream), answer_chat(asked, self._context), script)

    async def _completion(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request, CompletionRequest)
        script = self._openai("cmpl", asked, chat=False)
        return await self._generate(request, bool(asked.stream), answer_completion(asked, self._context), script)

    async def _response(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request, ResponsesRequest)
        answer = answer_chat(asked.as_chat(), self._context)
        script = ResponsesScript(uuid.uuid4().hex, self._model, int(time.time()))
        return await self._generate(request, bool(asked.stream), answer, script)

    async def _message(self, request: web.Request) -> web.StreamResponse:
        asked = await self._read(request, MessagesRequest)
        answer = answer_chat(asked.as_chat(), self._context)
        return await self._generate(request, bool(asked.stream), answer, MessagesScript(uuid.uuid4().hex, self._model))

    async def _embeddings(self, request: web.Request) -> web.Response:
        return _json(embeddings(await self._read(request, EmbeddingRequest)))

    async def _rerank(self, request: web.Request) -> web.Response:
        return _json(reranked(await self._read(request, RerankRequest), uuid.uuid4().hex))

    async def _score(self, request: web.Request) -> web.Response:
        return _json(scores(await self._read(request, ScoreRequest), uuid.uuid4().hex, int(time.time())))

    async def _tokenize(self, request: web.Request) -> web.Response:
        return _json(tokens_of(_decoded(await request.read(), TokenizeRequest), self._context))

    async def _detokenize(self, request: web.Request) -> web.Response:
        return _json(text_of(_decoded(await request.read(), DetokenizeRequest)))

    async def _transcribe(self, request: web.Request) -> web.Response:
        """Hears nothing, but knows how long it would have listened."""
        form = await request.post()
        self._require_own(str(form.get("model", "")))
        upload = form.get("file")
        if not isinstance(upload, web.FileField):
            raise InvalidRequestError("a file is needed")
        seconds = -(-len(upload.file.read()) // AUDIO_BYTES_PER_S)
        text = f"mock: {upload.filename}"
        return _json({"text": text, "usage": {"type": "duration", "seconds": seconds}, "tokens": count_tokens(text)})

    def _openai(self, prefix: str, asked: ChatRequest | CompletionRequest, *, chat: bool) -> OpenAIScript:
        if asked.stream_options is not None and not asked.stream:
            raise InvalidRequestError("Stream options can only be defined when `stream=True`.")
        name = f"{prefix}-{uuid.uuid4().hex}"
        return OpenAIScript(name, self._model, int(time.time()), chat, asked.stream_options)

    @property
    def _context(self) -> int:
        return self._behaviour.context_tokens

    async def _read(self, request: web.Request, shape: type[T]) -> T:
        asked = _decoded(await request.read(), shape)
        self._require_own(getattr(asked, "model", ""))
        return asked

    def _require_own(self, model: str) -> None:
        if model != self._model:
            raise web.HTTPNotFound(text=f"The model `{model}` does not exist.")

    async def _generate(self, request: web.Request, stream: bool, answer: Answer, script: Script) -> web.StreamResponse:
        entry = self._ledger.open(request.headers.get("x-request-id", ""), answer.prompt_tokens)
        async with self._admitted(answer, entry):
            if stream:
                return await self._stream(request, answer, script, entry)
            async for _ in self._tokens(answer):
                entry.completion_tokens += answer.choices
            return _json(script.whole(answer))

    async def _stream(self, request: web.Request, answer: Answer, script: Script, entry: Entry) -> web.StreamResponse:
        reply = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await reply.prepare(request)
        await reply.write(script.opening(answer))
        assert request.transport is not None  # noqa: S101 - the impossible: it has just carried the opening
        with counting(entry, request.transport.get_extra_info("socket")) as count:
            async for at in self._tokens(answer):
                piece = script.piece(answer, at)
                count(len(piece), answer.choices)
                await reply.write(piece)
        await reply.write(script.closing(answer))
        await reply.write_eof()
        return reply

    @asynccontextmanager
    async def _admitted(self, answer: Answer, entry: Entry) -> AsyncIterator[None]:
        """A place among the running requests; whatever ends the request early counts as an abort."""
        reason: FinishReason | Literal["abort"] = "abort"
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
            entry.ended = reason
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
async def _errors_as_documented(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except InvalidRequestError as error:
        return _error(request, 400, "BadRequestError", str(error))
    except web.HTTPException as error:
        kind = (
            "NotFoundError"
            if error.status == 404
            else "BadRequestError"
            if error.status < 500
            else "InternalServerError"
        )
        return _error(request, error.status, kind, error.text or error.reason)


def _decoded(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.MsgspecError as error:
        raise InvalidRequestError(str(error)) from error


def _error(request: web.Request, status: int, kind: str, message: str) -> web.Response:
    if request.path.startswith("/v1/messages"):
        return _json({"type": "error", "error": {"type": kind, "message": message}}, status)
    return _json({"error": {"message": message, "type": kind, "param": None, "code": status}}, status)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


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
