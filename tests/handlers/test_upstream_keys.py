"""Keys of foreign upstreams: what nobody uses any more is destroyed, and nothing else is."""

from domain.deployment import DEPLOYMENT, StopDeployment
from domain.ids import DeploymentId
from domain.upstream import ConnectUpstream, ReplaceUpstreamKey, credential_id_of
from domain.values import Digest
from handlers.cloud_ports import CloudUnavailableError
from handlers.destroy_upstream_keys_on_upstream_changed import destroy_upstream_keys_on_upstream_changed
from handlers.keep_upstream_keys_matching_deployments import AGE_S, keep_upstream_keys_matching_deployments
from handlers.outcome import Done
from handlers.request_instances_on_deployment_requested import request_instances_on_deployment_requested
from handlers.stop_instances_on_deployment_stopped import stop_instances_on_deployment_stopped
from tests.examples import example
from tests.handlers.test_deployments import WHENS, deployed
from tests.handlers.world import DEPLOYED, Fault, Killed, World

FIRST, SECOND, THIRD = (
    credential_id_of(DEPLOYED, digest) for digest in (example(ConnectUpstream).key_digest, Digest("k2"), Digest("k3"))
)
SECOND_KEY = ReplaceUpstreamKey(key_digest=Digest("k2"))


async def connected(world: World) -> None:
    world.upstream_keys.keep(DEPLOYED, FIRST)
    await world.command(DEPLOYMENT, DEPLOYED, example(ConnectUpstream))
    world.later(1)


async def replaced(world: World) -> None:
    world.upstream_keys.keep(DEPLOYED, SECOND)
    await world.command(DEPLOYMENT, DEPLOYED, SECOND_KEY)
    world.later(1)


async def look(world: World) -> object:
    return await world.settle(destroy_upstream_keys_on_upstream_changed, "deployment", DEPLOYED)


async def sweep(world: World) -> None:
    assert await keep_upstream_keys_matching_deployments(world.doors) == ()


async def test_nothing_is_rented_for_an_upstream_and_nothing_stopped() -> None:
    world = World()
    await connected(world)
    for react in (request_instances_on_deployment_requested, stop_instances_on_deployment_stopped):
        assert await world.settle(react, "deployment", DEPLOYED) == Done(version=1)
    await world.command(DEPLOYMENT, DEPLOYED, StopDeployment())
    for react in (request_instances_on_deployment_requested, stop_instances_on_deployment_stopped):
        assert await world.settle(react, "deployment", DEPLOYED) == Done(version=2)
    assert world.effects.names == []


async def test_a_replaced_key_is_destroyed() -> None:
    world = World()
    await connected(world)
    await replaced(world)
    await look(world)
    assert set(world.upstream_keys.kept) == {SECOND}


async def test_a_key_whose_event_is_still_on_its_way_stays() -> None:
    world = World()
    await connected(world)
    await replaced(world)
    world.upstream_keys.keep(DEPLOYED, THIRD)
    await look(world)
    assert set(world.upstream_keys.kept) == {SECOND, THIRD}


async def test_a_stopped_upstream_leaves_no_key() -> None:
    world = World()
    await connected(world)
    await replaced(world)
    await world.command(DEPLOYMENT, DEPLOYED, StopDeployment())
    await look(world)
    assert world.upstream_keys.kept == {}


async def test_the_keys_of_other_deployments_stay() -> None:
    world = World()
    other = DeploymentId("another")
    world.upstream_keys.keep(other, credential_id_of(other, Digest("k1")))
    await connected(world)
    await world.command(DEPLOYMENT, DEPLOYED, StopDeployment())
    await look(world)
    assert {key.deployment_id for key, _ in world.upstream_keys.kept.values()} == {other}


async def test_a_deployment_with_machines_is_none_of_its_business() -> None:
    world = World()
    await deployed(world)
    await world.command(DEPLOYMENT, DEPLOYED, StopDeployment())
    assert await look(world) == Done(version=2)
    assert world.effects.names == []


async def test_whichever_look_fails_once_the_keys_are_gone_in_the_end() -> None:
    for when in WHENS:
        for error in (CloudUnavailableError("away"), Killed()):
            world = World(Fault(1, when, error))
            await connected(world)
            await world.command(DEPLOYMENT, DEPLOYED, StopDeployment())
            await look(world)
            assert world.upstream_keys.kept == {}


async def test_what_a_request_left_behind_goes_after_an_hour_and_what_is_used_stays() -> None:
    world = World()
    never = DeploymentId("never-connected")
    await connected(world)
    world.upstream_keys.keep(never, left := credential_id_of(never, Digest("k1")))
    world.upstream_keys.keep(DEPLOYED, THIRD)
    await sweep(world)
    assert set(world.upstream_keys.kept) == {FIRST, THIRD, left}
    world.later(AGE_S + 1)
    await sweep(world)
    assert set(world.upstream_keys.kept) == {FIRST}
    await world.command(DEPLOYMENT, DEPLOYED, StopDeployment())
    await sweep(world)
    assert world.upstream_keys.kept == {}
