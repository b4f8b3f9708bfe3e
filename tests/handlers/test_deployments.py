"""The two reactions to a deployment: its instances are requested, and stopped with it."""

from dataclasses import replace
from typing import TypeVar

from msgspec import structs

from domain.catalogue import find_provider
from domain.decider import Decider
from domain.deployment import DEPLOYMENT, NamedPlace, RequestDeployment, StopDeployment, instance_ids
from domain.message import Context
from domain.model import ModelListed
from domain.ports import Receipt
from handlers.cloud_ports import CloudUnavailableError
from handlers.outcome import Done
from handlers.ports import Doors, Trigger
from handlers.request_instances_on_deployment_requested import request_instances_on_deployment_requested
from handlers.stop_instances_on_deployment_stopped import stop_instances_on_deployment_stopped
from tests.handlers.world import DEPLOYED, Fault, Killed, When, World

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")

WHENS: tuple[When, ...] = ("before", "after")
IDS = instance_ids(DEPLOYED, 3)


def wanted(*, provider_known: bool = True) -> RequestDeployment:
    provider = find_provider("local")
    assert provider is not None
    return RequestDeployment(
        model_code="mock-echo-model",
        instances=3,
        engine="simulated",
        provider="local",
        zone="local",
        instance_type="mock-local-instance",
        startup_timeout_s=300,
        activate=("technical", "economic"),
        provider_known=provider_known,
        zone_known=True,
        model=ModelListed(
            code="mock-echo-model", name="mock", required_vram_gb=0, context_length=2048, data_volume_gb=0
        ),
        offer=provider.instance_type("mock-local-instance"),
        offered_in_zone=True,
    )


async def deployed(world: World) -> None:
    await world.command(DEPLOYMENT, DEPLOYED, wanted())


async def request(world: World) -> object:
    return await world.settle(request_instances_on_deployment_requested, "deployment", DEPLOYED)


async def stop(world: World) -> object:
    return await world.settle(stop_instances_on_deployment_stopped, "deployment", DEPLOYED)


async def test_a_deployment_of_three_requests_three_instances_once() -> None:
    world = World()
    await deployed(world)
    await request(world)
    await request(world)
    assert [await world.types("instance", i) for i in IDS] == [["InstanceRequested"]] * 3
    assert [(await world.instance(i)).request.ordinal for i in IDS] == [1, 2, 3]  # type: ignore[union-attr] # requested


async def test_its_instances_know_its_other_places_and_its_disk() -> None:
    world = World()
    first = wanted()
    other = NamedPlace(
        zone="local",
        instance_type=first.instance_type,
        zone_known=True,
        offer=first.offer,
        offered_in_zone=True,
    )
    await world.command(DEPLOYMENT, DEPLOYED, structs.replace(first, alternatives=(other,), disk_gb=200))
    await request(world)
    requested = (await world.instance(IDS[0])).request
    assert requested is not None
    assert ([place.zone for place in requested.alternatives], requested.disk_gb) == (["local"], 200)


async def test_a_refused_deployment_requests_nothing() -> None:
    world = World()
    await world.command(DEPLOYMENT, DEPLOYED, wanted(provider_known=False))
    assert await request(world) == Done(version=2)
    assert world.effects.names == []


async def test_a_stopped_deployment_stops_every_instance() -> None:
    world = World()
    await deployed(world)
    await request(world)
    await world.command(DEPLOYMENT, DEPLOYED, StopDeployment())
    await stop(world)
    assert [(await world.instance(i)).status for i in IDS] == ["terminated"] * 3


async def test_a_deployment_stopped_before_its_instances_were_requested_leaves_none() -> None:
    world = World()
    await deployed(world)
    await world.command(DEPLOYMENT, DEPLOYED, StopDeployment())
    await stop(world)
    await request(world)
    assert [await world.types("instance", i) for i in IDS] == [[]] * 3


async def test_a_deployment_stopped_while_its_instances_are_requested_leaves_none_running() -> None:
    world = World()
    await deployed(world)

    async def stopped_meanwhile(trigger: Trigger, doors: Doors) -> Done:
        """The stop, and its whole reaction, come right after the first instance."""
        done = await request_instances_on_deployment_requested(trigger, stopping_after_first(world))
        assert isinstance(done, Done)
        return done

    await world.tell(stopped_meanwhile, "deployment", DEPLOYED)
    assert [(await world.instance(i)).status for i in IDS] == ["terminated"] * 3


def stopping_after_first(world: World) -> Doors:
    dispatch = world.doors.dispatch

    async def dispatch_then_stop(
        decider: Decider[C, E, S], organization: str, aggregate_id: str, command: C, context: Context
    ) -> Receipt[E]:
        receipt = await dispatch(decider, organization, aggregate_id, command, context)
        if len(world.effects.names) == 1:
            await world.command(DEPLOYMENT, DEPLOYED, StopDeployment())
            await stop(world)
        return receipt

    return replace(world.doors, dispatch=dispatch_then_stop)


async def test_whichever_request_fails_once_there_are_three_instances() -> None:
    for number in range(1, 4):
        for when in WHENS:
            for error in (CloudUnavailableError("away"), Killed()):
                world = World(Fault(number, when, error))
                await deployed(world)
                await request(world)
                assert [await world.types("instance", i) for i in IDS] == [["InstanceRequested"]] * 3
