"""Who was heard when: from memory while it is fresh, from the stream when it is not; and probes of real agents."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from unittest.mock import patch

import msgspec
import pytest
from aiohttp import web
from nats.aio.client import Client

from domain.ids import InstanceId, OrganizationId, WorkerId
from domain.telemetry import WorkerSeen, heartbeat_subject
from infra import worker_hearing
from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.telemetry_stream import TelemetryStream
from infra.worker_hearing import FRESH_S, HeardWorkers, TelemetryUnreadableError, probe_agent

ACME = OrganizationId("acme")
ONE = InstanceId("instance-1")
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


def beat(at: datetime = NOON, instance: InstanceId = ONE) -> WorkerSeen:
    return WorkerSeen(
        organization_id=ACME,
        instance_id=instance,
        worker_id=WorkerId("worker-1"),
        at=at,
        status="ready",
        queue_depth=0,
    )


@pytest.fixture
async def writer(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    connection = await connect_writer(nats_server.url, "test")
    yield connection
    await disconnect(connection)


@pytest.fixture
async def reader(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    connection = await connect_reader(nats_server.url, "test")
    yield connection
    await disconnect(connection)


async def said(writer: Client, *beats: WorkerSeen) -> None:
    """They are stored when this returns."""
    for one in beats:
        subject = heartbeat_subject(one.organization_id, one.instance_id)
        await writer.jetstream().publish(subject, msgspec.json.encode(one))


async def test_who_was_never_heard_of_is_unknown(writer: Client) -> None:
    assert await HeardWorkers(writer, Clock())(ACME, ONE) is None


async def test_what_was_said_before_this_process_began_is_read_from_the_stream(writer: Client, reader: Client) -> None:
    await said(writer, beat(NOON - timedelta(seconds=40)), beat(NOON - timedelta(seconds=20)))
    assert await HeardWorkers(reader, Clock())(ACME, ONE) == NOON - timedelta(seconds=20)


async def test_who_is_heard_costs_no_request(writer: Client, reader: Client) -> None:
    hearing = HeardWorkers(reader, clock := Clock())
    await hearing(ACME, ONE)
    clock.now += timedelta(seconds=60)
    await TelemetryStream(writer).publish(beat())
    await _until(lambda: hearing._heard != {})
    with patch.object(worker_hearing, "leader_last", side_effect=AssertionError("asked the stream")):
        assert await hearing(ACME, ONE) == clock.now


async def test_memory_alone_never_makes_silence(writer: Client, reader: Client) -> None:
    """A heartbeat that this connection missed counts, because the stream has it."""
    hearing = HeardWorkers(reader, clock := Clock())
    hearing._is_listening = True  # it believes so, yet hears nothing
    hearing._heard[heartbeat_subject(ACME, ONE)] = NOON
    clock.now += timedelta(seconds=FRESH_S)
    await said(writer, beat(NOON + timedelta(seconds=9)))
    assert await hearing(ACME, ONE) == NOON + timedelta(seconds=9)


async def test_without_nats_nothing_is_known(nats_server: EmbeddedNats) -> None:
    connection = await connect_writer(nats_server.url, "test")
    hearing = HeardWorkers(connection, Clock())
    await nats_server.kill()
    with patch.object(worker_hearing, "REPLY_TIMEOUT_S", 0.3), pytest.raises(TelemetryUnreadableError):
        await hearing(ACME, ONE)
    await disconnect(connection)


@asynccontextmanager
async def agent(status: int, *, path: str = "/readyz") -> AsyncIterator[str]:
    async def answer(_request: web.Request) -> web.Response:
        return web.Response(status=status, headers={"location": "/elsewhere"} if status == 302 else {})

    async def elsewhere(_request: web.Request) -> web.Response:
        return web.Response()

    app = web.Application()
    app.router.add_get(path, answer)
    app.router.add_get("/elsewhere", elsewhere)
    async with AsyncExitStack() as stack:
        runner = web.AppRunner(app)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"


@pytest.mark.parametrize(("status", "answers"), [(200, True), (503, False), (302, False)])
async def test_an_agent_answers_when_it_is_ready(status: int, answers: bool) -> None:
    async with agent(status) as url:
        assert await probe_agent(url) is answers


async def test_an_agent_behind_a_tunnel_is_asked_below_its_path() -> None:
    async with agent(200, path="/t/instance-1/agent/readyz") as url:
        assert await probe_agent(f"{url}/t/instance-1/agent") is True


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "nonsense", "http://"])
async def test_nobody_there_is_no_answer(url: str) -> None:
    assert await probe_agent(url) is False


async def test_a_host_that_accepts_and_says_nothing_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, patch.object(worker_hearing, "PROBE_TIMEOUT_S", 0.2):
        assert await probe_agent(f"http://127.0.0.1:{silent.getsockname()[1]}") is False


async def _until(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - another connection's delivery has no event to wait for
            await asyncio.sleep(0.01)
