"""What a record has and the provider has not: told to its instance, and only when it is certain."""

from collections.abc import Sequence

from msgspec.structs import replace

from domain.instance import INSTANCE
from handlers.cloud_ports import (
    CloudTraits,
    Existence,
    Server,
)
from handlers.cloud_ports import CloudUnavailableError as Unavailable
from handlers.reconcile_account import MASS_MISSED_S, MISSED_APART_S
from tests.handlers.accounts import account, look, looks, running_world, told
from tests.handlers.world import World, instance_wanted


async def test_a_server_deleted_in_the_providers_console_ends_its_instance() -> None:
    world = await running_world()
    world.cloud.servers.clear()
    await look(world)
    assert (await told(world))[0] == "ServerMissed"
    await look(world, after_s=MISSED_APART_S)
    assert (await world.instance()).gone_sightings == 1
    await look(world, after_s=20)
    ended = await world.instance()
    assert (ended.status, ended.termination_reason) == ("terminated", "provider_deleted")
    await look(world, after_s=20)
    assert (await account(world)).missed == {}


async def test_a_server_that_one_listing_lacked_is_not_given_up() -> None:
    world = await running_world()
    kept = dict(world.cloud.servers)
    world.cloud.servers.clear()
    await look(world)
    world.cloud.servers = kept
    await looks(world)
    assert (await world.instance()).gone_sightings == 0
    assert (await account(world)).missed == {}


async def test_a_server_that_is_found_by_its_id_is_not_missed_whatever_a_listing_lacks() -> None:
    world = await running_world()

    async def nothing() -> Sequence[Server]:
        return ()

    world.cloud.list_servers = nothing  # type: ignore[method-assign] # an empty page that says it is complete
    await looks(world)
    assert (await world.instance()).gone_sightings == 0
    assert "ServerMissed" not in await told(world)


async def test_a_provider_whose_listing_lags_gets_its_time() -> None:
    world = await running_world()
    world.cloud.traits = CloudTraits(list_lag_s=90.0)
    world.cloud.servers.clear()
    await look(world)
    await look(world, after_s=89)
    assert (await world.instance()).gone_sightings == 0
    await look(world, after_s=1)
    assert (await world.instance()).gone_sightings == 1


async def test_when_most_servers_are_missed_at_once_the_credentials_may_be_anothers() -> None:
    world = World()
    ids = [f"instance-{n}" for n in range(4)]
    for number, instance_id in enumerate(ids):
        await world.command(INSTANCE, instance_id, replace(instance_wanted(), ordinal=number + 1))
        await world.settle(aggregate_id=instance_id)
    kept = dict(list(world.cloud.servers.items())[:1])
    world.cloud.servers.clear()
    await looks(world)
    assert [(await world.instance(one)).gone_sightings for one in ids] == [0, 0, 0, 0]
    world.cloud.servers = kept
    await look(world, after_s=MASS_MISSED_S)
    assert [(await world.instance(one)).gone_sightings for one in ids] == [0, 1, 1, 1], "they stay gone: it is true"


async def test_a_server_of_which_nothing_can_be_learned_stays_missed_and_no_more() -> None:
    world = await running_world()
    world.cloud.servers.clear()
    await look(world)

    async def fail(**_wanted: str) -> Existence:
        raise Unavailable("504")

    find_server = world.cloud.find_server
    world.cloud.find_server = fail  # type: ignore[method-assign] # it lists, and finds nothing by id
    await look(world, after_s=1)
    assert (await account(world)).missed.keys() == {"srv-1"}
    world.cloud.find_server = find_server  # type: ignore[method-assign] # the control: it answers again
    await look(world, after_s=MISSED_APART_S)
    assert (await world.instance()).gone_sightings == 1
