"""The role `gateway` and the simulated engine as real processes, for specifications in which things die."""

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from domain.usage import UsageRecord
from infra.embedded.nats import EmbeddedNats
from infra.embedded.ports import free_port
from infra.events.connection import connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.pull import follow_messages
from tests.gateway.routing import CLEAR_KEY, MODEL, key, ready, tell

BOUND_S = 60.0
PROGRAM = """
import uvloop
from infra.environment import read_environment
from infra.processes import gateway
uvloop.run(gateway.run(read_environment()))
"""
ASK = {"model": MODEL, "messages": [{"role": "user", "content": "one two three four five six seven eight"}]}


def port() -> int:
    return free_port(30_000 + secrets.randbelow(2_000))


class Process:
    """One `inventiv serve gateway`, on a data folder and a port that outlive it."""

    def __init__(self, folder: Path, nats: EmbeddedNats) -> None:
        self.port = port()
        self._environment = {
            **os.environ,
            "INVENTIV_DATA_DIR": str(folder),
            "INVENTIV_NATS_URL": nats.url,
            "INVENTIV_NATS_MONITOR_URL": nats.monitor_url,
            "INVENTIV_GATEWAY_PORT": str(self.port),
        }
        self.child: asyncio.subprocess.Process | None = None

    async def start(self, **variables: str) -> None:
        environment = {**self._environment, **variables}
        self.child = await asyncio.create_subprocess_exec(sys.executable, "-c", PROGRAM, env=environment)

    async def end(self, number: int) -> int:
        assert self.child is not None
        if self.child.returncode is None:
            self.child.send_signal(number)
        async with asyncio.timeout(BOUND_S):
            return await self.child.wait()

    async def until_ready(self, *, status: int = 200, **wanted: object) -> dict[str, Any]:
        """What /readyz says, once it says what is wanted."""
        async with asyncio.timeout(BOUND_S), aiohttp.ClientSession() as client:
            while True:
                try:
                    async with client.get(f"http://127.0.0.1:{self.port}/readyz") as reply:
                        told: dict[str, Any] = await reply.json()
                    if reply.status == status and wanted.items() <= told.items():
                        return told
                except aiohttp.ClientConnectionError:
                    pass
                await asyncio.sleep(0.02)

    @asynccontextmanager
    async def ask(self, **more: object) -> AsyncIterator[aiohttp.ClientResponse]:
        url, headers = f"http://127.0.0.1:{self.port}/v1/chat/completions", {"x-api-key": CLEAR_KEY}
        async with aiohttp.ClientSession() as client, client.post(url, json={**ASK, **more}, headers=headers) as reply:
            yield reply

    async def completed(self) -> str:
        """The id of a request that was answered well."""
        async with self.ask() as reply:
            assert (reply.status, (await reply.json())["choices"][0]["finish_reason"]) == (200, "stop")
            return reply.headers["x-request-id"]


@asynccontextmanager
async def simulated_engine() -> AsyncIterator[str]:
    """The simulated engine as a process of its own, 50 tokens a second."""
    at = port()
    command = [
        sys.executable,
        "-m",
        "agent",
        "engine",
        "--model",
        MODEL,
        "--port",
        str(at),
        "--parent",
        str(os.getpid()),
    ]
    child = await asyncio.create_subprocess_exec(*command)
    async with asyncio.timeout(BOUND_S), aiohttp.ClientSession() as client:
        while True:
            try:
                async with client.get(f"http://127.0.0.1:{at}/health") as reply:
                    if reply.status == 200:
                        break
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.02)
    yield f"http://127.0.0.1:{at}"
    child.kill()
    await child.wait()


@asynccontextmanager
async def gateway_process(nats: EmbeddedNats, engine_url: str, folder: Path) -> AsyncIterator[Process]:
    """Running, with one key and one ready worker in its table."""
    nc = await connect_writer(nats.url, "test")
    position = await tell(JetStreamLog(nc), key(), ready("i1", engine_url))
    await disconnect(nc)
    process = Process(folder, nats)
    await process.start()
    await process.until_ready(position=position)
    yield process
    await process.end(signal.SIGKILL)


async def stored_usage(nats: EmbeddedNats, *request_ids: str) -> list[UsageRecord]:
    """Everything in USAGE, once it holds those requests."""
    nc = await connect_writer(nats.url, "test")
    records: list[UsageRecord] = []
    async with asyncio.timeout(BOUND_S), follow_messages(nc, "USAGE", after=0) as batches:
        async for batch in batches:
            records += [msgspec.json.decode(message.payload, type=UsageRecord) for message in batch]
            if set(request_ids) <= {record.request_id for record in records}:
                break
    await disconnect(nc)
    return records
