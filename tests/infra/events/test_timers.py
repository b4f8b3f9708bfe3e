import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client

from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_writer, disconnect
from infra.events.port import LogUnavailableError
from infra.events.pull import StreamMessage, follow_messages
from infra.events.timers import Timers

WAIT_S = 60.0
LATEST_S = 2.0
"""A quarter of a second by measurement; the rest is for a busy machine."""


@pytest.fixture
async def connection(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    writer = await connect_writer(nats_server.url, "test")
    yield writer
    await disconnect(writer)


@pytest.fixture
def timers(connection: Client) -> Timers:
    return Timers(connection)


def in_seconds(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def due(connection: Client, count: int) -> list[StreamMessage]:
    found: list[StreamMessage] = []
    async with (
        asyncio.timeout(WAIT_S),
        follow_messages(connection, "TIMERS", after=0, subjects=["due.>"]) as batches,
    ):
        async for batch in batches:
            found += batch
            if len(found) >= count:
                return found
    raise AssertionError("follow ended")


async def test_a_timer_fires_at_its_time_and_not_before(timers: Timers, connection: Client) -> None:
    at = in_seconds(0.4)
    await timers.schedule("instance.i-1.startup", at, b"look")
    [fired] = await due(connection, 1)
    late_s = (datetime.now(UTC) - at).total_seconds()
    assert (fired.subject, fired.payload) == ("due.instance.i-1.startup", b"look")
    assert -0.001 <= late_s < LATEST_S


async def test_a_time_that_has_passed_fires_at_once(timers: Timers, connection: Client) -> None:
    await timers.schedule("late", in_seconds(-3600))
    assert [fired.subject for fired in await due(connection, 1)] == ["due.late"]


async def test_scheduling_again_moves_the_timer(timers: Timers, connection: Client) -> None:
    await timers.schedule("moved", in_seconds(0.3), b"first")
    await timers.schedule("moved", in_seconds(0.6), b"second")
    await timers.schedule("last", in_seconds(0.9))
    assert [fired.payload for fired in await due(connection, 2)] == [b"second", b""]


async def test_a_cancelled_timer_does_not_fire(timers: Timers, connection: Client) -> None:
    await timers.schedule("cancelled", in_seconds(0.3))
    await timers.schedule("kept", in_seconds(0.6))
    await timers.cancel("cancelled")
    await timers.cancel("never scheduled".replace(" ", "-"))
    assert [fired.subject for fired in await due(connection, 1)] == ["due.kept"]


async def test_a_timer_survives_a_crash(timers: Timers, connection: Client, nats_server: EmbeddedNats) -> None:
    await timers.schedule("survivor", in_seconds(0.3))
    await nats_server.kill()
    await nats_server.start()
    assert [fired.subject for fired in await due(connection, 1)] == ["due.survivor"]


async def test_a_replaced_timer_and_a_cancelled_one_stay_so_through_a_crash(
    timers: Timers, connection: Client, nats_server: EmbeddedNats
) -> None:
    await timers.schedule("moved", in_seconds(0.2), b"first")
    await timers.schedule("cancelled", in_seconds(0.2))
    await timers.schedule("moved", in_seconds(0.6), b"second")
    await timers.cancel("cancelled")
    await timers.schedule("last", in_seconds(0.9))
    await nats_server.kill()
    await nats_server.start()
    assert [(fired.subject, fired.payload) for fired in await due(connection, 2)] == [
        ("due.moved", b"second"),
        ("due.last", b""),
    ]


async def test_a_timer_whose_time_came_while_the_server_was_away_fires_when_it_is_back(
    timers: Timers, connection: Client, nats_server: EmbeddedNats
) -> None:
    at = in_seconds(0.3)
    await timers.schedule("overslept", at)
    await nats_server.kill()
    await asyncio.sleep(max(0.0, (at - datetime.now(UTC)).total_seconds()))
    assert datetime.now(UTC) >= at
    await nats_server.start()
    assert [fired.subject for fired in await due(connection, 1)] == ["due.overslept"]


@pytest.mark.parametrize("key", ["a.*", "a.>", "", "a..b", "a b"])
async def test_a_key_that_is_no_literal_subject_is_refused(timers: Timers, key: str) -> None:
    with pytest.raises(ValueError, match="not a literal key"):
        await timers.schedule(key, in_seconds(1))
    with pytest.raises(ValueError, match="not a literal key"):
        await timers.cancel(key)


async def test_a_time_without_a_zone_is_refused(timers: Timers) -> None:
    with pytest.raises(ValueError, match="zone"):
        await timers.schedule("key", datetime(2026, 11, 21))  # noqa: DTZ001 - that is the subject


async def test_an_unreachable_server_is_reported(timers: Timers, nats_server: EmbeddedNats) -> None:
    await nats_server.kill()
    with pytest.raises(LogUnavailableError, match="schedule key"):
        await timers.schedule("key", in_seconds(1))
