"""Whole lives at a rented cloud, each effect of them failed once: one server per intent, and nothing left behind."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from domain.instance import INSTANCE
from domain.instance_commands import RecordWorkerLost, RequestTermination, StopInstance
from domain.instance_steps import REPLACE_AFTER_S
from domain.place import Place
from handlers.advance_instance import advance_instance
from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError
from handlers.instance_steps_in_cloud import RESIZE_LIMIT_S
from tests.given import NOON
from tests.handlers.fake_cloud import FakeVolumes
from tests.handlers.world import INSTANCE_1, WORKER, Fault, Killed, When, World, heartbeat

Life = Callable[[World], Awaitable[None]]
NO_STOCK = CloudRefusedError("", "no L4 left in z1", "out_of_stock")
HERE, THERE = (
    "z1",
    Place(zone="z2", instance_type="L4", gpu_count=2, vram_per_gpu_gb=24, price_eur_micros_per_hour=900_000),
)


def rented_world(fault: Fault | None = None, *, lag_s: float = 0.0) -> World:
    world = World(fault)
    world.cloud.with_volumes()
    world.cloud.lag(lag_s)
    return world


async def wanted(world: World) -> None:
    await world.request_instance(zone=HERE, alternatives=(THERE,), disk_gb=200, startup_timeout_s=3600)
    await world.settle()


async def ended(world: World) -> None:
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    await world.settle()


async def provisioned_and_ended(world: World) -> None:
    await wanted(world)
    await world.worker_gets_ready()
    await world.settle()
    await ended(world)


async def out_of_stock_at_create(world: World) -> None:
    world.cloud.refuses_create_in[HERE] = NO_STOCK
    await provisioned_and_ended(world)


async def out_of_stock_at_start(world: World) -> None:
    world.cloud.refuses_start_in[HERE] = NO_STOCK
    await provisioned_and_ended(world)


async def lost_and_replaced(world: World) -> None:
    await wanted(world)
    await world.worker_gets_ready()
    await world.command(INSTANCE, INSTANCE_1, RecordWorkerLost(reason="silent"))
    await world.settle()
    world.later(REPLACE_AFTER_S)
    await world.settle()
    await world.worker_gets_ready()
    await world.settle()
    await ended(world)


async def stopped_while_it_is_cleared_away(world: World) -> None:
    world.cloud.refuses_start_in[HERE] = NO_STOCK
    await world.request_instance(zone=HERE, alternatives=(THERE,), disk_gb=200, startup_timeout_s=3600)
    for _ in range(60):
        if (await world.instance()).discarding:
            break
        await world.tell(advance_instance, "instance", INSTANCE_1)
        world.later(5)
    await world.command(INSTANCE, INSTANCE_1, StopInstance(reason="user"))
    await world.settle()


LIVES: dict[str, Life] = {
    life.__name__: life
    for life in (
        provisioned_and_ended,
        out_of_stock_at_create,
        out_of_stock_at_start,
        lost_and_replaced,
        stopped_while_it_is_cleared_away,
    )
}


def volumes_of(world: World) -> FakeVolumes:
    assert isinstance(world.cloud.volumes, FakeVolumes)
    return world.cloud.volumes


async def effects_of(life: Life, lag_s: float) -> int:
    world = rented_world(lag_s=lag_s)
    await life(world)
    return len(world.effects.names)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [CloudUnavailableError("no answer"), Killed()], ids=["unanswered", "killed"])
@pytest.mark.parametrize("lag_s", [0.0, 5.0], ids=["at-once", "lagging"])
@pytest.mark.parametrize("life", LIVES.values(), ids=LIVES)
async def test_whichever_effect_fails_once_nothing_is_left_behind(
    life: Life, lag_s: float, error: BaseException, when: When
) -> None:
    number = 0
    for number in range(1, await effects_of(life, lag_s) + 1):
        world = rented_world(Fault(number, when, error), lag_s=lag_s)
        await life(world)
        failed = f"effect {number} ({world.effects.names[number - 1]}) failed {when} it was done"
        state = await world.instance()
        assert state.status == "terminated", failed
        assert world.cloud.most_servers_of_one_name <= 1, failed
        assert world.cloud.servers == {}, failed
        assert volumes_of(world).kept == {}, failed
        assert (state.may_own_a_server, state.volumes) == (False, {}), failed
    assert number >= 12, "a whole life has at least a dozen effects"


async def test_a_rented_server_is_listed_resized_started_addressed_and_opened_in_this_order() -> None:
    world = rented_world()
    await wanted(world)
    assert await world.types() == [
        "InstanceRequested",
        "ServerCreateIntended",
        "ServerCreated",
        "VolumeDiscovered",
        "VolumesListed",
        "VolumeResized",
        "ServerStarted",
        "AddressAssigned",
        "InstanceBooted",
        "PortsOpened",
    ]
    assert world.cloud.requests[0].disk_gb == 200
    assert volumes_of(world).kept["vol-srv-1"].size_gb == 200


async def test_a_server_ends_before_its_volumes_and_the_instance_after_them() -> None:
    world = rented_world()
    await provisioned_and_ended(world)
    assert (await world.types())[-6:] == [
        "TerminationRequested",
        "VolumesListed",
        "ServerSeenGone",
        "ServerSeenGone",
        "VolumeDeleted",
        "InstanceTerminated",
    ]
    assert volumes_of(world).deleted == ["vol-srv-1"]


async def test_out_of_stock_at_create_is_followed_by_the_next_place() -> None:
    world = rented_world()
    world.cloud.refuses_create_in[HERE] = NO_STOCK
    await wanted(world)
    assert (await world.types())[1:5] == [
        "ServerCreateIntended",
        "ServerCreateFailed",
        "ServerCreateIntended",
        "ServerCreated",
    ]
    (request,) = world.cloud.requests
    assert (request.zone, request.instance_type, request.name[-2:]) == ("z2", "L4", "-2")
    assert request.agent_environment["WORKER_SIMULATE_GPU_COUNT"] == "2"


async def test_out_of_stock_at_start_clears_the_first_server_away_and_then_takes_the_next_place() -> None:
    world = rented_world()
    world.cloud.refuses_start_in[HERE] = NO_STOCK
    await wanted(world)
    told = await world.types()
    assert told[told.index("ServerStartFailed") :][:7] == [
        "ServerStartFailed",
        "VolumesListed",
        "ServerSeenGone",
        "ServerSeenGone",
        "VolumeDeleted",
        "ServerDiscarded",
        "ServerCreateIntended",
    ]
    assert [server.zone for server in world.cloud.servers.values()] == ["z2"]
    assert list(volumes_of(world).kept) == ["vol-srv-2"]


async def test_a_lost_worker_is_replaced_by_a_server_of_the_same_instance() -> None:
    world = rented_world()
    await wanted(world)
    await world.worker_gets_ready()
    await world.command(INSTANCE, INSTANCE_1, RecordWorkerLost(reason="silent"))
    await world.settle()
    assert (await world.instance()).status == "unavailable"
    world.later(REPLACE_AFTER_S)
    await world.settle()
    state = await world.instance()
    assert (state.status, state.attempt, state.provider_instance_id) == ("booting", 2, "srv-2")
    assert list(world.cloud.servers) == ["srv-2"]


async def test_a_heartbeat_in_time_keeps_a_lost_server() -> None:
    world = rented_world()
    await wanted(world)
    await world.worker_gets_ready()
    await world.command(INSTANCE, INSTANCE_1, RecordWorkerLost(reason="silent"))
    world.later(REPLACE_AFTER_S - 1)
    await world.command(INSTANCE, INSTANCE_1, heartbeat(queue_depth=0))
    world.later(2)
    await world.settle()
    assert ((await world.instance()).status, list(world.cloud.servers)) == ("ready", ["srv-1"])


async def test_a_volume_that_somebody_attached_stays_and_one_of_ours_goes() -> None:
    world = rented_world()
    await wanted(world)
    volumes = volumes_of(world)
    volumes.add("theirs", "srv-1", tags={"backup": "daily"}, is_boot=False)
    volumes.add("ours", "srv-1", tags=world.cloud.requests[0].tags, is_boot=False)
    await ended(world)
    assert list(volumes.kept) == ["theirs"]
    assert sorted(volumes.deleted) == ["ours", "vol-srv-1"]
    assert (await world.instance()).status == "terminated"


async def test_a_volume_in_use_is_not_gone() -> None:
    world = rented_world()
    await wanted(world)
    volumes_of(world).in_use = 5
    await ended(world)
    assert (volumes_of(world).kept, (await world.instance()).status) == ({}, "terminated")
    assert (await world.types()).count("ProviderCallFailed") == 1, "said once, tried five times"


async def test_a_refused_resize_is_not_fatal() -> None:
    world = rented_world()
    volumes_of(world).refuses_resize = CloudRefusedError("VOLUME_TOO_LARGE", "at most 100 GB")
    await wanted(world)
    assert (await world.instance()).status == "booting"
    assert "VolumeResizeFailed" in await world.types()


async def test_a_volume_that_does_not_grow_is_waited_for_and_then_taken_as_it_is() -> None:
    world = rented_world()
    volumes_of(world).sticks = True
    await wanted(world)
    assert (await world.instance()).status == "booting"
    assert "VolumeResizeFailed" in await world.types()
    assert world.now - NOON >= timedelta(seconds=RESIZE_LIMIT_S)


async def test_replaced_for_ever_it_is_given_up_in_the_end() -> None:
    world = rented_world()
    await wanted(world)
    await world.worker_gets_ready()
    for _ in range(4):
        await world.command(INSTANCE, INSTANCE_1, RecordWorkerLost(reason="silent"))
        world.later(REPLACE_AFTER_S)
        await world.settle()
        await world.command(INSTANCE, INSTANCE_1, replace(WORKER, token_sha256=world.now.isoformat()))
    assert (await world.instance()).error_code == "RECOVERY_TIMEOUT"
    assert len(world.cloud.requests) == 4
