"""One request, straight into the ASGI application; a stream is left as soon as it has nothing more to say for now.

httpx would wait for the end of a reply, and a live stream has none.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI

SILENCE_S = 0.1
"""A stream sends what lies behind at once; after so long without news there is only the future to wait for."""
LONGEST_S = 20.0


@dataclass
class Answer:
    """`headers`: names in lower case."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")

    @property
    def code(self) -> str:
        """Of a refusal; "" for any other reply."""
        try:
            said = json.loads(self.body)
        except ValueError:
            return ""
        return str(said.get("error", "")) if isinstance(said, dict) else ""

    @property
    def is_stream(self) -> bool:
        return self.headers.get("content-type", "").startswith("text/event-stream")


async def ask(
    app: FastAPI,
    method: str,
    path: str,
    *,
    query: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    body: Any = None,
) -> Answer:
    """The reply; `body` None sends none, anything else is sent as JSON.

    Raises:
        TimeoutError: no end after LONGEST_S.
    """
    answer, spoke, gone = Answer(), asyncio.Event(), asyncio.Event()
    sent = b"" if body is None else json.dumps(body).encode()
    unread = [{"type": "http.request", "body": sent, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if unread:
            return unread.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        elif message["type"] == "http.response.body":
            answer.body += message.get("body", b"")
        spoke.set()

    task = asyncio.ensure_future(app(_scope(method, path, query or {}, headers or {}, body), receive, send))
    try:
        async with asyncio.timeout(LONGEST_S):
            await _until_silent(task, answer, spoke)
    finally:
        gone.set()
        task.cancel()
        await asyncio.wait({task})
    if not task.cancelled() and (error := task.exception()) and not answer.status:
        raise error
    return answer


async def _until_silent(task: asyncio.Future[None], answer: Answer, spoke: asyncio.Event) -> None:
    while not task.done():
        spoke.clear()
        waiting = asyncio.ensure_future(spoke.wait())
        either: set[asyncio.Future[Any]] = {task, waiting}
        timeout_s = SILENCE_S if answer.is_stream else None
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if answer.is_stream and not spoke.is_set():
            return


def _scope(method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: Any) -> dict[str, Any]:
    lines = {"host": "api.test", **headers, **({} if body is None else {"content-type": "application/json"})}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": urlsplit(path).path,
        "raw_path": path.encode(),
        "query_string": urlencode(query).encode(),
        "headers": [(name.encode(), value.encode()) for name, value in lines.items()],
        "client": ("10.99.0.1", 40_000),
        "server": ("api.test", 80),
        "root_path": "",
        "state": {},
    }
