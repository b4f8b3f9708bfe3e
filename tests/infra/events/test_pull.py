import asyncio
from collections.abc import AsyncIterator

import msgspec
import nats
import pytest
from nats.aio.client import Client

from infra.embedded.nats import EmbeddedNats
from infra.events import pull
from infra.events.connection import connect_reader, disconnect
from infra.events.port import GapError
from infra.events.pull import StreamMessage, follow_messages
from tests.faults import fault_proxy

WAIT_S = 60.0


@pytest.fixture
async def admin(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    connection = await nats.connect(nats_server.admin_url)
    yield connection
    await connection.close()


async def publish(admin: Client, subject: str, *payloads: bytes) -> None:
    for payload in payloads:
        await admin.jetstream().publish(subject, payload, headers={"Kind": "test"})


async def collect(batches: AsyncIterator[list[StreamMessage]], count: int) -> list[StreamMessage]:
    found: list[StreamMessage] = []
    async with asyncio.timeout(WAIT_S):
        while len(found) < count:
            found += await anext(batches)
    return found


async def test_any_stream_can_be_followed(admin: Client) -> None:
    await publish(admin, "use.acme.d1", b"one", b"two")
    async with follow_messages(admin, "USAGE", after=0) as batches:
        found = await collect(batches, 2)
    assert [(m.position, m.subject, m.payload, m.pending) for m in found] == [
        (1, "use.acme.d1", b"one", 1),
        (2, "use.acme.d1", b"two", 0),
    ]
    assert found[0].headers == {"Kind": "test"}


async def test_many_large_messages_arrive_within_the_window(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "WINDOW_BYTES", 500_000)
    monkeypatch.setattr(pull, "WINDOW_MESSAGES", 20)
    payloads = [str(number).encode() * 50_000 for number in range(10, 90)]
    await publish(admin, "use.acme.d1", *payloads)
    async with follow_messages(admin, "USAGE", after=0, contiguous=True) as batches:
        found = await collect(batches, len(payloads))
    assert [m.payload for m in found] == payloads


async def test_a_request_that_expired_is_renewed(admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pull, "REQUEST_EXPIRES_S", 0.2)
    monkeypatch.setattr(pull, "HEARTBEAT_S", 0.1)
    async with follow_messages(admin, "USAGE", after=0) as batches:
        waiting = asyncio.create_task(collect(batches, 1))
        await asyncio.sleep(0.5)  # the subject is time itself: two requests expire
        await publish(admin, "use.acme.d1", b"late")
        assert [m.payload for m in await waiting] == [b"late"]


async def test_a_hole_in_the_stream_stops_a_reader_that_insists(admin: Client) -> None:
    await publish(admin, "tel.acme.i1.sample", b"one", b"two", b"three")
    await admin.jetstream().delete_msg("TELEMETRY", 2)
    async with follow_messages(admin, "TELEMETRY", after=0, contiguous=True) as batches:
        with pytest.raises(GapError, match="TELEMETRY has no position 2: after it comes 3"):
            await collect(batches, 3)
    async with follow_messages(admin, "TELEMETRY", after=0) as batches:
        assert [m.position for m in await collect(batches, 2)] == [1, 3]


async def test_a_consumer_that_vanishes_is_replaced(admin: Client) -> None:
    await publish(admin, "use.acme.d1", b"one")
    async with follow_messages(admin, "USAGE", after=0) as batches:
        await collect(batches, 1)
        names = msgspec.json.decode((await admin.request("$JS.API.CONSUMER.NAMES.USAGE")).data)["consumers"]
        assert len(names) == 1
        await admin.jetstream().delete_consumer("USAGE", names[0])
        await publish(admin, "use.acme.d1", b"two")
        assert [m.payload for m in await collect(batches, 1)] == [b"two"]


async def test_a_consumer_that_beats_on_and_delivers_nothing_is_replaced(
    admin: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a node whose file is damaged; here its first consumer is told to look for what never comes."""
    monkeypatch.setattr(pull, "QUIET_WAITS", 2)
    starts, start = 0, pull._Follower._start_consumer

    async def astray(follower: pull._Follower) -> pull._Consumer:
        nonlocal starts
        starts += 1
        follower._subjects = ("use.nobody",) if starts == 1 else ()
        return await start(follower)

    monkeypatch.setattr(pull._Follower, "_start_consumer", astray)
    async with follow_messages(admin, "USAGE", after=0, contiguous=True) as batches:
        await publish(admin, "use.acme.d1", b"one")
        assert [m.payload for m in await collect(batches, 1)] == [b"one"]
        assert starts == 2


async def test_nothing_is_left_on_the_server_when_following_ends(admin: Client) -> None:
    await publish(admin, "use.acme.d1", b"one")
    async with follow_messages(admin, "USAGE", after=0) as batches:
        await collect(batches, 1)
    names = msgspec.json.decode((await admin.request("$JS.API.CONSUMER.NAMES.USAGE")).data)["consumers"]
    assert not names


@pytest.mark.parametrize("until_lost", [b"two", b"stream_info_response"], ids=["one delivery", "all signs of life"])
async def test_a_connection_that_loses_what_the_server_sends_is_noticed(
    nats_server: EmbeddedNats, admin: Client, monkeypatch: pytest.MonkeyPatch, until_lost: bytes
) -> None:
    monkeypatch.setattr(pull, "HEARTBEAT_S", 0.1)
    monkeypatch.setattr(pull, "API_TIMEOUT_S", 0.3)
    async with fault_proxy(nats_server.port) as proxy:
        reader = await connect_reader(nats_server.url.replace(f":{nats_server.port}", f":{proxy.port}"), "faulty")
        async with follow_messages(reader, "USAGE", after=0, contiguous=True) as batches:
            await publish(admin, "use.acme.d1", b"one")
            await collect(batches, 1)
            proxy.swallowing = True
            await publish(admin, "use.acme.d1", b"two")
            waiting = asyncio.create_task(collect(batches, 1))
            async with asyncio.timeout(WAIT_S):
                while until_lost not in proxy.lost:  # noqa: ASYNC110 - the state lies in a socket
                    await asyncio.sleep(0.01)
            proxy.swallowing = False
            assert [m.payload for m in await waiting] == [b"two"]
        await disconnect(reader)


async def test_a_connection_closed_for_good_ends_the_following(nats_server: EmbeddedNats, admin: Client) -> None:
    reader = await connect_reader(nats_server.url, "reader")
    await publish(admin, "use.acme.d1", b"one")
    async with follow_messages(reader, "USAGE", after=0) as batches:
        await collect(batches, 1)
        waiting = asyncio.create_task(collect(batches, 1))
        await asyncio.sleep(0)
        await disconnect(reader)
        with pytest.raises(nats.errors.ConnectionClosedError):
            await waiting
