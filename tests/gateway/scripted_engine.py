"""An engine whose every byte a specification writes, on a real socket; it sees what is asked, and when one leaves.

async with ScriptedEngine(script) as engine:     script(line) is called once for each request
    engine.url, engine.asked
"""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

EVENT_STREAM = "text/event-stream; charset=utf-8"
BOUND_S = 5.0
"""No specification waits longer for a state."""


@dataclass
class Asked:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        parsed: dict[str, Any] = json.loads(self.body)
        return parsed


@dataclass
class Line:
    """The open connection of one request, for the script to answer on."""

    asked: Asked
    writer: asyncio.StreamWriter
    left: asyncio.Event
    nth: int
    sent_bytes: int = 0
    chunked: bool = field(default=False)

    async def head(self, status: int = 200, content_type: str = EVENT_STREAM, length: int | None = None) -> None:
        self.chunked = length is None
        framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        self.writer.write(f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\n{framing}\r\n\r\n".encode())
        await self.writer.drain()

    async def send(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data) if self.chunked else data)
        await self.writer.drain()
        self.sent_bytes += len(data)

    async def end(self) -> None:
        if self.chunked:
            self.writer.write(b"0\r\n\r\n")
            await self.writer.drain()

    async def answer(self, body: bytes, status: int = 200, content_type: str = "application/json") -> None:
        await self.head(status, content_type, len(body))
        await self.send(body)

    def cut(self) -> None:
        """The engine dies: no end, no farewell."""
        self.writer.transport.abort()


Script = Callable[[Line], Awaitable[None]]


class ScriptedEngine:
    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self._script = script
        self._tls = tls
        self.asked: list[Asked] = []
        self.lines: list[Line] = []
        self.accepted = 0
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0, ssl=self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await self._server.wait_closed()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                while not writer.is_closing():
                    await self._serve_one(await _request(reader), reader, writer)
        except asyncio.CancelledError:
            pass
        finally:
            self._connections.discard(task)
            writer.transport.abort()

    async def _serve_one(self, asked: Asked, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(asked, writer, asyncio.Event(), nth=len(self.asked))
        self.asked.append(asked)
        self.lines.append(line)
        leaving = asyncio.ensure_future(_until_left(reader, line.left))
        try:
            await self._script(line)
        except ConnectionError:
            line.left.set()
            raise
        finally:
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)


async def _until_left(reader: asyncio.StreamReader, left: asyncio.Event) -> None:
    """Looks without reading: the next request may already be on its way on the same connection."""
    while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110 - a StreamReader tells no one
        await asyncio.sleep(0.002)
    left.set()


async def _request(reader: asyncio.StreamReader) -> Asked:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Asked(head[0].split(" ")[1], headers, body)


def echo_chunks(path: str, body: dict[str, Any]) -> list[bytes]:
    """What an OpenAI-speaking engine streams for a request: a word each, and usage when asked."""
    words = ["Hello", " there", "!"]
    key = "delta" if path.endswith("chat/completions") else "text"
    base = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
    events: list[dict[str, Any]] = []
    for word in words:
        content: Any = {"role": "assistant", "content": word} if key == "delta" else word
        events.append({**base, "choices": [{"index": 0, key: content, "finish_reason": None}]})
    last: Any = {} if key == "delta" else ""
    events.append({**base, "choices": [{"index": 0, key: last, "finish_reason": "stop"}]})
    if (body.get("stream_options") or {}).get("include_usage"):
        events.append({**base, "choices": [], "usage": USAGE})
    return [f"data: {json.dumps(event)}\n\n".encode() for event in events] + [b"data: [DONE]\n\n"]


USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


def echo_answer(path: str, body: dict[str, Any]) -> bytes:
    if path.endswith("embeddings"):
        vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
        usage = {"prompt_tokens": 11, "total_tokens": 11}
        return json.dumps({"object": "list", "data": [vector], "model": body["model"], "usage": usage}).encode()
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "text": "Hello there!"}
    if path.endswith("chat/completions"):
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Hello there!"}}
    whole = {"id": "c1", "object": "x", "created": 1, "model": body["model"], "choices": [choice], "usage": USAGE}
    return json.dumps(whole).encode()


async def echo(line: Line) -> None:
    """A well-behaved engine."""
    body = line.asked.json
    if not body.get("stream"):
        await line.answer(echo_answer(line.asked.path, body))
        return
    await line.head()
    for chunk in echo_chunks(line.asked.path, body):
        await line.send(chunk)
    await line.end()
