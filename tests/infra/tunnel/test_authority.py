"""Who may park a tunnel: what the API says, believed for as long as is written, and for longer while it is away."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from infra.tunnel.authority import FRESH_S, REFUSED_S, TRUST_S, Authority, Verdict, ask_api
from tests.agent.stand_in import INSTANCE, WORKER_TOKEN, StandIn, stand_in


class Api:
    """Says what a spec has it say, at the time that a spec has it be."""

    def __init__(self) -> None:
        self.says: Verdict = "yes"
        self.asked = 0
        self.now_s = 0.0
        self.authority = Authority(self, lambda: self.now_s)

    async def __call__(self, _instance_id: str, _token: str) -> Verdict:
        self.asked += 1
        await asyncio.sleep(0)
        return self.says

    async def verdict(self, token: str = "t") -> Verdict:
        return await self.authority.verdict("i", token)


@pytest.fixture
def api() -> Api:
    return Api()


async def test_a_yes_is_asked_once_for_a_while(api: Api) -> None:
    assert [await api.verdict() for _ in range(5)] == ["yes"] * 5
    assert api.asked == 1
    api.now_s += FRESH_S
    await api.verdict()
    assert api.asked == 2


async def test_a_token_that_ended_is_refused_when_it_is_asked_again(api: Api) -> None:
    await api.verdict()
    api.says = "no"
    api.now_s += FRESH_S
    assert await api.verdict() == "no"
    api.says = "unknown"
    assert await api.verdict() == "no"


async def test_a_no_is_not_believed_for_long(api: Api) -> None:
    api.says = "no"
    assert await api.verdict() == "no"
    api.says = "yes"
    api.now_s += REFUSED_S
    assert await api.verdict() == "yes"


async def test_while_the_api_is_away_the_known_stay_and_the_new_wait(api: Api) -> None:
    await api.verdict()
    api.says = "unknown"
    api.now_s += TRUST_S - 1
    assert await api.verdict() == "yes"
    assert await api.verdict("another") == "unknown"
    api.now_s += 1
    assert await api.verdict() == "unknown"


async def test_many_who_ask_the_same_at_once_are_one_question_after_the_other(api: Api) -> None:
    await asyncio.gather(*(api.verdict() for _ in range(100)))
    assert api.asked <= 8


@pytest.fixture
async def plane() -> AsyncIterator[StandIn]:
    async with stand_in() as control_plane:
        yield control_plane


async def test_the_api_is_asked_over_http(plane: StandIn) -> None:
    ask = ask_api(plane.url)
    assert await ask(INSTANCE, WORKER_TOKEN) == "yes"
    assert await ask(INSTANCE, "wk_other") == "no"
    plane.refusals = [(503, "unavailable")]
    assert await ask(INSTANCE, WORKER_TOKEN) == "unknown"
    plane.refusals = [(410, "instance_gone")]
    assert await ask(INSTANCE, WORKER_TOKEN) == "no"


async def test_an_api_that_is_away_is_unknown() -> None:
    async with stand_in() as plane:
        url = plane.url
    assert await ask_api(url)(INSTANCE, WORKER_TOKEN) == "unknown"


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="not the address"):
        ask_api("file:///etc/passwd")
