"""Parked work: a poisoned aggregate stops alone, until a person retries or skips it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

import handlers.outcome
from handlers.outcome import Outcome
from handlers.ports import Doors, Trigger, Waking
from infra.embedded.nats import EmbeddedNats
from infra.parking import ParkingUnavailableError
from tests.infra.house import ACME, House, Looks, open_house, until


@pytest.fixture
async def house(nats_server: EmbeddedNats, postgres_url: str) -> AsyncIterator[House]:
    async with open_house(nats_server.url, postgres_url) as opened:
        yield opened


async def parked_ids(house: House) -> list[str]:
    return [parked.id for parked in await house.parking.list()]


POISONED = "look_on_api_key.api_key.poisoned"


async def test_a_poisoned_aggregate_stops_alone(house: House) -> None:
    looks = Looks(poisoned=["poisoned"])
    async with house.reacting(looks):
        await house.change("poisoned", "first")
        await until(lambda: is_parked(house), "it is parked")
        await house.change("poisoned", "second")
        await house.change("healthy", "second")
        await until(lambda: looks.has_seen("healthy", 1), "others go on")
    (parked,) = await house.parking.list()
    assert (parked.reaction, parked.aggregate_id, parked.reason) == (
        "look_on_api_key",
        "poisoned",
        "AssertionError: poison",
    )
    assert looks.failed == 1, "its later events wait with it"


async def is_parked(house: House) -> bool:
    return await parked_ids(house) == [POISONED]


async def is_still_parked(house: House) -> bool:
    """False until the connection is back."""
    with contextlib.suppress(ParkingUnavailableError):
        return await is_parked(house)
    return False


async def is_resolved(house: House) -> bool:
    return await parked_ids(house) == []


async def test_an_unexpected_fault_is_retried_eight_times_and_then_parked(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers.outcome, "MAX_PAUSE_S", 0.01)
    looks = Looks(poisoned=["poisoned"], error=KeyError("bug"))
    async with house.reacting(looks):
        await house.change("poisoned", "first")
        await until(lambda: is_parked(house), "it is parked in the end")
    (parked,) = await house.parking.list()
    assert looks.failed == parked.attempts == 8


async def test_a_retry_of_mended_work_resolves_it(house: House) -> None:
    looks = Looks(poisoned=["poisoned"])
    async with house.reacting(looks):
        await house.change("poisoned", "first")
        await until(lambda: is_parked(house), "it is parked")
        looks.poisoned.clear()
        assert await house.parking.retry(POISONED)
        await until(lambda: is_resolved(house), "it is resolved")
        await house.change("poisoned", "second")
        await until(lambda: looks.has_seen("poisoned", 2), "and goes on as ever")


async def test_a_retry_of_unmended_work_parks_it_again_with_the_new_reason(house: House) -> None:
    looks = Looks(poisoned=["poisoned"], error=KeyError("first reason"))
    looks.error = AssertionError("first reason")
    async with house.reacting(looks):
        await house.change("poisoned", "first")
        await until(lambda: is_parked(house), "it is parked")
        looks.error = KeyError("second reason")
        assert await house.parking.retry(POISONED)

        async def parked_again() -> bool:
            return [p.reason for p in await house.parking.list()] == ["KeyError: 'second reason'"]

        await until(parked_again, "at once, not after eight more tries")
    assert looks.failed == 2


async def test_skipped_work_rests_until_its_next_event(house: House) -> None:
    looks = Looks(poisoned=["poisoned"])
    async with house.reacting(looks) as reactor:
        await house.change("poisoned", "first")
        await until(lambda: is_parked(house), "it is parked")
        assert await house.parking.skip(POISONED)
        assert await is_resolved(house)
        looks.poisoned.clear()
        await reactor.wake(Waking("look_on_api_key", ACME, "api_key", "poisoned"))
        assert "poisoned" not in looks.seen, "a sweep leaves it alone"
        await house.change("poisoned", "second")
        await until(lambda: looks.has_seen("poisoned", 2), "a new event does not")


async def test_parked_work_survives_a_crash_of_the_server(house: House, nats_server: EmbeddedNats) -> None:
    looks = Looks(poisoned=["poisoned"])
    async with house.reacting(looks):
        await house.change("poisoned", "first")
        await until(lambda: is_parked(house), "it is parked")
        await nats_server.kill()
        await nats_server.start()
        await until(lambda: is_still_parked(house), "it is parked as before")
        looks.poisoned.clear()
        assert await house.parking.retry(POISONED)
        await until(lambda: is_resolved(house), "and can be retried as ever")


async def test_who_skips_while_a_retry_runs_has_the_last_word(house: House) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def fail_slowly(trigger: Trigger, doors: Doors) -> Outcome:
        if begun.is_set():
            go_on.set()
        begun.set()
        await go_on.wait()
        raise AssertionError("poison")

    async with house.reacting(fail_slowly) as reactor:
        go_on.set()
        await house.change("poisoned", "first")
        await until(lambda: is_parked(house), "it is parked")
        begun.clear()
        go_on.clear()
        assert await house.parking.retry(POISONED)
        await asyncio.wait_for(begun.wait(), 10)
        assert await house.parking.skip(POISONED)
        go_on.set()
        await reactor.wake(Waking("look_on_api_key", ACME, "api_key", "poisoned"))
    found = await house.parking.find(POISONED)
    assert found is not None
    assert found.state == "skipped"


async def test_a_newer_event_of_skipped_work_can_park_it_again(house: House) -> None:
    looks = Looks(poisoned=["poisoned"])
    async with house.reacting(looks):
        await house.change("poisoned", "first")
        await until(lambda: is_parked(house), "it is parked")
        assert await house.parking.skip(POISONED)
        await house.change("poisoned", "second")
        await until(lambda: is_parked(house), "it is parked again")
    (parked,) = await house.parking.list()
    assert parked.position > 1


async def test_skipped_work_is_not_retried_and_pressing_retry_twice_is_fine(house: House) -> None:
    looks = Looks(poisoned=["poisoned"])
    async with house.reacting(looks):
        await house.change("poisoned", "first")
        await until(lambda: is_parked(house), "it is parked")
    assert await house.parking.retry(POISONED)
    assert await house.parking.retry(POISONED)
    assert await house.parking.skip(POISONED)
    assert not await house.parking.retry(POISONED)
    assert not await house.parking.skip(POISONED)


@pytest.mark.parametrize("parked_id", ["look_on_api_key.api_key.unknown", "*", "look_on_api_key.>", ""])
async def test_what_is_not_parked_can_be_neither_retried_nor_skipped(house: House, parked_id: str) -> None:
    assert not await house.parking.retry(parked_id)
    assert not await house.parking.skip(parked_id)
