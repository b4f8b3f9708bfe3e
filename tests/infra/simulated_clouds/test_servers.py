"""Servers of the simulated Scaleway, driven by the official SDK: what they are, how they change, how they end."""

import pytest

from infra.simulated_clouds.scaleway.offers import GB
from infra.simulated_clouds.scaleway.running import SimulatedScaleway, new_account
from tests.infra.simulated_clouds.sdk import GPU_IMAGE, ZONE, Sdk, refusal


async def test_a_new_server_is_stopped_and_has_no_address(sdk: Sdk) -> None:
    server = await sdk.create(tags=["inventiv-agents", "worker"])
    assert (server.state, server.public_ip, server.zone) == ("stopped", None, ZONE)
    assert server.tags == ["inventiv-agents", "worker"]
    assert server.image.id == GPU_IMAGE
    assert server.security_group.name == "Default security group"
    assert await sdk.server(server.id) == server


@pytest.mark.parametrize("commercial_type", ["L4-1-24G", "L40S-1-48G", "RENDER-S"])
async def test_a_server_without_a_word_about_volumes_gets_20_gb_of_block_storage(
    sdk: Sdk, scaleway: SimulatedScaleway, commercial_type: str
) -> None:
    server = await sdk.create(commercial_type)
    volume_id = server.volumes["0"].id
    assert (server.volumes["0"].volume_type, server.volumes["0"].size) == ("sbs_volume", None)
    assert (await sdk.block("get_volume", volume_id=volume_id)).status == "creating"
    scaleway.clock.advance(2)
    volume = await sdk.block("get_volume", volume_id=volume_id)
    assert (volume.status, volume.size, volume.tags) == ("in_use", 20 * GB, [])
    assert [r.product_resource_id for r in volume.references] == [server.id]


async def test_a_diskless_type_refuses_local_volumes(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    local = {"0": sdk.local_template(20 * GB)}
    status, body = await refusal(lambda: sdk.create(volumes=local))
    assert (status, body["type"], body["details"][0]["argument_name"]) == (400, "invalid_arguments", "volumes")
    assert scaleway.cloud.servers == {}
    assert scaleway.cloud.volumes == {}


async def test_a_type_with_a_local_disk_takes_one_and_it_goes_with_the_server(
    sdk: Sdk, scaleway: SimulatedScaleway
) -> None:
    server = await sdk.create("DEV1-S", volumes={"0": sdk.local_template(10 * GB)})
    shown = (await sdk.instance("get_volume", volume_id=server.volumes["0"].id)).volume
    assert (shown.volume_type, shown.size, shown.server.id) == ("l_ssd", 10 * GB, server.id)
    await sdk.instance("delete_server", server_id=server.id)
    assert (await refusal(lambda: sdk.instance("get_volume", volume_id=shown.id)))[0] == 404


async def test_power_on_takes_its_time_and_brings_an_address(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    task = (await sdk.act(server.id, "poweron")).task
    assert (task.status, task.progress) == ("pending", 0)
    scaleway.clock.advance(19.9)
    seen = await sdk.server(server.id)
    assert (seen.state, seen.public_ip) == ("starting", None)
    scaleway.clock.advance(0.1)
    seen = await sdk.server(server.id)
    assert seen.state == "running"
    assert seen.public_ip.dynamic
    assert seen.public_ip.address.startswith("127.")
    assert seen.allowed_actions


async def test_power_off_takes_the_address_back_and_gives_the_slot_back(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.cloud.stock[(ZONE, "L4-1-24G")] = 1
    server = await sdk.running(scaleway)
    assert scaleway.cloud.stock[(ZONE, "L4-1-24G")] == 0
    await sdk.act(server.id, "poweroff")
    assert (await sdk.server(server.id)).state == "stopping"
    scaleway.clock.advance(10)
    seen = await sdk.server(server.id)
    assert (seen.state, seen.public_ip) == ("stopped", None)
    assert scaleway.cloud.stock[(ZONE, "L4-1-24G")] == 1
    assert scaleway.cloud.places == {}


async def test_only_a_stopped_server_is_deleted_and_its_block_volume_stays(
    sdk: Sdk, scaleway: SimulatedScaleway
) -> None:
    server = await sdk.running(scaleway)
    volume_id = server.volumes["0"].id
    status, body = await refusal(lambda: sdk.instance("delete_server", server_id=server.id))
    assert (status, body["type"], body["precondition"]) == (400, "precondition_failed", "resource_still_in_use")
    await sdk.act(server.id, "poweroff")
    assert (await refusal(lambda: sdk.instance("delete_server", server_id=server.id)))[0] == 400
    scaleway.clock.advance(10)
    await sdk.instance("delete_server", server_id=server.id)
    status, body = await refusal(lambda: sdk.server(server.id))
    assert (status, body["type"]) == (404, "unknown_resource")
    scaleway.clock.advance(1)
    left = await sdk.block("get_volume", volume_id=volume_id)
    assert (left.status, left.references) == ("available", [])


async def test_terminate_ends_a_running_server_and_only_detaches_its_block_volume(
    sdk: Sdk, scaleway: SimulatedScaleway
) -> None:
    server = await sdk.running(scaleway)
    await sdk.act(server.id, "terminate")
    assert (await sdk.server(server.id)).state == "stopping"
    scaleway.clock.advance(11)
    assert (await refusal(lambda: sdk.server(server.id)))[0] == 404
    assert (await sdk.block("get_volume", volume_id=server.volumes["0"].id)).status == "available"


async def test_reboot_and_stop_in_place_keep_address_and_slot(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.cloud.stock[(ZONE, "L4-1-24G")] = 1
    server = await sdk.running(scaleway)
    await sdk.act(server.id, "reboot")
    assert (await sdk.server(server.id)).state == "starting"
    scaleway.clock.advance(20)
    await sdk.act(server.id, "stop_in_place")
    scaleway.clock.advance(10)
    seen = await sdk.server(server.id)
    assert (seen.state, seen.public_ip.address) == ("stopped in place", server.public_ip.address)
    assert scaleway.cloud.stock[(ZONE, "L4-1-24G")] == 0
    assert (await refusal(lambda: sdk.instance("delete_server", server_id=server.id)))[0] == 400


async def test_an_action_that_does_not_fit_the_state_is_refused(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    status, body = await refusal(lambda: sdk.act(server.id, "poweroff"))
    assert (status, body) == (400, {"type": "invalid_request_error", "message": "server should be running"})
    await sdk.act(server.id, "poweron")
    status, body = await refusal(lambda: sdk.act(server.id, "poweron"))
    assert (status, body["type"], body["current_state"]) == (409, "transient_state", "starting")
    scaleway.clock.advance(20)
    status, body = await refusal(lambda: sdk.act(server.id, "poweron"))
    assert (status, body["message"]) == (400, "server should be stopped")


async def test_a_locked_server_may_be_seen_and_nothing_else(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.running(scaleway)
    scaleway.cloud.servers[server.id].state = "locked"
    assert (await sdk.server(server.id)).state == "locked"
    for call in (lambda: sdk.act(server.id, "poweroff"), lambda: sdk.instance("delete_server", server_id=server.id)):
        status, body = await refusal(call)
        assert (status, body["type"]) == (423, "locked")


async def test_a_server_is_renamed_and_tagged_anew(sdk: Sdk) -> None:
    server = await sdk.create(tags=["old"])
    await sdk.instance("_update_server", server_id=server.id, name="other", tags=["new"])
    seen = await sdk.server(server.id)
    assert (seen.name, seen.tags) == ("other", ["new"])


async def test_user_data_are_bytes_under_a_key(sdk: Sdk) -> None:
    server = await sdk.create()
    content = b"#cloud-config\nwrite_files: []\n\x00\xff"
    await sdk.instance("set_server_user_data", server_id=server.id, key="cloud-init", content=content)
    assert (await sdk.instance("list_server_user_data", server_id=server.id)).user_data == ["cloud-init"]
    read = await sdk.instance("get_server_user_data", server_id=server.id, key="cloud-init")
    assert read.content == content
    await sdk.instance("delete_server_user_data", server_id=server.id, key="cloud-init")
    gone = await refusal(lambda: sdk.instance("get_server_user_data", server_id=server.id, key="cloud-init"))
    assert (gone[0], gone[1]["type"]) == (404, "not_found")


async def test_a_list_filters_by_part_of_the_name_and_by_whole_tags(sdk: Sdk) -> None:
    for number in range(3):
        await sdk.create(name=f"worker-{number}", tags=["ours", f"n={number}"])
    await sdk.create(name="stranger")

    async def names(**wanted: object) -> list[str]:
        return sorted(s.name for s in (await sdk.instance("list_servers", **wanted)).servers)

    assert await names(name="worker") == ["worker-0", "worker-1", "worker-2"]
    assert await names(tags=["ours", "n=1"]) == ["worker-1"]
    assert await names(tags=["our"]) == []
    assert await names(state="running") == []
    assert len(await names()) == 4


async def test_a_list_comes_in_pages_with_the_total_beside_it(sdk: Sdk) -> None:
    for number in range(5):
        await sdk.create(name=f"worker-{number}")
    pages = [await sdk.instance("list_servers", per_page=2, page=page) for page in (1, 2, 3, 4)]
    assert [len(page.servers) for page in pages] == [2, 2, 1, 0]
    assert {int(page.total_count) for page in pages} == {5}
    assert len({server.id for page in pages for server in page.servers}) == 5
    assert len(await sdk.instance("list_servers_all")) == 5
    assert (await refusal(lambda: sdk.instance("list_servers", per_page=101)))[0] == 400


async def test_lists_lag_behind_while_a_look_tells_the_truth(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.cloud.list_lag_s = 5
    server = await sdk.create()
    assert (await sdk.instance("list_servers")).servers == []
    assert (await sdk.server(server.id)).id == server.id
    scaleway.clock.advance(5)
    assert len((await sdk.instance("list_servers")).servers) == 1
    await sdk.instance("delete_server", server_id=server.id)
    assert [s.id for s in (await sdk.instance("list_servers")).servers] == [server.id]
    assert (await refusal(lambda: sdk.server(server.id)))[0] == 404
    scaleway.clock.advance(5)
    assert (await sdk.instance("list_servers")).servers == []


async def test_what_is_sold_out_is_refused_at_create_and_at_power_on(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    scaleway.cloud.stock[(ZONE, "L4-1-24G")] = 0
    for call in (sdk.create, lambda: sdk.act(server.id, "poweron")):
        status, body = await refusal(call)
        assert (status, body["type"], body["resource"]) == (412, "out_of_stock", "L4-1-24G")
    assert (await sdk.server(server.id)).state == "stopped"
    assert (await sdk.create(zone="pl-waw-2")).state == "stopped"


async def test_a_quota_counts_the_servers_of_a_type(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    scaleway.cloud.quotas["L4-1-24G"] = 1
    await sdk.create()
    status, body = await refusal(sdk.create)
    assert (status, body["type"]) == (403, "quotas_exceeded")
    assert body["details"] == [{"resource": "compute_servers_type_L4_1_24G", "quota": 1, "current": 1}]
    assert (await sdk.create("L40S-1-48G")).id


@pytest.mark.parametrize(
    ("wish", "status", "kind"),
    [
        ({"commercial_type": "X1-UNKNOWN"}, 400, "invalid_arguments"),
        ({"commercial_type": "B300-SXM-8-288G", "zone": "fr-par-1"}, 400, "invalid_arguments"),
        ({"image": "11111111-1111-4111-8111-111111111111"}, 404, "not_found"),
        ({"image": None}, 400, "invalid_arguments"),
        ({"project": "11111111-1111-4111-8111-111111111111"}, 403, "permissions_denied"),
        ({"zone": "xx-xxx-1"}, 404, "not_found"),
        ({"public_ips": ["11111111-1111-4111-8111-111111111111"]}, 404, "not_found"),
    ],
)
async def test_a_wish_that_cannot_be_is_refused_and_leaves_nothing(
    sdk: Sdk, scaleway: SimulatedScaleway, wish: dict[str, str], status: int, kind: str
) -> None:
    seen, body = await refusal(lambda: sdk.create(**wish))
    assert (seen, body["type"]) == (status, kind)
    assert scaleway.cloud.servers == {}


async def test_a_wrong_key_is_denied_and_a_neighbour_sees_nothing(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    status, body = await refusal(lambda: Sdk(scaleway, new_account()).server(server.id))
    assert (status, body["type"], body["reason"]) == (401, "denied_authentication", "not_found")
    neighbour = new_account()
    scaleway.cloud.add_account(neighbour)
    stranger = Sdk(scaleway, neighbour)
    assert (await stranger.instance("list_servers")).servers == []
    assert await refusal(lambda: stranger.server(server.id)) == (
        404,
        {"type": "unknown_resource", "message": f"Server '{server.id}' not found"},
    )
    volume_id = server.volumes["0"].id
    assert (await refusal(lambda: stranger.block("get_volume", volume_id=volume_id)))[0] == 404
