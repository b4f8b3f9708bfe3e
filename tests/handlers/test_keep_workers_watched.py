"""Watching workers: silence alone loses nobody, a silence of ours loses nobody, and a dead one is lost once."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace as replaced
from datetime import datetime
from typing import Literal

import pytest
from msgspec.structs import replace

from domain.ids import InstanceId, OrganizationId
from domain.instance import INSTANCE
from domain.instance_commands import StopInstance
from handlers.keep_workers_watched import LATE_S, MANY_GRACE_S, PERIOD_S, WorkerWatch
from handlers.ports import Owning
from tests.given import NOON
from tests.handlers.world import ACME, INSTANCE_1, WORKER, World, heartbeat, instance_wanted

SILENT_S = 30.0
AGENT = "http://127.8.0.1:8080"


async def ready_world(number: int = 1) -> tuple[World, list[str]]:
    """So many ready instances, each with an agent of its own."""
    world = World()
    ids = [InstanceId(f"{INSTANCE_1[:-2]}{n + 1:02}") for n in range(number)]
    for n, instance_id in enumerate(ids):
        await world.command(INSTANCE, instance_id, replace(instance_wanted(), ordinal=n + 1))
        await world.settle(aggregate_id=instance_id)
        agent_url = AGENT if n == 0 else f"http://127.8.0.{n + 1}:8080"
        await world.command(INSTANCE, instance_id, replace(WORKER, agent_url=agent_url))
        await world.command(INSTANCE, instance_id, heartbeat(queue_depth=0))
        assert (await world.instance(instance_id)).status == "ready"
    return world, list(ids)


async def watch(world: World, watching: WorkerWatch, seconds: float, *, heard: Sequence[str] = ()) -> None:
    """Looks every period for so long; those who are heard are heard each time."""
    for _ in range(int(seconds / PERIOD_S)):
        world.heard |= dict.fromkeys(heard, world.now)
        await watching(world.doors)
        world.later(PERIOD_S)


async def lost(world: World, ids: Sequence[str]) -> list[str]:
    return [one for one in ids if (await world.instance(one)).status == "unavailable"]


async def test_a_worker_that_is_silent_and_does_not_answer_is_lost_once() -> None:
    world, ids = await ready_world()
    watching = WorkerWatch()
    await watch(world, watching, 60, heard=ids)
    await watch(world, watching, SILENT_S - PERIOD_S)
    assert await lost(world, ids) == []
    await watch(world, watching, 60)
    assert await lost(world, ids) == ids
    assert (await world.types()).count("WorkerLost") == 1


async def test_a_worker_that_is_heard_is_never_asked() -> None:
    world, ids = await ready_world()
    probed: list[str] = []

    async def probe(agent_url: str, /) -> bool:
        probed.append(agent_url)
        return False

    world.doors = replaced(world.doors, probe=probe)
    await watch(world, WorkerWatch(), 300, heard=ids)
    assert (probed, await lost(world, ids)) == ([], [])


async def test_a_silent_worker_that_answers_is_left_alone_and_not_asked_each_time() -> None:
    world, ids = await ready_world()
    probed: list[str] = []

    async def probe(agent_url: str, /) -> bool:
        probed.append(agent_url)
        return True

    world.doors = replaced(world.doors, probe=probe)
    await watch(world, WorkerWatch(), 120)
    assert await lost(world, ids) == []
    assert probed == [AGENT] * 3, "the address on record, once in SILENT_S"


async def test_a_process_that_has_just_begun_listens_first() -> None:
    world, ids = await ready_world()
    world.heard[ids[0]] = world.now
    world.later(3600)
    watching = WorkerWatch()
    await watch(world, watching, SILENT_S)
    assert await lost(world, ids) == []
    await watch(world, watching, PERIOD_S)
    assert await lost(world, ids) == ids, "the control: then its silence counts"


@pytest.mark.parametrize("jump_s", [LATE_S + 1, 3600.0, -3600.0])
async def test_a_process_that_was_paused_or_whose_clock_jumped_listens_first(jump_s: float) -> None:
    world, ids = await ready_world()
    watching = WorkerWatch()
    await watch(world, watching, 60, heard=ids)
    world.later(jump_s)
    await watch(world, watching, SILENT_S)
    assert await lost(world, ids) == []


async def test_who_was_deaf_listens_first() -> None:
    world, ids = await ready_world()
    watching = WorkerWatch()
    await watch(world, watching, 60, heard=ids)
    hearing = world.doors

    async def deaf(_organization: OrganizationId, _instance_id: str, /) -> datetime | None:
        raise ConnectionError("no telemetry today")

    world.doors = replaced(hearing, last_heard=deaf)
    for _ in range(8):
        with suppress(ConnectionError):
            await watching(world.doors)
        world.later(PERIOD_S)
    assert watching.watched[ids[0]] > NOON, "it began to listen anew"
    world.doors = hearing
    await watch(world, watching, SILENT_S)
    assert await lost(world, ids) == []


async def test_many_silent_at_once_are_our_own_fault() -> None:
    world, ids = await ready_world(10)
    watching = WorkerWatch()
    await watch(world, watching, 60, heard=ids)
    await watch(world, watching, 120, heard=ids[:4])
    assert await lost(world, ids) == []


async def test_less_than_half_of_them_are_not() -> None:
    """The control of the brake."""
    world, ids = await ready_world(10)
    watching = WorkerWatch()
    await watch(world, watching, 60, heard=ids)
    await watch(world, watching, 60, heard=ids[:5])
    assert await lost(world, ids) == ids[5:]


async def test_after_a_long_silence_of_many_they_are_lost_one_by_one() -> None:
    world, ids = await ready_world(10)
    watching = WorkerWatch()
    await watch(world, watching, 60, heard=ids)
    await watch(world, watching, SILENT_S + MANY_GRACE_S, heard=ids[:3])
    assert len(await lost(world, ids)) <= 1
    await watch(world, watching, PERIOD_S, heard=ids[:3])
    assert len(await lost(world, ids)) in {1, 2}
    await watch(world, watching, 60, heard=ids[:3])
    assert await lost(world, ids) == ids[3:]


async def test_of_few_workers_all_may_be_lost() -> None:
    world, ids = await ready_world(3)
    watching = WorkerWatch()
    await watch(world, watching, 60, heard=ids)
    await watch(world, watching, 60)
    assert await lost(world, ids) == ids


async def test_a_draining_worker_is_left_to_its_deadline() -> None:
    world, ids = await ready_world()
    await world.command(INSTANCE, INSTANCE_1, StopInstance(reason="user", drain_deadline_s=300))
    await watch(world, WorkerWatch(), 120)
    assert (await world.instance()).status == "draining"
    assert await lost(world, ids) == []


async def test_only_the_state_of_now_counts() -> None:
    """The list may be older than the log: a worker that is gone by now is not asked."""
    world, _ = await ready_world()
    stale = Owning(
        organization=ACME,
        instance_id=InstanceId("another"),
        provider="local",
        status="ready",
        provider_instance_id="srv-7",
        agent_url="http://127.8.0.7:8080",
    )
    probed: list[str] = []

    async def probe(agent_url: str, /) -> bool:
        probed.append(agent_url)
        return False

    async def listed(after: str, /, **_filters: str | bool) -> Sequence[Owning]:
        return [] if after else [stale]

    world.doors = replaced(world.doors, probe=probe, list_owning=listed)
    await watch(world, WorkerWatch(), 60)
    assert probed == []


@pytest.mark.parametrize("status", ["unavailable", "terminating"])
async def test_a_worker_that_is_lost_or_ending_is_not_watched(status: Literal["unavailable", "terminating"]) -> None:
    world, _ = await ready_world()
    watching = WorkerWatch()

    async def listed(after: str, /, **_filters: str | bool) -> Sequence[Owning]:
        one = Owning(
            organization=ACME,
            instance_id=INSTANCE_1,
            provider="local",
            status=status,
            provider_instance_id="srv-1",
            agent_url=AGENT,
        )
        return [] if after else [one]

    world.doors = replaced(world.doors, list_owning=listed)
    await watching(world.doors)
    assert watching.watched == {}
