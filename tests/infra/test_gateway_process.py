"""The role `gateway` as a real process, with a real nats-server and the simulated engine, while things die."""

import asyncio
import json
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
import pytest

from domain.usage import UsageRecord
from infra.embedded.nats import EmbeddedNats
from infra.embedded.ports import free_port
from infra.events.connection import connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.pull import follow_messages
from tests.gateway.routing import CLEAR_KEY, MODEL, key, ready, tell

BOUND_S = 15.0
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


@pytest.fixture
async def engine_url() -> AsyncIterator[str]:
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


@pytest.fixture
async def gateway(nats_server: EmbeddedNats, engine_url: str, tmp_path: Path) -> AsyncIterator[Process]:
    """Running, with one key and one ready worker in its table."""
    nc = await connect_writer(nats_server.url, "test")
    position = await tell(JetStreamLog(nc), key(), ready("i1", engine_url))
    await disconnect(nc)
    process = Process(tmp_path, nats_server)
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


async def test_a_stream_of_the_simulated_engine_is_answered_and_counted(
    gateway: Process, nats_server: EmbeddedNats
) -> None:
    async with gateway.ask(stream=True) as reply:
        events = [line[6:] async for line in reply.content if line.startswith(b"data: ")]
        request_id = reply.headers["x-request-id"]
    chunks = [json.loads(event) for event in events[:-1]]
    assert events[-1].strip() == b"[DONE]"
    assert all(chunk["choices"] for chunk in chunks)
    assert "one two three" in "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    record = (await stored_usage(nats_server, request_id))[0]
    assert (record.outcome, record.counted_by, record.instance_id) == ("completed", "engine", "i1")
    assert min(record.prompt_tokens, record.completion_tokens) > 0


async def test_it_goes_on_without_nats_and_delivers_usage_afterwards(
    gateway: Process, nats_server: EmbeddedNats
) -> None:
    await nats_server.kill()
    without = [await gateway.completed() for _ in range(3)]
    await gateway.until_ready(log_connected=False)
    await nats_server.start()
    records = await stored_usage(nats_server, *without)
    assert sorted(record.request_id for record in records) == sorted(without)


async def test_behind_a_server_that_hangs_it_lets_nobody_in_beyond_its_bound(
    gateway: Process, nats_server: EmbeddedNats
) -> None:
    await gateway.end(signal.SIGTERM)
    await gateway.start(INVENTIV_KEY_TRUST_S="5")
    await gateway.until_ready(log_connected=True)
    assert nats_server.pid is not None
    os.kill(nats_server.pid, signal.SIGSTOP)  # its connections stay open, and nobody answers on them
    try:
        await gateway.completed()
        told = await gateway.until_ready(status=503, trusted=False)
        assert told["age_s"] >= 5
        async with gateway.ask() as reply:
            assert (reply.status, (await reply.json())["error"]["code"]) == (503, "key_table_too_old")
    finally:
        os.kill(nats_server.pid, signal.SIGCONT)
    await gateway.until_ready(trusted=True)
    await gateway.completed()


async def test_killed_without_nats_it_starts_from_its_snapshot_and_loses_no_usage(
    gateway: Process, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    async with asyncio.timeout(BOUND_S):
        while not (tmp_path / "gateway" / "routing.json").exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.02)
    await nats_server.kill()
    before = await gateway.completed()
    await gateway.end(signal.SIGKILL)
    await gateway.start()
    assert (await gateway.until_ready())["source"] == "disk"
    after = await gateway.completed()
    await nats_server.start()
    records = await stored_usage(nats_server, before, after)
    assert sorted(record.request_id for record in records) == sorted([before, after])


async def test_it_ends_cleanly_and_finishes_a_running_stream_first(gateway: Process) -> None:
    async with gateway.ask(stream=True) as reply:
        first = await reply.content.readany()
        ending = asyncio.ensure_future(gateway.end(signal.SIGTERM))
        rest = await reply.content.read()
    assert (first + rest).endswith(b"data: [DONE]\n\n")
    assert await ending == 0


async def test_it_refuses_a_server_without_the_streams(bare_nats: EmbeddedNats, tmp_path: Path) -> None:
    process = Process(tmp_path, bare_nats)
    await process.start()
    assert process.child is not None
    async with asyncio.timeout(BOUND_S):
        assert await process.child.wait() == os.EX_CONFIG


async def test_two_gateways_on_one_folder_do_not_meet(
    gateway: Process, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    second = Process(tmp_path, nats_server)
    await second.start()
    assert second.child is not None
    async with asyncio.timeout(BOUND_S):
        assert await second.child.wait() == os.EX_CONFIG
    await gateway.completed()
