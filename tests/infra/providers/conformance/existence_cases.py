"""The law that keeps fleets alive: what is not known is unknown. No trouble of the provider makes anything absent."""

from collections.abc import Awaitable, Callable

from handlers.cloud_ports import Absent, Cloud, CloudRefusedError, CloudUnavailableError, Present, Unknown
from tests.infra.providers.conformance.double import (
    UNCLEAR,
    CannotProduceError,
    Double,
    Trouble,
    eventually,
    made,
    running,
    until,
    wanted,
)

Case = Callable[[Double], Awaitable[None]]


def _under(trouble: Trouble) -> Case:
    async def nothing_is_absent(double: Double) -> None:
        cloud = double.new_cloud()
        server = await made(double, cloud)
        await double.trouble(trouble)
        for found in (
            await cloud.find_server(provider_instance_id=server.provider_instance_id),
            await cloud.find_server(name=server.name),
            await cloud.find_server(name=server.name, zone=double.zone),
            await cloud.find_server(provider_instance_id=double.no_server_id),
            await cloud.find_server(name="nobody"),
        ):
            assert isinstance(found, Unknown), f"{trouble}: {found}"
            assert found.reason
        await _must_raise(cloud.list_servers)
        await _must_raise(lambda: cloud.delete_server(server.provider_instance_id))
        await _must_raise(lambda: cloud.create_server(wanted(double)))
        await double.heal()
        await until(double, lambda: _is_there(double, server.provider_instance_id), "the server is seen again")

    nothing_is_absent.__name__ = f"when_{trouble}_nothing_is_absent"
    return nothing_is_absent


def _volumes_under(trouble: Trouble) -> Case:
    async def no_volume_is_absent(double: Double) -> None:
        cloud = double.new_cloud()
        if cloud.volumes is None:
            raise CannotProduceError("this provider has no volumes")
        volumes = cloud.volumes
        server = await running(double, cloud)
        (volume, *_) = await eventually(double, lambda: volumes.list_volumes(server.provider_instance_id))
        await double.trouble(trouble)
        assert isinstance(await volumes.find_volume(volume.provider_volume_id), Unknown)
        assert isinstance(await volumes.find_volume(double.no_volume_id), Unknown)
        await _must_raise(volumes.list_own_volumes)
        await _must_raise(lambda: volumes.list_volumes(server.provider_instance_id))
        await _must_raise(lambda: volumes.delete_volume(volume.provider_volume_id))

    no_volume_is_absent.__name__ = f"when_{trouble}_no_volume_is_absent"
    return no_volume_is_absent


async def a_partial_listing_is_no_listing(double: Double) -> None:
    cloud = double.new_cloud()
    server = await running(double, cloud)
    await double.trouble("partial_page")
    await _must_raise(cloud.list_servers)
    assert isinstance(await cloud.find_server(name=server.name), Unknown)
    await _must_raise(lambda: cloud.create_server(wanted(double)))
    if cloud.volumes is not None:
        await _must_raise(cloud.volumes.list_own_volumes)
    await double.heal()
    assert [one.name for one in await cloud.list_servers()] == [server.name]


async def an_id_that_is_none_is_never_present(double: Double) -> None:
    found = await double.new_cloud().find_server(provider_instance_id="no id of any provider")
    assert isinstance(found, Absent | Unknown)


async def _must_raise(act: Callable[[], Awaitable[object]]) -> None:
    """One of the door's two errors, and nothing else."""
    try:
        answer = await act()
    except (CloudRefusedError, CloudUnavailableError):
        return
    raise AssertionError(f"an answer was believed: {answer!r}")


async def _is_there(double: Double, provider_instance_id: str) -> bool:
    cloud: Cloud = double.new_cloud()
    return isinstance(await cloud.find_server(provider_instance_id=provider_instance_id), Present)


CASES = (
    *(_under(trouble) for trouble in UNCLEAR),
    *(_volumes_under(trouble) for trouble in UNCLEAR),
    a_partial_listing_is_no_listing,
    an_id_that_is_none_is_never_present,
)
