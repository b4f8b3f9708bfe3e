"""A second gateway takes over from the first under load: no request fails, streams run through, all is booked once."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from infra.embedded.nats import EmbeddedNats
from tests.gateway.routing import CLEAR_KEY
from tests.infra.gateway_process import ASK, BOUND_S, Process, gateway_process, simulated_engine, stored_usage

CLIENTS = 8
STREAMS = 6
LONG = " ".join(f"word{n}" for n in range(120))
"""Two to three seconds of a stream."""


@dataclass
class Load:
    """What clients saw while it ran; half of them keep their connection, half open a new one for each request."""

    url: str
    answered: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    async def keep_asking(self, stop: asyncio.Event, *, keeps: bool) -> None:
        connector = aiohttp.TCPConnector(force_close=not keeps)
        async with aiohttp.ClientSession(connector=connector) as client:
            while not stop.is_set():
                await self._ask(client)

    async def stream(self) -> None:
        body = {**ASK, "stream": True, "messages": [{"role": "user", "content": LONG}]}
        try:
            async with aiohttp.ClientSession() as client, client.post(self.url, json=body, headers=HEADERS) as reply:
                whole = await reply.read()
                done = whole.endswith(b"data: [DONE]\n\n") and b"error" not in whole
                (self.answered if done else self.failed).append(reply.headers["x-request-id"])
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append(repr(error))

    async def _ask(self, client: aiohttp.ClientSession) -> None:
        try:
            async with client.post(self.url, json=SHORT, headers=HEADERS) as reply:
                await reply.read()
                (self.answered if reply.status == 200 else self.failed).append(reply.headers["x-request-id"])
        except (aiohttp.ClientError, TimeoutError) as error:
            self.failed.append(repr(error))
            await asyncio.sleep(0.01)


HEADERS = {"x-api-key": CLEAR_KEY}
SHORT = {**ASK, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}


@asynccontextmanager
async def under_load(gateway: Process) -> AsyncIterator[Load]:
    """Plain requests all the time, and streams that have begun."""
    load, stop = Load(f"http://127.0.0.1:{gateway.port}/v1/chat/completions"), asyncio.Event()
    async with asyncio.timeout(2 * BOUND_S), asyncio.TaskGroup() as group:
        for number in range(CLIENTS):
            group.create_task(load.keep_asking(stop, keeps=number % 2 == 0))
        for _ in range(STREAMS):
            group.create_task(load.stream())
        await more(load)
        yield load
        stop.set()


async def more(load: Load, count: int = 20) -> None:
    """Waits until so many further requests were answered."""
    wanted = len(load.answered) + count
    async with asyncio.timeout(BOUND_S):
        while len(load.answered) < wanted:  # noqa: ASYNC110 - what clients see, not what we do
            await asyncio.sleep(0.01)


@pytest.fixture
async def gateway(nats_server: EmbeddedNats, tmp_path: Path) -> AsyncIterator[Process]:
    async with simulated_engine() as engine_url, gateway_process(nats_server, engine_url, tmp_path) as process:
        yield process


def successor_of(gateway: Process, nats: EmbeddedNats, folder: Path) -> Process:
    successor = Process(folder, nats)
    successor.port = gateway.port
    successor._environment["INVENTIV_GATEWAY_PORT"] = str(gateway.port)
    return successor


async def test_no_request_fails_and_each_is_booked_once(
    gateway: Process, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    async with under_load(gateway) as load:
        second = successor_of(gateway, nats_server, tmp_path)
        await second.start()
        assert gateway.child is not None
        async with asyncio.timeout(BOUND_S):
            assert await gateway.child.wait() == 0
        await more(load)
        third = successor_of(gateway, nats_server, tmp_path)
        await third.start()
        assert await second.end(0) == 0
        await more(load)
    assert load.failed == []
    records = await stored_usage(nats_server, *load.answered)
    assert sorted(record.request_id for record in records) == sorted(load.answered)
    assert {record.outcome for record in records} == {"completed"}
    assert await third.end(signal.SIGTERM) == 0


async def test_a_plain_restart_would_fail_requests(gateway: Process) -> None:
    async with under_load(gateway) as load:
        await gateway.end(signal.SIGTERM)
        await gateway.start()
        await gateway.until_ready()
        await more(load)
    assert load.failed != []


async def test_a_gateway_that_was_told_to_stop_hands_nothing_over(
    gateway: Process, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    assert await gateway.end(signal.SIGTERM) == 0
    second = successor_of(gateway, nats_server, tmp_path)
    await second.start()
    await second.until_ready()
    await second.completed()
    assert await second.end(signal.SIGTERM) == 0


async def test_a_successor_that_is_killed_before_it_serves_leaves_the_old_one_serving(
    gateway: Process, nats_server: EmbeddedNats, tmp_path: Path
) -> None:
    async with under_load(gateway) as load:
        for delay_s in (0.3, 0.6, 0.9):
            second = successor_of(gateway, nats_server, tmp_path)
            await second.start(INVENTIV_NATS_URL="nats://127.0.0.1:9")  # it finds no log, so it is not ready at once
            await asyncio.sleep(delay_s)  # not to wait for anything: the moment of its death
            await second.end(signal.SIGKILL)
        await more(load)
    assert load.failed == []
    assert gateway.child is not None
    assert gateway.child.returncode is None
