"""Volumes that nobody wants any more: found with tags and without, and never one that shall survive."""

from collections.abc import Sequence

from msgspec.structs import replace

from domain.instance import INSTANCE
from domain.instance_commands import RecordVolume, RequestTermination
from handlers.cloud_ports import (
    Absent,
    Unknown,
    Volume,
)
from handlers.cloud_ports import CloudUnavailableError as Unavailable
from tests.handlers.accounts import FakeVolumes, account, ended_world, look, looks, running_world, server, volume
from tests.handlers.world import INSTANCE_1, World


async def test_a_leftover_volume_is_deleted_and_one_that_shall_survive_is_not() -> None:
    world = World()
    await world.request_instance()
    await world.settle()
    kept = RecordVolume(
        provider_volume_id="kept", volume_type="sbs_volume", size_gb=20, is_boot=False, delete_on_terminate=False
    )
    await world.command(INSTANCE, INSTANCE_1, kept)
    await world.command(INSTANCE, INSTANCE_1, RequestTermination(reason="user"))
    await world.settle()
    volumes = FakeVolumes({"vol-1": volume(), "kept": volume("kept"), "theirs": volume("theirs", signed=False)})
    world.cloud.volumes = volumes
    await look(world)
    assert volumes.deleted == []
    await looks(world)
    assert volumes.deleted == ["vol-1"]


async def test_a_volume_in_use_or_of_a_living_instance_is_left_alone() -> None:
    world = await running_world()
    volumes = FakeVolumes({"vol-1": volume(), "vol-2": volume("vol-2", attached_to="srv-1")})
    world.cloud.volumes = volumes
    await looks(world)
    assert volumes.deleted == []


async def test_a_strays_volumes_go_with_it_although_they_carry_no_tags() -> None:
    world = await ended_world(server(9))
    volumes = FakeVolumes({"vol-9": volume("vol-9", attached_to="srv-9", signed=False)})
    world.cloud.volumes = volumes
    await looks(world, 2)
    assert (world.cloud.deleted, volumes.deleted) == (["srv-9"], []), "it is in use until the server is gone"
    volumes.volumes["vol-9"] = volume("vol-9", signed=False)
    await look(world, after_s=20)
    assert volumes.deleted == ["vol-9"]
    await look(world, after_s=20)
    assert (await account(world)).strays == {}


async def test_what_somebody_attached_to_a_stray_stays_theirs() -> None:
    world = await ended_world(server(9))
    theirs = replace(volume("theirs", attached_to="srv-9", signed=False), is_boot=False)
    volumes = FakeVolumes({"theirs": theirs, "vol-9": volume("vol-9", attached_to="srv-9", signed=False)})
    world.cloud.volumes = volumes
    await looks(world, 2)
    assert world.cloud.deleted == ["srv-9"]
    volumes.volumes = {name: replace(one, attached_to="") for name, one in volumes.volumes.items()}
    await looks(world)
    assert volumes.deleted == ["vol-9"]


async def test_volumes_that_are_not_listed_do_not_stop_the_servers() -> None:
    world = await ended_world(server(9))
    world.cloud.volumes = FakeVolumes({"vol-1": volume()}, unknown="503")
    await looks(world, 2)
    assert world.cloud.deleted == ["srv-9"]
    assert (await account(world)).troubles.keys() == {"list_volumes"}


async def test_a_stray_whose_volumes_are_not_known_waits_and_the_others_do_not() -> None:
    world = await ended_world(server(8), server(9))
    volumes = FakeVolumes({"vol-9": volume("vol-9", attached_to="srv-9", signed=False)})
    list_volumes = volumes.list_volumes

    async def list_some(provider_instance_id: str) -> Sequence[Volume]:
        if provider_instance_id == "srv-9":
            raise Unavailable("504")
        return await list_volumes(provider_instance_id)

    volumes.list_volumes = list_some  # type: ignore[method-assign] # one server's disks are not told
    world.cloud.volumes = volumes
    await looks(world)
    assert world.cloud.deleted == ["srv-8"]
    assert (await account(world)).troubles.keys() == {"list_volumes"}
    volumes.list_volumes = list_volumes  # type: ignore[method-assign] # the control: now they are
    await looks(world, 2)
    assert world.cloud.deleted == ["srv-8", "srv-9"]


async def test_a_stray_volume_of_which_nothing_can_be_learned_is_not_forgotten() -> None:
    world = await ended_world(server(9))
    volumes = FakeVolumes({"vol-9": volume("vol-9", attached_to="srv-9", signed=False)})
    world.cloud.volumes = volumes
    await looks(world, 2)
    volumes.volumes["vol-9"] = volume("vol-9", signed=False)
    find_volume = volumes.find_volume

    async def fail(provider_volume_id: str) -> Volume | Absent | Unknown:
        raise Unavailable("504")

    volumes.find_volume = fail  # type: ignore[method-assign] # a provider without an answer
    await looks(world)
    assert volumes.deleted == []
    assert (await account(world)).strays.keys() == {"volume/vol-9"}
    volumes.find_volume = find_volume  # type: ignore[method-assign] # the control: it answers again
    await look(world, after_s=20)
    assert volumes.deleted == ["vol-9"]
