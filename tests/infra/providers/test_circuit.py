"""A circuit opens for silence alone, leaves its provider in peace for a growing while, and closes with one answer."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handlers.cloud_ports import CloudRefusedError, CloudTraits, CloudUnavailableError, Unknown
from infra.providers.calling import StillBusyError
from infra.providers.circuit import (
    FAILURES_TO_OPEN,
    FIRST_PAUSE_S,
    LONGEST_ASKED_PAUSE_S,
    LONGEST_PAUSE_S,
    Breaker,
    Circuit,
    CircuitCloud,
    answered,
    sent,
    unanswered,
    wait_s,
)


class Provider:
    """A Cloud whose find_server and list_servers answer what was prepared."""

    traits = CloudTraits(list_lag_s=3.0)
    volumes = None
    ports = None
    offers = None

    def __init__(self) -> None:
        self.asked = 0
        self.answer: object = []

    async def list_servers(self) -> object:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def find_server(self, **_asked: str) -> object:
        return await self.list_servers()


class World:
    def __init__(self) -> None:
        self.now = 100.0
        self.provider = Provider()
        self.breaker = Breaker("scaleway of acme", lambda: self.now, lambda: 1.0)
        self.cloud = CircuitCloud(self.provider, self.breaker)  # type: ignore[arg-type] # only two of its calls are made

    async def fails(self, times: int = 1, error: Exception | None = None) -> None:
        self.provider.answer = error or CloudUnavailableError("503")
        for _ in range(times):
            with pytest.raises((CloudUnavailableError, CloudRefusedError)):
                await self.cloud.list_servers()

    async def is_open(self) -> bool:
        before = self.provider.asked
        with pytest.raises((CloudUnavailableError, CloudRefusedError)):
            await self.cloud.list_servers()
        return self.provider.asked == before


@pytest.fixture
def world() -> World:
    return World()


async def test_a_provider_that_is_silent_several_times_in_a_row_is_left_in_peace(world: World) -> None:
    await world.fails(FAILURES_TO_OPEN - 1)
    assert not await world.is_open()
    assert await world.is_open()


async def test_an_answer_in_between_counts_from_the_start(world: World) -> None:
    await world.fails(FAILURES_TO_OPEN - 1)
    world.provider.answer = []
    await world.cloud.list_servers()
    await world.fails(FAILURES_TO_OPEN - 1)
    assert not await world.is_open()


@pytest.mark.parametrize("healthy", [CloudRefusedError("CODE", "sold out", "out_of_stock"), StillBusyError("stopping")])
async def test_no_and_not_yet_are_healthy_answers(world: World, healthy: Exception) -> None:
    await world.fails(3 * FAILURES_TO_OPEN, healthy)
    assert not await world.is_open()


async def test_not_knowing_is_no_answer(world: World) -> None:
    world.provider.answer = Unknown("401")
    for _ in range(FAILURES_TO_OPEN):
        await world.cloud.find_server(name="a")
    before = world.provider.asked
    found = await world.cloud.find_server(name="a")
    assert isinstance(found, Unknown)
    assert "not asked" in found.reason
    assert world.provider.asked == before


async def test_while_it_is_open_the_answer_says_when_to_ask_again(world: World) -> None:
    await world.fails(FAILURES_TO_OPEN)
    with pytest.raises(CloudUnavailableError) as told:
        await world.cloud.list_servers()
    assert told.value.retry_after_s == FIRST_PAUSE_S


async def test_after_the_pause_one_call_goes_out_and_its_answer_closes_the_circuit(world: World) -> None:
    await world.fails(FAILURES_TO_OPEN)
    world.now += FIRST_PAUSE_S
    world.provider.answer = []
    assert await world.cloud.list_servers() == []
    await world.fails(FAILURES_TO_OPEN - 1)
    assert not await world.is_open()


async def test_a_probe_without_an_answer_makes_the_pause_longer(world: World) -> None:
    await world.fails(FAILURES_TO_OPEN)
    world.now += FIRST_PAUSE_S
    await world.fails()
    world.now += FIRST_PAUSE_S
    assert await world.is_open()
    world.now += FIRST_PAUSE_S
    assert not await world.is_open()


async def test_only_one_probe_is_out_at_a_time(world: World) -> None:
    await world.fails(FAILURES_TO_OPEN)
    world.now += FIRST_PAUSE_S
    answer: asyncio.Future[list[object]] = asyncio.get_running_loop().create_future()

    async def hold() -> list[object]:
        return await answer

    probe = asyncio.ensure_future(world.breaker.guard(hold))
    await asyncio.sleep(0)
    assert await world.is_open()
    answer.set_result([])
    assert await probe == []


async def test_a_probe_that_was_cancelled_lets_the_next_one_out(world: World) -> None:
    await world.fails(FAILURES_TO_OPEN)
    world.now += FIRST_PAUSE_S
    probe = asyncio.ensure_future(world.breaker.guard(asyncio.Event().wait))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert not await world.is_open()


async def test_a_provider_that_asks_for_a_pause_gets_it_at_once(world: World) -> None:
    await world.fails(1, CloudUnavailableError("slow down", "rate_limited", 42))
    world.now += 41
    assert await world.is_open()
    world.now += 1
    assert not await world.is_open()


def test_traits_and_abilities_are_those_of_the_cloud_within(world: World) -> None:
    assert world.cloud.traits == world.provider.traits
    assert (world.cloud.volumes, world.cloud.ports, world.cloud.offers) == (None, None, None)


Step = Callable[[Circuit, float], Circuit]
STEPS: dict[str, Step] = {
    "answered": lambda circuit, _now: answered(sent(circuit)),
    "unanswered": lambda circuit, now: unanswered(sent(circuit), now, chance=0.5),
    "asked for an hour": lambda circuit, now: unanswered(sent(circuit), now, chance=0.5, asked_pause_s=3600.0),
}


@given(st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 1000)), max_size=60))
def test_no_circuit_stays_open_for_longer_than_the_longest_pause(story: list[tuple[str, int]]) -> None:
    circuit, now = Circuit(), 0.0
    for step, passed_s in story:
        now += passed_s
        if not wait_s(circuit, now):
            circuit = STEPS[step](circuit, now)
        assert 0 <= wait_s(circuit, now) <= max(LONGEST_PAUSE_S, LONGEST_ASKED_PAUSE_S)
        assert not wait_s(circuit, now + LONGEST_ASKED_PAUSE_S)
