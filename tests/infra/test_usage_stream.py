"""Usage records reach USAGE, each once, whatever was known of them before and whatever becomes of a reply."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import nats
import pytest
from nats.aio.client import Client

from gateway.meter import Posting
from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_writer, disconnect
from infra.events.port import BATCH_MESSAGES_MAX
from infra.events.streams import USAGE
from infra.usage_stream import BATCH_FROM_RECORDS, UsageStream, UsageUnavailableError
from tests.faults import fault_proxy

MANY = 5 * BATCH_FROM_RECORDS
FEW = BATCH_FROM_RECORDS - 1
RECONNECT_S = 20.0


def postings(count: int, *, first: int = 0) -> list[Posting]:
    """Of requests numbered from `first` on, of two organisations."""
    numbers = range(first, first + count)
    return [Posting(f"use.o{number % 2}.d", f"request-{number}", b'{"n":%d}' % number) for number in numbers]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[UsageStream, Client]]:
    stream, client = UsageStream(), await connect_writer(url, "gateway")
    stream.connect(client)
    try:
        yield stream, client
    finally:
        await disconnect(client)


async def stored(server: EmbeddedNats) -> list[Posting]:
    """All of USAGE, in its order."""
    nc = await nats.connect(server.admin_url)
    stream = nc.jetstream()
    found = []
    for position in range(1, (await stream.stream_info(USAGE)).state.last_seq + 1):
        message = await stream.get_msg(USAGE, position)
        assert message.subject is not None
        assert message.headers is not None
        found.append(Posting(message.subject, message.headers["Nats-Msg-Id"], message.data or b""))
    await nc.close()
    return found


def by_id(some: Sequence[Posting]) -> list[Posting]:
    return sorted(some, key=lambda posting: posting.message_id)


@pytest.mark.parametrize("count", [1, FEW, MANY])
async def test_records_are_stored_as_they_are(nats_server: EmbeddedNats, count: int) -> None:
    async with connected(nats_server.url_of("gateway")) as (stream, _):
        await stream.publish(postings(count))
    assert by_id(await stored(nats_server)) == by_id(postings(count))


async def test_more_than_one_batch_holds_are_stored_too(nats_server: EmbeddedNats) -> None:
    count = 2 * BATCH_MESSAGES_MAX + FEW
    async with connected(nats_server.url_of("gateway")) as (stream, client):
        await stream.publish(postings(count))
        info = await client.jetstream().stream_info(USAGE)
    assert info.state.messages == count


async def test_a_batch_costs_one_acknowledgement(nats_server: EmbeddedNats) -> None:
    """The control: one by one, each record is answered."""
    async with connected(nats_server.url_of("gateway")) as (stream, client):
        before = client.stats["in_msgs"]
        await stream.publish(postings(MANY))
        together = client.stats["in_msgs"] - before
        await stream.publish(postings(FEW, first=MANY))
        alone = client.stats["in_msgs"] - before - together
    assert (together, alone) == (1, FEW)


@pytest.mark.parametrize("count", [FEW, MANY])
async def test_published_twice_is_stored_once(nats_server: EmbeddedNats, count: int) -> None:
    async with connected(nats_server.url_of("gateway")) as (stream, _):
        for _ in range(2):
            await stream.publish(postings(count))
    assert by_id(await stored(nats_server)) == by_id(postings(count))


async def test_under_other_ids_twice_is_twice(nats_server: EmbeddedNats) -> None:
    """The control of the specification above."""
    async with connected(nats_server.url_of("gateway")) as (stream, _):
        await stream.publish(postings(MANY))
        await stream.publish(postings(MANY, first=MANY))
    assert len(await stored(nats_server)) == 2 * MANY


async def test_a_batch_of_which_some_are_known_is_completed(nats_server: EmbeddedNats) -> None:
    async with connected(nats_server.url_of("gateway")) as (stream, _):
        await stream.publish(postings(FEW, first=3))
        await stream.publish(postings(MANY))
    assert by_id(await stored(nats_server)) == by_id(postings(MANY))


async def test_the_same_record_twice_in_a_batch_is_stored_once(nats_server: EmbeddedNats) -> None:
    async with connected(nats_server.url_of("gateway")) as (stream, _):
        await stream.publish([*postings(MANY), *postings(1)])
    assert by_id(await stored(nats_server)) == by_id(postings(MANY))


@pytest.mark.parametrize("count", [FEW, MANY])
async def test_a_lost_reply_is_unknown_and_asking_again_is_harmless(
    nats_server: EmbeddedNats, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.usage_stream.ACK_TIMEOUT_S", 0.3)
    async with fault_proxy(nats_server.port) as proxy:
        url = nats_server.url_of("gateway").replace(f":{nats_server.port}", f":{proxy.port}")
        async with connected(url) as (stream, _):
            proxy.swallowing = True
            with pytest.raises(UsageUnavailableError):
                await stream.publish(postings(count))
            assert proxy.lost
        assert by_id(await stored(nats_server)) == by_id(postings(count))
    async with connected(nats_server.url_of("gateway")) as (stream, _):
        await stream.publish(postings(count))
    assert by_id(await stored(nats_server)) == by_id(postings(count))


async def test_before_nats_has_answered_nothing_can_be_published() -> None:
    with pytest.raises(UsageUnavailableError):
        await UsageStream().publish(postings(1))


@pytest.mark.parametrize("count", [FEW, MANY])
async def test_while_nats_is_away_it_says_so_and_nothing_is_sent_later(nats_server: EmbeddedNats, count: int) -> None:
    async with connected(nats_server.url_of("gateway")) as (stream, _):
        await nats_server.kill()
        with pytest.raises(UsageUnavailableError):
            await stream.publish(postings(count))
        await nats_server.start()
    assert await stored(nats_server) == []


async def test_once_nats_is_back_it_takes_the_same_records(nats_server: EmbeddedNats) -> None:
    async with connected(nats_server.url_of("gateway")) as (stream, client):
        await nats_server.kill()
        with pytest.raises(UsageUnavailableError):
            await stream.publish(postings(MANY))
        await nats_server.start()
        async with asyncio.timeout(RECONNECT_S):
            while not client.is_connected:  # noqa: ASYNC110 - nats-py tells nobody in particular
                await asyncio.sleep(0.02)
        await stream.publish(postings(MANY))
    assert by_id(await stored(nats_server)) == by_id(postings(MANY))
