"""What is Scaleway's own, besides the laws of every provider: images, disks, states, zones, lists that lag."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from handlers.cloud_ports import (
    Absent,
    CloudRefusedError,
    CloudUnavailableError,
    Present,
    Server,
    ServerRequest,
    Unknown,
)
from infra.providers import scaleway_creation
from infra.providers.calling import StillBusyError
from infra.providers.scaleway import ScalewayCloud, scaleway_cloud
from infra.providers.scaleway_api import ScalewayAccount
from infra.providers.scaleway_creation import TRIES
from infra.providers.scaleway_places import GPU_IMAGE, PLAIN_IMAGE, ZONES, image_of
from infra.simulated_clouds.scaleway.faults import Fault, FaultKind
from infra.simulated_clouds.scaleway.running import SimulatedScaleway, simulated_scaleway

BOOTSTRAP = "#cloud-config\n# 'quoted' and ünïcode\n"
REQUEST = ServerRequest(
    name="inventiv-worker-1-1",
    tags={"platform": "inventiv-agents", "instance": "1", "attempt": "1"},
    zone="fr-par-2",
    instance_type="L4-1-24G",
    agent_environment={"WORKER_AUTH_TOKEN": "wb_secret"},
)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaleway_creation, "RETRY_PAUSE_S", 0.0)


@pytest.fixture
async def scaleway() -> AsyncIterator[SimulatedScaleway]:
    async with simulated_scaleway() as running:
        yield running


def cloud_of(scaleway: SimulatedScaleway, zones: tuple[str, ...] = ("fr-par-2", "nl-ams-1")) -> ScalewayCloud:
    account = ScalewayAccount(project_id=scaleway.project_id, secret_key=scaleway.secret_key, url=scaleway.url)
    return ScalewayCloud(account, lambda _request: BOOTSTRAP, zones)


@pytest.fixture
def cloud(scaleway: SimulatedScaleway) -> ScalewayCloud:
    return cloud_of(scaleway)


async def created(scaleway: SimulatedScaleway, cloud: ScalewayCloud, request: ServerRequest = REQUEST) -> Server:
    server = await cloud.create_server(request)
    scaleway.clock.advance(5)
    return server


async def started(scaleway: SimulatedScaleway, cloud: ScalewayCloud) -> Server:
    server = await created(scaleway, cloud)
    await cloud.start_server(server.provider_instance_id)
    scaleway.clock.advance(60)
    return server


def operations(scaleway: SimulatedScaleway) -> list[str]:
    return [call.operation for call in scaleway.cloud.calls]


async def test_a_new_server_is_off_and_has_its_bootstrap_before_it_is_switched_on(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await created(scaleway, cloud)
    (there,) = scaleway.cloud.servers.values()
    assert (there.state, server.running, server.ip_address) == ("stopped", False, "")
    assert there.user_data["cloud-init"].decode() == BOOTSTRAP
    assert (there.image_id, there.commercial_type) == (GPU_IMAGE, "L4-1-24G")
    assert there.tags[:2] == ["inventiv-agents", "worker"]
    assert server.provider_instance_id == f"fr-par-2/{there.server_id}"


async def test_a_creation_that_was_cut_off_before_its_bootstrap_is_completed(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    scaleway.faults.add(Fault(operation="set_server_user_data", kind="reset", times=TRIES))
    with pytest.raises(CloudUnavailableError):
        await cloud.create_server(REQUEST)
    assert await cloud.find_server(name=REQUEST.name) == Absent(), "what has no bootstrap has no name"
    (listed,) = await cloud.list_servers()
    assert listed.tags == REQUEST.tags, "and yet the sweep knows whose it is"
    await cloud.create_server(REQUEST)
    (there,) = scaleway.cloud.servers.values()
    assert (there.name, there.user_data["cloud-init"].decode()) == (REQUEST.name, BOOTSTRAP)
    assert operations(scaleway).count("create_server") == 1


@pytest.mark.parametrize("kind", ["rate_limited", "denied", "quota", "out_of_stock", "server_error", "reset"])
@pytest.mark.parametrize("call", ["set_server_user_data", "update_server", "list_servers"])
async def test_once_a_server_was_asked_for_no_answer_says_that_there_is_none(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud, call: str, kind: FaultKind
) -> None:
    first = 2 if call == "list_servers" else 1  # the first listing comes before
    scaleway.faults.add(Fault(operation=call, kind=kind, nth=first, times=TRIES))
    with pytest.raises(CloudUnavailableError) as unavailable:
        await cloud.create_server(REQUEST)
    assert unavailable.value.kind == "transient"
    assert len(scaleway.cloud.servers) == 1


async def test_a_hiccup_does_not_cost_a_whole_attempt(scaleway: SimulatedScaleway, cloud: ScalewayCloud) -> None:
    for call in ("set_server_user_data", "update_server"):
        scaleway.faults.add(Fault(operation=call, kind="server_error"))
    assert (await cloud.create_server(REQUEST)).name == REQUEST.name


async def test_a_creation_gives_up_before_the_handlers_conclude_that_there_is_no_server(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaleway_creation, "CREATE_S", 0.3)
    scaleway.faults.add(Fault(operation="create_server", kind="hang", after_s=5.0))
    with pytest.raises(CloudUnavailableError, match="not complete after"):
        await cloud.create_server(REQUEST)


async def test_no_server_is_asked_for_late(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaleway_creation, "LOOK_S", 0.0)
    with pytest.raises(CloudUnavailableError, match="too long to look"):
        await cloud.create_server(REQUEST)
    assert "create_server" not in operations(scaleway)


async def test_a_machine_that_shut_itself_down_is_switched_off_for_good_before_it_is_deleted(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await started(scaleway, cloud)
    (there,) = scaleway.cloud.servers.values()
    there.state = "stopped in place"
    found = await cloud.find_server(provider_instance_id=server.provider_instance_id)
    assert isinstance(found, Present)
    assert not found.server.running
    with pytest.raises(StillBusyError):
        await cloud.delete_server(server.provider_instance_id)
    scaleway.clock.advance(30)
    await cloud.delete_server(server.provider_instance_id)
    assert not scaleway.cloud.servers


async def test_a_server_stands_behind_our_own_firewall_from_the_beginning(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    await created(scaleway, cloud)
    await created(scaleway, cloud, replace(REQUEST, name="inventiv-worker-2-1"))
    groups = {scaleway.cloud.security_groups[one.group_id].name for one in scaleway.cloud.servers.values()}
    assert groups == {"inventiv-agents"}
    assert operations(scaleway).count("create_security_group") == 1


async def test_a_wrong_firewall_is_changed_for_ours_and_left_as_it_was(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await started(scaleway, cloud)
    (there,) = scaleway.cloud.servers.values()
    default = next(
        one for one in scaleway.cloud.security_groups.values() if one.project_default and one.zone == "fr-par-2"
    )
    ours, there.group_id, before = there.group_id, default.group_id, list(default.rules)
    await cloud.ports.open_ports(server.provider_instance_id, [22, 8080])
    assert there.group_id == ours
    assert default.rules == before
    assert {rule.port_from for rule in scaleway.cloud.security_groups[ours].rules if rule.editable} == {22, 8080}


async def test_a_local_volume_on_a_diskless_type_is_refused_in_scaleways_words(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await created(scaleway, cloud)
    for volume in scaleway.cloud.volumes.values():
        volume.kind = "l_ssd"
    with pytest.raises(CloudRefusedError, match=r"to be 0 GB, and it has 20 GB") as refused:
        await cloud.start_server(server.provider_instance_id)
    assert refused.value.code == "DISKLESS_BOOT_IMAGE_REQUIRED"
    (boot,) = await cloud.volumes.list_volumes(server.provider_instance_id)
    assert boot.volume_type == "l_ssd", "its volumes can still be listed, to be deleted"
    with pytest.raises(CloudRefusedError, match="local volume"):
        await cloud.volumes.resize_volume(boot.provider_volume_id, 200)


async def test_a_server_is_not_started_before_its_boot_volume_has_our_tags(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await cloud.create_server(REQUEST)
    with pytest.raises(StillBusyError):
        await cloud.start_server(server.provider_instance_id)
    scaleway.clock.advance(5)
    await cloud.start_server(server.provider_instance_id)
    (volume,) = scaleway.cloud.volumes.values()
    assert "inventiv-agents" in volume.tags


async def test_no_volume_outlives_its_server_without_our_tags(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await cloud.create_server(REQUEST)
    with pytest.raises(StillBusyError):
        await cloud.delete_server(server.provider_instance_id)
    assert len(scaleway.cloud.servers) == 1
    scaleway.clock.advance(5)
    await cloud.delete_server(server.provider_instance_id)
    (left,) = await cloud.volumes.list_own_volumes()
    assert dict(left.tags) == dict(REQUEST.tags)
    assert not scaleway.cloud.servers


async def test_deleting_a_running_server_says_that_it_is_still_stopping(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await started(scaleway, cloud)
    for _ in range(2):
        with pytest.raises(StillBusyError, match="still stopping"):
            await cloud.delete_server(server.provider_instance_id)
    scaleway.clock.advance(30)
    await cloud.delete_server(server.provider_instance_id)
    assert await cloud.find_server(provider_instance_id=server.provider_instance_id) == Absent()
    assert not [one for one in operations(scaleway) if "terminate" in one]


async def test_a_server_that_still_stops_cannot_be_started_yet(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await started(scaleway, cloud)
    await cloud.stop_server(server.provider_instance_id)
    with pytest.raises(StillBusyError):
        await cloud.start_server(server.provider_instance_id)


async def test_power_that_was_switched_on_without_an_answer_is_on(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await created(scaleway, cloud)
    scaleway.faults.add(Fault(operation="server_action*", kind="done_then_504"))
    with pytest.raises(CloudUnavailableError):
        await cloud.start_server(server.provider_instance_id)
    await cloud.start_server(server.provider_instance_id)
    assert len([one for one in operations(scaleway) if one.startswith("server_action")]) == 1


@pytest.mark.parametrize("moment", ["create_server", "server_action:poweron"])
async def test_sold_out_is_told_whenever_it_shows(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud, moment: str
) -> None:
    scaleway.faults.add(Fault(operation=moment, kind="out_of_stock"))
    with pytest.raises(CloudRefusedError) as refused:
        await started(scaleway, cloud)
    assert (refused.value.code, refused.value.kind) == ("PROVIDER_OUT_OF_STOCK", "out_of_stock")


async def test_where_lists_lag_a_second_creation_is_seen_later_and_the_older_server_stays(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    first = await cloud.create_server(REQUEST)
    scaleway.clock.advance(1)
    scaleway.cloud.list_lag_s = 5.0
    twin = cloud_of(scaleway)
    await asyncio.gather(cloud.create_server(REQUEST), twin.create_server(REQUEST))
    scaleway.clock.advance(30)
    found = await cloud.find_server(name=REQUEST.name)
    assert isinstance(found, Present)
    assert found.server.provider_instance_id == first.provider_instance_id, "the oldest is the one that is meant"


async def test_servers_in_every_zone_are_listed_over_all_pages(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    await cloud.create_server(REQUEST)
    (template,) = scaleway.cloud.servers.values()
    for number in range(205):
        copy = f"{number:08x}-0000-4000-8000-000000000000"
        twin = type(template)(**{**vars(template), "server_id": copy, "name": f"n{number}", "volume_ids": {}})
        scaleway.cloud.servers[copy] = twin
    await cloud.create_server(replace(REQUEST, name="elsewhere", zone="nl-ams-1"))
    listed = await cloud.list_servers()
    assert len({one.provider_instance_id for one in listed}) == len(listed) == 207
    assert {one.zone for one in listed} == {"fr-par-2", "nl-ams-1"}


async def test_a_zone_that_is_not_listed_is_not_created_in(cloud: ScalewayCloud) -> None:
    with pytest.raises(CloudRefusedError) as refused:
        await cloud.create_server(replace(REQUEST, zone="us-nyc-1"))
    assert refused.value.code == "MISSING_ZONE"


async def test_an_id_that_is_none_of_scaleways_is_nobodys_absence(cloud: ScalewayCloud) -> None:
    for wrong in ("", "fr-par-2", "11111111-2222-4333-8444-555555555555", "fr-par-2/../../iam/v1alpha1/api-keys"):
        assert isinstance(await cloud.find_server(provider_instance_id=wrong or "x"), Unknown)
        with pytest.raises(CloudUnavailableError):
            await cloud.delete_server(wrong)


@pytest.mark.parametrize(
    ("credentials", "words"),
    [
        ({"project_id": "11111111-2222-4333-8444-555555555555", "secret_key": "hush\nhush"}, "secret key"),
        ({"project_id": "acme", "secret_key": "11111111-2222-4333-8444-555555555555"}, "project id"),
    ],
)
async def test_credentials_that_cannot_be_right_are_refused_without_a_call(
    credentials: dict[str, str], words: str
) -> None:
    cloud = scaleway_cloud(credentials, bootstrap=lambda _request: "", url="http://127.0.0.1:9")
    with pytest.raises(CloudRefusedError, match=words) as refused:
        await cloud.create_server(REQUEST)
    assert refused.value.kind == "auth"
    assert "hush" not in str(refused.value)
    assert isinstance(await cloud.find_server(name="a"), Unknown)


async def test_offers_have_the_prices_and_sizes_of_their_zone(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    scaleway.cloud.stock["fr-par-2", "L40S-1-48G"] = 0
    offers = {(one.zone, one.instance_type): one for one in await cloud.offers.list_offers()}
    l4 = offers["fr-par-2", "L4-1-24G"]
    assert (l4.gpu_count, l4.vram_per_gpu_gb, l4.cpu_count, l4.ram_gb) == (1, 24, 8, 48)
    assert (l4.price_eur_micros_per_hour, l4.stock) == (750_000, "available")
    assert offers["fr-par-2", "L40S-1-48G"].stock == "out"
    assert ("nl-ams-1", "L4-1-24G") in offers
    assert not [one for one in offers.values() if one.gpu_count == 0]


@pytest.mark.parametrize(
    ("instance_type", "image"),
    [
        ("L4-1-24G", GPU_IMAGE),
        ("L40S-8-48G", GPU_IMAGE),
        ("RENDER-S", GPU_IMAGE),
        ("H100-1-80G", GPU_IMAGE),
        ("H100-SXM-8-80G", PLAIN_IMAGE),
        ("PRO2-XXS", PLAIN_IMAGE),
    ],
)
def test_the_image_follows_from_the_type(instance_type: str, image: str) -> None:
    assert image_of(instance_type) == image


def test_every_zone_is_listed_by_default(scaleway: SimulatedScaleway) -> None:
    account = ScalewayAccount(project_id=scaleway.project_id, secret_key=scaleway.secret_key)
    assert ScalewayCloud(account, lambda _request: "")._zones == ZONES


async def test_a_disk_that_somebody_attached_by_hand_keeps_its_own_tags_and_is_never_taken_for_ours(
    scaleway: SimulatedScaleway, cloud: ScalewayCloud
) -> None:
    server = await created(scaleway, cloud)
    theirs = await cloud.volumes.create_volume(name="theirs", zone=REQUEST.zone, size_gb=50, tags={})
    scaleway.clock.advance(5)
    data = scaleway.cloud.volumes[theirs.provider_volume_id.partition("/")[2]]
    data.tags = ["department=research"]
    await cloud.volumes.attach_volume(theirs.provider_volume_id, server.provider_instance_id)
    await cloud.start_server(server.provider_instance_id)
    scaleway.clock.advance(60)
    listed = await cloud.volumes.list_volumes(server.provider_instance_id)
    assert sorted((volume.is_boot, volume.name == "theirs") for volume in listed) == [(False, True), (True, False)]
    for _ in range(2):
        with contextlib.suppress(StillBusyError):
            await cloud.delete_server(server.provider_instance_id)
        scaleway.clock.advance(60)
    assert not scaleway.cloud.servers
    assert data.tags == ["department=research"]
    assert [volume.name for volume in await cloud.volumes.list_own_volumes()] != ["theirs"]


async def test_a_bootstrap_that_cannot_be_made_is_a_refusal_and_no_server(scaleway: SimulatedScaleway) -> None:
    def cannot(_request: ServerRequest) -> str:
        raise CloudRefusedError("PROVIDER_CREATE_FAILED", "WORKER_VLLM_IMAGE is not in its expected form")

    account = ScalewayAccount(project_id=scaleway.project_id, secret_key=scaleway.secret_key, url=scaleway.url)
    with pytest.raises(CloudRefusedError):
        await ScalewayCloud(account, cannot, ("fr-par-2",)).create_server(REQUEST)
    assert not scaleway.cloud.servers, "a refusal says that there is none"
