"""What only a log on a network can get wrong: lost replies, crashes, lagging replicas."""

import asyncio
from collections.abc import AsyncIterator

import nats
import nats.js.errors
import pytest
from nats.aio.client import Client

from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.port import LogUnavailableError
from infra.events.reads import Stored
from tests.faults import FaultProxy, fault_proxy
from tests.infra.events.envelopes import append_of

A, B = "evt.acme.instance.a", "evt.acme.instance.b"
REPLY_TIMEOUT_S = 0.3
WAIT_S = 60.0
WRITERS, EVENTS_EACH, CRASHES = 6, 30, 3


@pytest.fixture
async def proxy(nats_server: EmbeddedNats) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(nats_server.port) as between:
        yield between


@pytest.fixture
async def through_proxy(nats_server: EmbeddedNats, proxy: FaultProxy) -> AsyncIterator[Client]:
    connection = await connect_writer(nats_server.url.replace(f":{nats_server.port}", f":{proxy.port}"), "faulty")
    yield connection
    await disconnect(connection)


@pytest.fixture
async def straight(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    connection = await connect_writer(nats_server.url, "straight")
    yield connection
    await disconnect(connection)


async def lose_one_reply(proxy: FaultProxy) -> None:
    """Throws replies away until one was lost, then breaks the connection, as a crashing router does."""
    proxy.swallowing = True
    async with asyncio.timeout(WAIT_S):
        while not proxy.lost:  # noqa: ASYNC110 - the state lies in a socket
            await asyncio.sleep(0.001)
    proxy.swallowing = False
    proxy.cut()


@pytest.mark.parametrize("events", [("e1",), ("e1", "e2", "e3")])
async def test_a_lost_reply_still_gives_the_right_position_and_doubles_nothing(
    proxy: FaultProxy, through_proxy: Client, straight: Client, events: tuple[str, ...]
) -> None:
    await JetStreamLog(straight).append([append_of(B, "before")])
    log = JetStreamLog(through_proxy, reply_timeout_s=REPLY_TIMEOUT_S)
    losing = asyncio.create_task(lose_one_reply(proxy))
    position = await log.append([append_of(A, *events)])
    await losing
    assert position == 1 + len(events)
    assert [found.envelope.event_id for found in await JetStreamLog(straight).read(A)] == list(events)


async def test_control_a_naive_writer_fails_or_doubles_when_a_reply_is_lost(
    proxy: FaultProxy, through_proxy: Client, straight: Client
) -> None:
    async def naive(headers: dict[str, str]) -> None:
        losing = asyncio.create_task(lose_one_reply(proxy))
        with pytest.raises(nats.errors.TimeoutError):
            await through_proxy.jetstream().publish(A, b"once", timeout=REPLY_TIMEOUT_S, headers=headers)
        await losing
        proxy.lost.clear()
        async with asyncio.timeout(WAIT_S):
            while not through_proxy.is_connected:  # noqa: ASYNC110 - nats-py offers no event for it
                await asyncio.sleep(0.01)
        await through_proxy.jetstream().publish(A, b"once", headers=headers)

    await naive({})
    assert await JetStreamLog(straight).head() == 2, "stored twice"
    with pytest.raises(nats.js.errors.BadRequestError, match="wrong last sequence: 3"):
        await naive({"Nats-Expected-Last-Subject-Sequence": "2", "Nats-Msg-Id": "the same id"})


async def test_a_reply_lost_under_a_later_write_is_no_conflict(
    proxy: FaultProxy, through_proxy: Client, straight: Client
) -> None:
    log = JetStreamLog(through_proxy, reply_timeout_s=REPLY_TIMEOUT_S)
    proxy.swallowing = True
    mine = asyncio.create_task(log.append([append_of(A, "mine")]))
    other = JetStreamLog(straight)
    async with asyncio.timeout(WAIT_S):
        while await other.last(A) is None:  # noqa: ASYNC110 - the state lies in the server
            await asyncio.sleep(0.001)
    await other.append([append_of(A, "theirs", expected=1)])
    proxy.swallowing = False
    assert await mine == 1


async def test_an_unreachable_log_is_reported_within_the_budget_and_nothing_is_sent_later(
    nats_server: EmbeddedNats, straight: Client
) -> None:
    log = JetStreamLog(straight, reply_timeout_s=0.1, retry_budget_s=0.5)
    await nats_server.kill()
    with pytest.raises(LogUnavailableError, match=f"append to {A}"):
        await log.append([append_of(A, "e1")])
    with pytest.raises(LogUnavailableError, match=f"read {A}"):
        await log.read(A)
    await nats_server.start()
    patient = JetStreamLog(straight)
    assert await patient.head() == 0
    assert await patient.append([append_of(A, "e2")]) == 1


async def test_a_closed_connection_is_reported_at_once(straight: Client) -> None:
    await disconnect(straight)
    with pytest.raises(LogUnavailableError, match="ConnectionClosedError"):
        await JetStreamLog(straight).append([append_of(A, "e1")])


async def test_what_a_lagging_replica_leaves_out_is_read_through_the_leader(
    straight: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = JetStreamLog(straight)
    await log.append([append_of(A, "e1", "e2", "e3")])
    page = log._pages.page

    async def lagging_page(
        subject: str, position: int, *, timeout_s: float, messages: int
    ) -> tuple[list[Stored], bool]:
        found, more = await page(subject, position, timeout_s=timeout_s, messages=messages)
        return found[:1], more

    monkeypatch.setattr(log._pages, "page", lagging_page)
    assert [found.envelope.event_id for found in await log.read(A)] == ["e1", "e2", "e3"]


async def test_crashes_under_load_lose_nothing_and_double_nothing(nats_server: EmbeddedNats, straight: Client) -> None:
    log = JetStreamLog(straight, reply_timeout_s=REPLY_TIMEOUT_S)
    reader = await connect_reader(nats_server.url, "reader")
    followed: list[tuple[int, str]] = []
    total = WRITERS * EVENTS_EACH * 2

    async def write(writer: int) -> None:
        expected = 0
        for number in range(EVENTS_EACH):
            subject = f"evt.acme.instance.{writer}"
            pair = append_of(subject, f"{writer}-{number}-x", f"{writer}-{number}-y", expected=expected)
            one, other = append_of(subject, pair.messages[0][0], expected=expected), pair.messages[1][0]
            if number % 2:
                expected = await log.append([pair])
            else:
                expected = await log.append([one])
                expected = await log.append([append_of(subject, other, expected=expected)])

    async def follow() -> None:
        async with JetStreamLog(reader).follow(after=0) as batches:
            async for batch in batches:
                followed.extend((found.position, found.envelope.event_id) for found in batch)
                if len(followed) >= total:
                    return

    async def crash() -> None:
        for number in range(1, CRASHES + 1):
            while len(followed) < number * total // (CRASHES + 1):  # noqa: ASYNC110 - a list tells of no growth
                await asyncio.sleep(0.005)
            await nats_server.kill()
            await nats_server.start()

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(follow(), crash(), *(write(writer) for writer in range(WRITERS)))
    await disconnect(reader)
    assert [position for position, _ in followed] == list(range(1, total + 1))
    wanted = sorted(f"{w}-{n}-{part}" for w in range(WRITERS) for n in range(EVENTS_EACH) for part in "xy")
    assert sorted(event_id for _, event_id in followed) == wanted
    assert await log.head() == total
