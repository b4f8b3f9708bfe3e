"""A relay within the specification, and a real agent that is reached through it alone."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from gateway.calls import Calls
from gateway.origin import Timeouts, origin_of
from infra.tunnel.authority import Authority, ask_api
from infra.tunnel.lot import Lot
from infra.tunnel.relay import Relay, relaying
from tests.agent.stand_in import INSTANCE, MODEL, ROOT, AgentProcess, StandIn, free_port
from tests.gateway.told import Told, over, request_to

BOUND_S = 20.0


class Relayed:
    """A relay that listens; `engine_url` is what a gateway is told."""

    def __init__(self, lot: Lot, url: str, inner_url: str) -> None:
        self.lot = lot
        self.url = url
        self.inner_url = inner_url

    @property
    def engine_url(self) -> str:
        return f"{self.inner_url}/t/{INSTANCE}/engine"

    @property
    def agent_url(self) -> str:
        return f"{self.inner_url}/t/{INSTANCE}/agent"


@asynccontextmanager
async def relayed(plane: StandIn, host: str = "127.0.0.1") -> AsyncIterator[Relayed]:
    """Args: host, where agents reach it."""
    lot = Lot()
    outer, inner = (socket.create_server((where, 0)) for where in (host, "127.0.0.1"))
    urls = ["http://{}:{}".format(*listener.getsockname()[:2]) for listener in (outer, inner)]
    async with relaying(Relay(Authority(ask_api(plane.url)), lot), lot, outer=outer, inner=inner):
        yield Relayed(lot, *urls)


@asynccontextmanager
async def edge(relay_url: str, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """What stands before the relay in production: ends TLS, passes bytes on, and knows no half-closed connection."""
    relay = urlsplit(relay_url)

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection(relay.hostname, relay.port)
        copies = [
            asyncio.create_task(_copied(reader, inner_writer)),
            asyncio.create_task(_copied(inner_reader, writer)),
        ]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for copy in copies:
            copy.cancel()
        await asyncio.gather(*copies, return_exceptions=True)
        for end in (writer, inner_writer):
            end.transport.abort()

    async with await asyncio.start_server(passed_on, "127.0.0.1", 0, ssl=tls) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
            await writer.drain()


def tunnelled(plane: StandIn, relay_url: str, folder: Path, **variables: str) -> AgentProcess:
    """An agent that has not started."""
    return AgentProcess(plane.url, folder, WORKER_TUNNEL="1", WORKER_TUNNEL_URL=relay_url, **variables)


@asynccontextmanager
async def calling(url: str) -> AsyncIterator[Callable[..., Told]]:
    """A gateway's own calls to an engine at `url`."""
    calls, origin = Calls(now_s=time.monotonic), origin_of(url)

    def begin(then: Callable[[Told], None] = lambda _: None, **asked: Any) -> Told:
        told = Told(then=then)
        body = {"model": MODEL, "messages": [{"role": "user", "content": "one two three four"}], **asked}
        told.call = calls.begin(  # type: ignore[attr-defined]  # for specifications of leaving
            origin, request_to(origin, json.dumps(body).encode()), told, timeouts=Timeouts(total_s=BOUND_S)
        )
        return told

    try:
        yield begin
    finally:
        await calls.close()


async def ask(begin: Callable[..., Told], **asked: Any) -> Told:
    return await over(begin(**asked))


def content_of(streamed: bytes) -> str:
    """What a streamed chat said, without the echo's own word."""
    lines = [line.removeprefix(b"data: ") for line in streamed.split(b"\n\n") if line.startswith(b"data: {")]
    deltas = [choice["delta"] for line in lines for choice in json.loads(line)["choices"]]
    return "".join(delta.get("content") or "" for delta in deltas).removeprefix("mock: ")


async def until(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + BOUND_S
    while not holds():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


class RelayProcess:
    """`inventiv serve tunnel` on ports that outlive it."""

    def __init__(self, plane: StandIn) -> None:
        self.port, self.inner_port = free_port(), free_port()
        self.url, self.inner_url = f"http://127.0.0.1:{self.port}", f"http://127.0.0.1:{self.inner_port}"
        self.engine_url = f"{self.inner_url}/t/{INSTANCE}/engine"
        self._environment = {
            "PATH": os.environ["PATH"],
            "INVENTIV_API_URL": plane.url,
            "INVENTIV_TUNNEL_PORT": str(self.port),
            "INVENTIV_TUNNEL_INNER_PORT": str(self.inner_port),
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "infra.cli.main", "serve", "tunnel"),
            cwd=ROOT,
            env=self._environment,
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        await until(self._listens, "the relay listens")

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_exception: object) -> None:
        await self.end(signal.SIGKILL)

    async def end(self, number: signal.Signals) -> int:
        assert self._process is not None
        if self._process.returncode is None:
            self._process.send_signal(number)
        return await asyncio.wait_for(self._process.wait(), BOUND_S)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.inner_port)) == 0
