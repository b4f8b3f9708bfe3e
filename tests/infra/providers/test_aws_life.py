"""Whole lives of instances at AWS: the handlers' own steps through our adapter, against moto."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import pytest
from moto.ec2.models import ec2_backends

from domain.instance import INSTANCE
from domain.instance_commands import RequestTermination
from domain.place import Place
from tests.handlers.fixed_clouds import FixedClouds
from tests.handlers.world import INSTANCE_1, World
from tests.infra.providers.aws_server import INSTANCE_TYPE, MOTO_ACCOUNT, ZONE, Ec2, StartResponse, refused, running_ec2

ELSEWHERE = Place(
    zone="us-east-1a", instance_type=INSTANCE_TYPE, gpu_count=1, vram_per_gpu_gb=24, price_eur_micros_per_hour=1
)


@pytest.fixture
async def ec2() -> AsyncIterator[Ec2]:
    async with running_ec2() as running:
        yield running


def world_at(ec2: Ec2) -> World:
    world = World()
    world.doors = replace(world.doors, clouds=FixedClouds({"local": ec2.cloud()}))
    return world


async def requested(world: World) -> None:
    await world.request_instance(
        zone=ZONE, instance_type=INSTANCE_TYPE, alternatives=(ELSEWHERE,), disk_gb=200, startup_timeout_s=3600
    )
    await world.settle()


async def test_a_server_is_rented_reached_and_given_back_with_its_disk(ec2: Ec2) -> None:
    world = world_at(ec2)
    await requested(world)
    await world.worker_gets_ready()
    await world.settle()
    state = await world.instance()
    assert state.status == "ready"
    assert state.provider_instance_id.startswith("eu-west-3/i-")
    assert state.ip_address
    assert [volume.size_gb for volume in state.volumes.values()] == [200]
    assert len(left_behind()) == 2  # the control: a server and its disk
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    await world.settle()
    assert (await world.instance()).status == "terminated"
    assert left_behind() == []
    assert ec2.app.operations().count("RunInstances") == 1


async def test_a_region_that_is_sold_out_is_left_for_the_next_place(ec2: Ec2) -> None:
    sold_out = refused("500 Internal Server Error", "InsufficientInstanceCapacity")

    def by_region(environ: dict[str, Any], start: StartResponse) -> Iterable[bytes]:
        """The region stands in the signature."""
        here = "/eu-west-3/" in environ["HTTP_AUTHORIZATION"]
        return (sold_out if here else ec2.app.moto)(environ, start)

    ec2.app.troubles["RunInstances"] = by_region
    world = world_at(ec2)
    await requested(world)
    state = await world.instance()
    assert state.provider_instance_id.startswith("us-east-1/i-")
    assert state.place == ELSEWHERE
    assert "ServerCreateFailed" in await world.types()


def left_behind() -> list[str]:
    """What would still be billed, in every region."""
    found = []
    for backend in ec2_backends[MOTO_ACCOUNT].values():
        servers = [one for one in backend.all_instances() if one._state.name != "terminated"]
        found += [one.id for one in servers] + list(backend.volumes)
    return found
