"""The standing duties: wake what is not at rest; delete what nobody owns, and nothing else."""

from dataclasses import replace as replaced

from domain.ids import InstanceId
from domain.instance import INSTANCE
from domain.instance_commands import RequestTermination
from handlers.cloud_ports import Server
from handlers.keep_instances_advancing import keep_instances_advancing
from handlers.keep_servers_matching_records import GRACE_S, ServerSweep
from handlers.ports import Unsettled, Waking
from handlers.server_tags import Owner, tags_of
from infra.clouds import PlatformClouds
from tests.handlers.world import ACME, INSTANCE_1, Signer, World


async def test_every_instance_that_is_not_at_rest_is_woken_page_by_page() -> None:
    world = World()
    world.unsettled = [Unsettled(ACME, InstanceId(f"instance-{n}")) for n in range(5)]
    wakings = await keep_instances_advancing(world.doors)
    assert wakings == [Waking("advance_instance", ACME, "instance", f"instance-{n}") for n in range(5)]


def server(number: int, instance_id: str = INSTANCE_1, attempt: int = 1) -> Server:
    tags = tags_of(Owner(ACME, InstanceId(instance_id), attempt), Signer())
    return Server(provider_instance_id=f"srv-{number}", name=f"s{number}", tags=tags, running=True, ip_address="")


async def ended_world(*servers: Server) -> World:
    """Its one instance has ended; these servers are still listed."""
    world = World()
    await world.request_instance()
    await world.settle()
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    await world.settle()
    world.cloud.deleted.clear()
    world.cloud.servers = {s.provider_instance_id: s for s in servers}
    return world


async def test_a_server_that_its_ended_instance_left_is_deleted_after_two_sightings_and_the_grace() -> None:
    world = await ended_world(server(9))
    sweep = ServerSweep()
    await sweep(world.doors)
    world.later(GRACE_S - 1)
    await sweep(world.doors)
    assert world.cloud.deleted == []
    world.later(1)
    await sweep(world.doors)
    assert world.cloud.deleted == ["srv-9"]


async def test_a_server_that_its_instance_owns_is_left_alone() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    sweep = ServerSweep()
    for _ in range(3):
        await sweep(world.doors)
        world.later(GRACE_S)
    assert world.cloud.deleted == []


async def test_a_second_server_of_the_same_attempt_is_a_stray() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    world.cloud.servers["srv-2"] = server(2)
    sweep = ServerSweep()
    await sweep(world.doors)
    world.later(GRACE_S)
    await sweep(world.doors)
    assert world.cloud.deleted == ["srv-2"]


async def test_a_strangers_server_is_never_touched() -> None:
    forged = server(9)
    forged = Server(
        provider_instance_id="srv-9",
        name="s",
        tags={**forged.tags, "signature": "forged"},
        running=True,
        ip_address="",
    )
    world = await ended_world(forged)
    sweep = ServerSweep()
    for _ in range(3):
        await sweep(world.doors)
        world.later(GRACE_S)
    assert world.cloud.deleted == []


async def test_a_lost_log_costs_no_server() -> None:
    world = World()
    world.cloud.servers = {f"srv-{n}": server(n, instance_id=f"instance-{n}") for n in range(5)}
    sweep = ServerSweep()
    for _ in range(3):
        await sweep(world.doors)
        world.later(GRACE_S)
    assert world.cloud.deleted == []


async def test_a_listing_without_answer_changes_nothing() -> None:
    world = await ended_world(server(9))
    sweep = ServerSweep()
    await sweep(world.doors)
    world.later(GRACE_S)
    world.cloud.unknown = "503"
    await sweep(world.doors)
    assert world.cloud.deleted == []


async def test_the_breaker_stops_mass_deletion() -> None:
    world = await ended_world(*(server(n) for n in range(30)))
    sweep = ServerSweep()
    await sweep(world.doors)
    world.later(GRACE_S)
    await sweep(world.doors)
    await sweep(world.doors)
    assert len(world.cloud.deleted) == 3, "a tenth of thirty"


async def test_one_provider_away_does_not_stop_the_sweep_of_another() -> None:
    world = await ended_world(server(9))
    away = World()
    away.cloud.unknown = "401"
    doors = replaced(world.doors, clouds=PlatformClouds({"away": away.cloud, "local": world.cloud}))
    sweep = ServerSweep()
    await sweep(doors)
    world.later(GRACE_S)
    await sweep(doors)
    assert world.cloud.deleted == ["srv-9"]
