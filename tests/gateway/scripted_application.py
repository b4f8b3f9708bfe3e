"""An application for the client side, which does what a path asks of it, and writes down what reached it.

application = ScriptedApplication()
async with serving(application, head_s=0.1) as server:     server.port, server.server

/later...       is held back: application.held[0].reply is the specification's to use
/unwelcome      is refused when its head is there     /wrong   when its body is there
/broken, /broken-late, /broken-midway    raise what is no refusal, at the head, the body, or in mid-answer
anything else   is answered at once with its method and its body
"""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from gateway.client_limits import ClientLimits, ReadLimits
from gateway.http import Attendant, Head, Headers, Reply
from gateway.server import ClientServer
from gateway.wire import Refusal

BOUND_S = 5.0
"""No specification waits longer for a state."""
MAX_BODY_BYTES = 1024 * 1024
_TEXT = ((b"content-type", b"text/plain"),)


@dataclass
class Held:
    """A request whose answer the specification gives; it is its own attendant."""

    head: Head
    body: bytes
    reply: Reply
    told: list[str] = field(default_factory=list)
    on_told: Callable[[str], None] = lambda _: None

    def client_left(self) -> None:
        self._hear("left")

    def client_slow(self) -> None:
        self._hear("slow")

    def client_ready(self) -> None:
        self._hear("ready")

    def _hear(self, what: str) -> None:
        self.told.append(what)
        self.on_told(what)


@dataclass
class ScriptedApplication:
    """Attributes: admitted, answered, refused say what it was asked, in order; cut_offs: how often it was told."""

    on_held: Callable[[Held], None] = lambda _: None
    admitted: list[str] = field(default_factory=list)
    answered: list[tuple[str, str, bytes]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    heads: list[Head] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    cut_offs: int = 0

    def admit(self, head: Head) -> Any:
        self.admitted.append(head.path)
        if head.path == "/unwelcome":
            raise Refusal(401, "unwelcome", "Go away.")
        if head.path == "/broken":
            raise RuntimeError("broken at its head")
        return len(self.admitted)

    def answer(self, head: Head, admitted: Any, body: bytes, reply: Reply) -> Attendant | None:
        assert self.admitted[admitted - 1] == head.path, "each request brings what its own head was given"
        assert type(body) is bytes
        self.answered.append((head.method, head.path, body))
        self.heads.append(head)
        if head.path == "/wrong":
            raise Refusal(400, "wrong", "That is wrong.")
        if head.path == "/broken-late":
            raise RuntimeError("broken at its body")
        if head.path == "/broken-midway":
            reply.begin(200, _TEXT)
            reply.send(b"half")
            raise RuntimeError("broken in mid-answer")
        if head.path.startswith("/later"):
            held = Held(head, body, reply)
            self.held.append(held)
            self.on_held(held)
            return held
        reply.whole(200, _TEXT, head.method.encode() + b" " + body)
        return None

    def refusal(self, head: Head | None, refusal: Refusal) -> tuple[int, Headers, bytes]:
        self.refused.append(refusal.code)
        return refusal.status, (*_TEXT, *refusal.headers), refusal.code.encode()

    def cuts_off(self) -> None:
        self.cut_offs += 1

    def max_body_bytes(self, head: Head) -> int:
        return MAX_BODY_BYTES


@dataclass(frozen=True)
class Serving:
    server: ClientServer
    port: int


@asynccontextmanager
async def serving(
    application: ScriptedApplication,
    *,
    send_buffer_bytes: int = 0,
    read: ReadLimits | None = None,
    sweep_s: float = 0.02,
    **limits: Any,
) -> AsyncIterator[Serving]:
    """The client side on a socket of its own; afterwards nothing of it is left.

    Args:
        send_buffer_bytes: what the kernel holds of a reply (at least 4 KiB); 0 leaves it to the kernel.
        limits: fields of ClientLimits.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    if send_buffer_bytes:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    chosen = ClientLimits(**{"sweep_s": sweep_s, "farewell_s": 0.0, "read": read or ReadLimits(), **limits})
    server = ClientServer(application, limits=chosen, now_s=time.monotonic)
    await server.listen(listener)
    try:
        yield Serving(server, listener.getsockname()[1])
    finally:
        server.stop_listening()
        await server.drained(0.0)
        await until(lambda: server.open_connections == 0)


def post(length: int, body: bytes = b"", path: bytes = b"/a", extra: bytes = b"") -> bytes:
    """A request in bytes; its body may be left out, or be shorter than it says."""
    return b"POST %b HTTP/1.1\r\nhost: a\r\n%bcontent-length: %d\r\n\r\n%b" % (path, extra, length, body)


async def held_by(application: ScriptedApplication) -> Held:
    """The first request that is held back, once it is."""
    await until(lambda: bool(application.held))
    return application.held[0]


async def until(holds: Callable[[], bool]) -> None:
    """Waits for a state, bounded."""
    async with asyncio.timeout(BOUND_S):
        while not holds():  # noqa: ASYNC110 - any state, not only events
            await asyncio.sleep(0.002)
