"""Requests that go on until whoever plays has seen enough."""

from tests.chaos.gateway.clients import Told
from tests.chaos.gateway.load import Load


async def test_it_goes_on_until_enough_is_asked_and_the_play_is_over() -> None:
    load = Load(wanted=2)
    await load.take(Told(ending="done"))
    load.ends.set()
    assert load.goes_on
    await load.take(Told(ending="done"))
    assert not load.goes_on


async def test_whatever_is_not_answered_has_failed() -> None:
    load = Load()
    for ending in ("done", "left", "error", "broken", "refused"):
        await load.take(Told(ending=ending))
    assert [told.ending for told in load.failed] == ["left", "error", "broken", "refused"]
