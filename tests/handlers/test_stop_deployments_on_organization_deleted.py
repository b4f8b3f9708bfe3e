"""A deleted organisation leaves nothing running, whatever slipped in, and whichever step is struck."""

from datetime import timedelta

from domain.deployment import DEPLOYMENT
from domain.ids import DeploymentId, UserId
from domain.organization import ORGANIZATION
from domain.organization_commands import CreateOrganization, DeleteOrganization
from handlers.cloud_ports import CloudUnavailableError
from handlers.outcome import Done, RetryAfter
from handlers.stop_deployments_on_organization_deleted import SETTLE_S, stop_deployments_on_organization_deleted
from tests.handlers.test_deployments import WHENS, wanted
from tests.handlers.world import ACME, Fault, Killed, World

DEPLOYMENTS = [DeploymentId(f"0192aaaa-0000-7000-8000-00000000de0{n}") for n in range(3)]


async def an_organization(world: World, *, deleted: bool = True) -> None:
    create = CreateOrganization(name="Acme", owner=UserId("alice"), fallback_slug="acme")
    await world.command(ORGANIZATION, ACME, create)
    if deleted:
        await world.command(ORGANIZATION, ACME, DeleteOrganization(live_instances=0))


async def deploy(world: World, deployment_id: DeploymentId) -> None:
    world.deployments.append(deployment_id)
    await world.command(DEPLOYMENT, deployment_id, wanted())


async def react(world: World) -> object:
    return await world.settle(stop_deployments_on_organization_deleted, "organization", ACME)


async def stopped(world: World) -> list[bool]:
    return [(await world.dispatcher.load(DEPLOYMENT, ACME, one)).state.stopped for one in world.deployments]


async def test_what_a_deleted_organisation_still_wants_is_stopped_once() -> None:
    world = World()
    await an_organization(world)
    for deployment_id in DEPLOYMENTS:
        await deploy(world, deployment_id)
    assert await react(world) == Done(version=3)
    assert await stopped(world) == [True, True, True]
    assert [(await world.types("deployment", one)).count("DeploymentStopped") for one in DEPLOYMENTS] == [1, 1, 1]
    [stop] = [e for e in await world.envelopes("deployment", DEPLOYMENTS[0]) if e.type == "DeploymentStopped"]
    [deletion] = [e for e in await world.envelopes("organization", ACME) if e.type == "OrganizationDeleted"]
    assert (stop.cause, stop.actor) == (deletion.event_id, "system:handlers")


async def test_what_comes_just_after_the_deletion_is_stopped_as_well() -> None:
    world = World()
    await an_organization(world)
    told = await world.tell(stop_deployments_on_organization_deleted, "organization", ACME)
    again_at = world.now + timedelta(seconds=SETTLE_S)
    assert told == Done(version=3, again_at=again_at)
    await deploy(world, DEPLOYMENTS[0])
    world.now = again_at
    assert await react(world) == Done(version=3)
    assert await stopped(world) == [True]


async def test_an_organisation_that_lives_keeps_what_it_wants() -> None:
    world = World()
    await an_organization(world, deleted=False)
    await deploy(world, DEPLOYMENTS[0])
    assert await react(world) == Done(version=2)
    assert await stopped(world) == [False]
    assert world.effects.names == []


async def test_whichever_step_fails_once_everything_is_stopped_in_the_end() -> None:
    struck = 0
    for number in range(1, len(DEPLOYMENTS) + 1):
        for when in WHENS:
            for error in (CloudUnavailableError("away"), Killed()):
                world = World(Fault(number, when, error))
                await an_organization(world)
                for deployment_id in DEPLOYMENTS:
                    await deploy(world, deployment_id)
                first = await world.tell(stop_deployments_on_organization_deleted, "organization", ACME)
                struck += isinstance(first, RetryAfter)
                await react(world)
                assert await stopped(world) == [True, True, True]
                assert "dispatch StopDeployment" in world.effects.names
    assert struck == len(WHENS) * 2  # the first look meets the first fault, each way
