"""Clients of the gateway that count what reaches them, and can leave at any token.

The surprising rule: nothing is tried again here, neither by us nor by aiohttp (which repeats idempotent requests only),
so that each failure that a client could see is seen.
"""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import msgspec

from tests.chaos.gateway.stage import OFFERING, Stage, Tenant

CHAT = "/v1/chat/completions"
PATIENCE_S = 90.0
"""Of a client for a whole answer."""

Ending = Literal["", "done", "left", "error", "broken", "refused"]


@dataclass
class Told:
    """What one client was told.

    Attributes:
        request_id: from the head of the answer; "" as long as there is none.
        tokens: pieces of content (of a plain answer, what it says of itself).
        ending: "done"; "left", of its own will; "error", an SSE error object; "broken", the connection; "refused", any
            other status than 200.
        seconds: from the request to the ending.
    """

    request_id: str = ""
    status: int = 0
    tokens: int = 0
    ending: Ending = ""
    seconds: float = 0.0
    error: str = ""

    @property
    def is_answered(self) -> bool:
        return self.ending == "done"


class _Piece(msgspec.Struct):
    delta: dict[str, Any] = {}


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Chunk(msgspec.Struct):
    choices: list[_Piece] = []
    usage: _Usage | None = None
    error: dict[str, Any] | None = None


_chunks = msgspec.json.Decoder(_Chunk)


def new_client(*, keep_alive: bool = True) -> aiohttp.ClientSession:
    """As many connections as are asked for at once."""
    connector = aiohttp.TCPConnector(limit=0, force_close=not keep_alive)
    return aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=PATIENCE_S))


def words(tokens: int, *, stream: bool, text: str = "one two three", model: str = OFFERING) -> dict[str, Any]:
    """A request for exactly so many tokens."""
    messages = [{"role": "user", "content": text}]
    return {"model": model, "messages": messages, "stream": stream, "max_tokens": tokens, "ignore_eos": True}


async def stream(
    client: aiohttp.ClientSession, play: Stage, of: Tenant, told: Told, *, tokens: int, leave_after: int = 0
) -> Told:
    """Reads a stream to its end, or until `leave_after` tokens have come; writes into `told` as it goes."""
    began_s = time.monotonic()
    try:
        async with client.post(play.url + CHAT, json=words(tokens, stream=True), headers=of.headers) as reply:
            _note_head(told, reply)
            if told.ending:
                told.error = await reply.text()
                return told
            async for line in reply.content:
                if line.startswith(b"data: {"):
                    _take(told, line[6:])
                elif line.startswith(b"data: [DONE]"):
                    told.ending = "done"
                if leave_after and told.tokens >= leave_after and not told.ending:
                    told.ending = "left"
                    reply.close()
                    return told
        told.ending = told.ending or "broken"
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        told.ending, told.error = told.ending or "broken", repr(error)
    finally:
        told.seconds = time.monotonic() - began_s
    return told


async def plain(client: aiohttp.ClientSession, play: Stage, of: Tenant, *, tokens: int, text: str = "hello") -> Told:
    """One answer in one piece."""
    told, began_s = Told(), time.monotonic()
    try:
        body = words(tokens, stream=False, text=text)
        async with client.post(play.url + CHAT, json=body, headers=of.headers) as reply:
            _note_head(told, reply)
            content = await reply.read()
            if told.ending:
                told.error = content.decode(errors="replace")
            else:
                usage = _chunks.decode(content).usage
                told.tokens, told.ending = usage.completion_tokens if usage else 0, "done"
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.MsgspecError) as error:
        told.ending, told.error = "broken", repr(error)
    told.seconds = time.monotonic() - began_s
    return told


async def until_told(streams: list[Told], tokens: int = 1, within_s: float = PATIENCE_S) -> None:
    """Returns once each of them has got so many tokens, or has ended.

    Raises:
        TimeoutError: not within that time.
    """
    async with asyncio.timeout(within_s):
        while any(told.tokens < tokens and not told.ending for told in streams):  # noqa: ASYNC110 - counted by others
            await asyncio.sleep(0.005)


def _note_head(told: Told, reply: aiohttp.ClientResponse) -> None:
    told.status, told.request_id = reply.status, reply.headers.get("x-request-id", "")
    if reply.status != 200:
        told.ending = "refused"


def _take(told: Told, data: bytes) -> None:
    chunk = _chunks.decode(data)
    told.tokens += sum(bool(piece.delta.get("content")) for piece in chunk.choices)
    if chunk.error is not None:
        told.ending, told.error = "error", str(chunk.error.get("code"))
