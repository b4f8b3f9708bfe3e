"""Laws of the abilities: volumes, ports and offers, where the provider has them."""

from handlers.cloud_ports import Absent, Cloud, Offers, Ports, Volume, Volumes
from tests.infra.providers.conformance.double import (
    CannotProduceError,
    Double,
    deleted,
    eventually,
    made,
    running,
    trouble_of,
    until,
    wanted,
)

GROWTH_GB = 30
DATA_VOLUME = "inventiv-data-1"


async def a_started_server_has_one_boot_volume_with_its_tags(double: Double) -> None:
    cloud, volumes = _with_volumes(double)
    server = await running(double, cloud)
    boot = await _boot_volume(double, volumes, server.provider_instance_id)
    assert boot.attached_to == server.provider_instance_id
    assert boot.size_gb > 0
    assert dict(boot.tags) | dict(wanted(double).tags) == dict(boot.tags)
    own = await volumes.list_own_volumes()
    assert boot.provider_volume_id in {one.provider_volume_id for one in own}


async def a_boot_volume_grows_and_never_shrinks(double: Double) -> None:
    cloud, volumes = _with_volumes(double)
    server = await made(double, cloud)
    boot = await _boot_volume(double, volumes, server.provider_instance_id)
    larger = boot.size_gb + GROWTH_GB
    for size_gb in (larger, larger, boot.size_gb):
        await eventually(double, lambda size_gb=size_gb: volumes.resize_volume(boot.provider_volume_id, size_gb))  # type: ignore[misc] # mypy cannot infer a lambda with a default

        async def is_larger() -> bool:
            found = await volumes.find_volume(boot.provider_volume_id)
            return isinstance(found, Volume) and found.size_gb == larger

        await until(double, is_larger, f"the volume has {larger} GB")


async def creating_a_volume_twice_creates_it_once(double: Double) -> None:
    cloud, volumes = _with_volumes(double)
    first = await _data_volume(double, volumes)
    second = await _data_volume(double, _with_volumes(double)[1])
    assert first.provider_volume_id == second.provider_volume_id
    assert [one.name for one in await volumes.list_own_volumes()] == [DATA_VOLUME]
    assert list(await cloud.list_servers()) == []


async def an_attached_volume_shows_at_its_server_and_cannot_be_deleted(double: Double) -> None:
    cloud, volumes = _with_volumes(double)
    server = await running(double, cloud)
    data = await _data_volume(double, volumes)
    for _ in range(2):
        await eventually(double, lambda: volumes.attach_volume(data.provider_volume_id, server.provider_instance_id))
    listed = await eventually(double, lambda: volumes.list_volumes(server.provider_instance_id))
    assert [one.is_boot for one in listed if one.provider_volume_id == data.provider_volume_id] == [False]
    await trouble_of(lambda: volumes.delete_volume(data.provider_volume_id))
    assert isinstance(await volumes.find_volume(data.provider_volume_id), Volume)


async def the_volumes_of_a_deleted_server_can_be_found_and_deleted(double: Double) -> None:
    cloud, volumes = _with_volumes(double)
    server = await running(double, cloud)
    listed = await eventually(double, lambda: volumes.list_volumes(server.provider_instance_id))
    assert listed
    await deleted(double, cloud, server.provider_instance_id)
    for volume in listed:
        for _ in range(2):
            await eventually(double, lambda volume=volume: volumes.delete_volume(volume.provider_volume_id))  # type: ignore[misc] # mypy cannot infer a lambda with a default

        async def is_gone(volume_id: str = volume.provider_volume_id) -> bool:
            return await volumes.find_volume(volume_id) == Absent()

        await until(double, is_gone, "a deleted volume is absent")
    assert list(await volumes.list_own_volumes()) == []


async def a_volume_that_never_was_is_absent_and_deleting_it_is_fine(double: Double) -> None:
    _, volumes = _with_volumes(double)
    assert await volumes.find_volume(double.no_volume_id) == Absent()
    await volumes.delete_volume(double.no_volume_id)


async def opened_ports_stay_open_when_others_are_opened(double: Double) -> None:
    cloud = double.new_cloud()
    ports: Ports | None = cloud.ports
    if ports is None or double.opened_ports is None:
        raise CannotProduceError("this provider has no firewall, or its double does not show it")
    server = await running(double, cloud)
    for wanted_ports in ((22,), (8080, 8000), (8080, 8000)):
        await eventually(double, lambda asked=wanted_ports: ports.open_ports(server.provider_instance_id, asked))  # type: ignore[misc] # mypy cannot infer a lambda with a default
    assert await double.opened_ports(server.provider_instance_id) == {22, 8000, 8080}


async def offers_say_what_they_cost_and_hold(double: Double) -> None:
    offers = await _offers(double).list_offers()
    assert (double.zone, double.instance_type) in {(one.zone, one.instance_type) for one in offers}
    assert len({(one.zone, one.instance_type) for one in offers}) == len(offers)
    for one in offers:
        assert one.price_eur_micros_per_hour is None or one.price_eur_micros_per_hour > 0
        assert min(one.gpu_count, one.vram_per_gpu_gb) > 0, one
        assert min(one.cpu_count, one.ram_gb) >= 0, "0 where nobody asked a host"


async def an_offer_that_is_sold_out_says_so(double: Double) -> None:
    offers = _offers(double)
    await double.trouble("out_of_stock")
    stock = {(one.zone, one.instance_type): one.stock for one in await offers.list_offers()}
    assert stock[double.zone, double.instance_type] in {"out", "unknown"}


async def a_partial_list_of_offers_is_none(double: Double) -> None:
    offers = _offers(double)
    await double.trouble("partial_page")
    await trouble_of(offers.list_offers)


def _with_volumes(double: Double) -> tuple[Cloud, Volumes]:
    cloud = double.new_cloud()
    if cloud.volumes is None:
        raise CannotProduceError("this provider has no volumes")
    return cloud, cloud.volumes


def _offers(double: Double) -> Offers:
    offers: Offers | None = double.new_cloud().offers
    if offers is None:
        raise CannotProduceError("this provider has no offers")
    return offers


async def _boot_volume(double: Double, volumes: Volumes, provider_instance_id: str) -> Volume:
    listed = await eventually(double, lambda: volumes.list_volumes(provider_instance_id))
    (boot,) = [one for one in listed if one.is_boot]
    return boot


async def _data_volume(double: Double, volumes: Volumes) -> Volume:
    request = wanted(double)

    async def create() -> Volume:
        return await volumes.create_volume(name=DATA_VOLUME, zone=double.zone, size_gb=50, tags=request.tags)

    volume = await eventually(double, create)
    for _ in range(3):  # a volume is usable some seconds after it was made
        await double.pass_time()
    return volume


CASES = (
    a_started_server_has_one_boot_volume_with_its_tags,
    a_boot_volume_grows_and_never_shrinks,
    creating_a_volume_twice_creates_it_once,
    an_attached_volume_shows_at_its_server_and_cannot_be_deleted,
    the_volumes_of_a_deleted_server_can_be_found_and_deleted,
    a_volume_that_never_was_is_absent_and_deleting_it_is_fine,
    opened_ports_stay_open_when_others_are_opened,
    offers_say_what_they_cost_and_hold,
    an_offer_that_is_sold_out_says_so,
    a_partial_list_of_offers_is_none,
)
