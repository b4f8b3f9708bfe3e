"""Volumes, firewalls, addresses and the catalogue of the simulated Scaleway, driven by the official SDK."""

from typing import Any

import pytest
from scaleway.block.v1 import CreateVolumeRequestFromEmpty
from scaleway.instance.v1 import (
    SecurityGroupPolicy,
    SecurityGroupRuleAction,
    SecurityGroupRuleDirection,
    SecurityGroupRuleProtocol,
    SecurityGroupTemplate,
    SetSecurityGroupRulesRequestRule,
)

from infra.simulated_clouds.scaleway.offers import GB, GIB
from infra.simulated_clouds.scaleway.running import SimulatedScaleway
from tests.infra.simulated_clouds.sdk import GPU_IMAGE, ZONE, Sdk, refusal


async def new_volume(sdk: Sdk, scaleway: SimulatedScaleway, **wish: Any) -> Any:
    wish = {"name": "data", "from_empty": CreateVolumeRequestFromEmpty(size=30 * GB), **wish}
    volume = await sdk.block("create_volume", **wish)
    scaleway.clock.advance(scaleway.cloud.delays.volume_s)
    return await sdk.block("get_volume", volume_id=volume.id)


async def test_a_volume_is_made_found_and_deleted(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    volume = await new_volume(sdk, scaleway, tags=["inventiv-agents"])
    assert (volume.status, volume.size, volume.tags) == ("available", 30 * GB, ["inventiv-agents"])
    listed = await sdk.block("list_volumes", include_deleted=False, tags=["inventiv-agents", "other"])
    assert [(v.id, listed.total_count) for v in listed.volumes] == [(volume.id, 1)]
    await sdk.block("delete_volume", volume_id=volume.id)
    assert (await sdk.block("get_volume", volume_id=volume.id)).status == "deleting"
    scaleway.clock.advance(1)
    status, body = await refusal(lambda: sdk.block("get_volume", volume_id=volume.id))
    assert (status, body["type"], body["resource_id"]) == (404, "not_found", volume.id)


async def test_a_volume_grows_in_its_own_time_and_never_shrinks(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    volume_id = server.volumes["0"].id
    early = await refusal(lambda: sdk.block("update_volume", volume_id=volume_id, size=200 * GB))
    assert (early[0], early[1]["type"], early[1]["current_state"]) == (409, "transient_state", "creating")
    scaleway.clock.advance(2)
    grown = await sdk.block("update_volume", volume_id=volume_id, size=200 * GB)
    assert (grown.size, grown.status) == (200 * GB, "resizing")
    scaleway.clock.advance(3)
    assert (await sdk.block("get_volume", volume_id=volume_id)).status == "in_use"
    status, body = await refusal(lambda: sdk.block("update_volume", volume_id=volume_id, size=100 * GB))
    assert (status, body["details"][0]["argument_name"]) == (400, "size")


async def test_a_volume_in_use_is_not_deleted(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    scaleway.clock.advance(2)
    volume_id = server.volumes["0"].id
    status, body = await refusal(lambda: sdk.block("delete_volume", volume_id=volume_id))
    assert (status, body["precondition"]) == (412, "resource_still_in_use")
    await sdk.instance("delete_server", server_id=server.id)
    assert (await refusal(lambda: sdk.block("delete_volume", volume_id=volume_id)))[0] == 412
    scaleway.clock.advance(1)
    await sdk.block("delete_volume", volume_id=volume_id)
    scaleway.clock.advance(1)
    assert scaleway.cloud.volumes == {}


async def test_a_volume_is_attached_and_detached(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server, volume = await sdk.create(), await new_volume(sdk, scaleway)
    await sdk.instance("attach_server_volume", server_id=server.id, volume_id=volume.id)
    assert (await sdk.server(server.id)).volumes["1"].id == volume.id
    listed = await sdk.block("list_volumes", include_deleted=False, product_resource_id=server.id)
    assert {v.id for v in listed.volumes} == {volume.id, server.volumes["0"].id}
    again = await refusal(lambda: sdk.instance("attach_server_volume", server_id=server.id, volume_id=volume.id))
    assert again[0] == 400
    await sdk.instance("detach_server_volume", server_id=server.id, volume_id=volume.id)
    assert list((await sdk.server(server.id)).volumes) == ["0"]
    scaleway.clock.advance(1)
    assert (await sdk.block("get_volume", volume_id=volume.id)).status == "available"


async def test_a_block_volume_does_not_exist_for_the_instance_api(sdk: Sdk) -> None:
    server = await sdk.create()
    for name in ("get_volume", "delete_volume"):
        status, body = await refusal(lambda name=name: sdk.instance(name, volume_id=server.volumes["0"].id))  # type: ignore[misc]  # a lambda's default
        assert (status, body["resource"]) == (404, "instance_volume")
    assert (await sdk.instance("list_volumes")).volumes == []


def rule(port: int, **more: Any) -> SetSecurityGroupRulesRequestRule:
    return SetSecurityGroupRulesRequestRule(
        action=SecurityGroupRuleAction.ACCEPT,
        protocol=SecurityGroupRuleProtocol.TCP,
        direction=SecurityGroupRuleDirection.INBOUND,
        ip_range="0.0.0.0/0",
        position=1,
        dest_port_from=port,
        dest_port_to=port,
        **more,
    )


async def test_setting_rules_replaces_what_was_there(sdk: Sdk) -> None:
    group_id = (await sdk.create()).security_group.id
    first = await sdk.instance("set_security_group_rules", security_group_id=group_id, rules=[rule(22)])
    assert [(r.protocol, r.dest_port_from, r.dest_port_to) for r in first.rules] == [("TCP", 22, None)]
    kept = rule(22, id=first.rules[0].id)
    await sdk.instance("set_security_group_rules", security_group_id=group_id, rules=[kept, rule(8080)])
    listed = (await sdk.instance("list_security_group_rules", security_group_id=group_id)).rules
    assert [(r.id == first.rules[0].id, r.dest_port_from) for r in listed] == [(True, 22), (False, 8080)]
    await sdk.instance("set_security_group_rules", security_group_id=group_id, rules=[rule(8000)])
    listed = (await sdk.instance("list_security_group_rules", security_group_id=group_id)).rules
    assert [r.dest_port_from for r in listed] == [8000]


async def test_a_rule_is_added_and_taken_away(sdk: Sdk) -> None:
    group_id = (await sdk.create()).security_group.id
    wish = {"action": "accept", "protocol": "tcp", "direction": "inbound", "ip_range": "10.1.2.3/32", "position": 1}
    wish |= {"editable": True, "dest_port_from": 8000, "dest_port_to": 8010}
    added = (await sdk.instance("create_security_group_rule", security_group_id=group_id, **wish)).rule
    assert (added.protocol, added.ip_range, added.dest_port_to) == ("TCP", "10.1.2.3", 8010)
    await sdk.instance("delete_security_group_rule", security_group_id=group_id, security_group_rule_id=added.id)
    assert (await sdk.instance("list_security_group_rules", security_group_id=group_id)).rules == []


async def test_a_server_moves_to_a_group_of_its_own_which_then_cannot_go(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    server = await sdk.create()
    policies = {
        "inbound_default_policy": SecurityGroupPolicy.DROP,
        "outbound_default_policy": SecurityGroupPolicy.ACCEPT,
    }
    wish = {"name": "workers", "description": "ours", "stateful": True, "enable_default_security": True, **policies}
    group = (await sdk.instance("create_security_group", **wish)).security_group
    assert (group.inbound_default_policy, group.stateful, group.project_default) == ("drop", True, False)
    template = SecurityGroupTemplate(id=group.id, name=group.name)
    await sdk.instance("_update_server", server_id=server.id, security_group=template)
    assert (await sdk.server(server.id)).security_group.id == group.id
    assert {g.name for g in (await sdk.instance("list_security_groups")).security_groups} == {
        "Default security group",
        "workers",
    }
    status, body = await refusal(lambda: sdk.instance("delete_security_group", security_group_id=group.id))
    assert (status, body["type"]) == (400, "conflict")
    await sdk.instance("delete_server", server_id=server.id)
    await sdk.instance("delete_security_group", security_group_id=group.id)
    status, body = await refusal(lambda: sdk.instance("get_security_group", security_group_id=group.id))
    assert (status, body["type"]) == (404, "unknown_resource")


async def test_a_reserved_address_stays_with_its_owner(sdk: Sdk, scaleway: SimulatedScaleway) -> None:
    ip = (await sdk.instance("create_ip", type_="routed_ipv4")).ip
    server = await sdk.create(public_ips=[ip.id], dynamic_ip_required=False)
    assert server.public_ip.address == ip.address
    await sdk.instance("delete_server", server_id=server.id)
    left = (await sdk.instance("get_ip", ip=ip.id)).ip
    assert (left.server, left.address, left.state) == (None, ip.address, "detached")
    assert [i.id for i in (await sdk.instance("list_ips")).ips] == [ip.id]
    await sdk.instance("delete_ip", ip=ip.id)
    assert (await refusal(lambda: sdk.instance("get_ip", ip=ip.id)))[0] == 404
    assert scaleway.cloud.places == {}


async def test_an_address_is_moved_between_servers(sdk: Sdk) -> None:
    ip, server = (await sdk.instance("create_ip")).ip, await sdk.create()
    await sdk.instance("update_ip", ip=ip.id, server=server.id)
    assert (await sdk.server(server.id)).public_ip.id == ip.id


async def test_the_catalogue_tells_sizes_and_prices(sdk: Sdk) -> None:
    types = (await sdk.instance("list_servers_types")).servers
    offer = types["L4-1-24G"]
    assert (offer.ncpus, offer.ram, offer.gpu, offer.hourly_price) == (8, 48 * GIB, 1, 0.75)
    assert (offer.gpu_info.gpu_name, offer.gpu_info.gpu_memory) == ("L4", 24 * GIB)
    assert offer.per_volume_constraint.l_ssd.max_size == 0
    assert offer.capabilities.block_storage
    assert "B300-SXM-8-288G" not in (await sdk.instance("list_servers_types", zone="fr-par-1")).servers


async def test_the_catalogue_comes_in_pages(sdk: Sdk) -> None:
    first = await sdk.instance("list_servers_types", per_page=10)
    second = await sdk.instance("list_servers_types", per_page=10, page=2)
    assert len(first.servers) == 10
    assert int(first.total_count) == len({**first.servers, **second.servers})


@pytest.mark.parametrize(("left", "word"), [(None, "available"), (3, "available"), (2, "scarce"), (0, "shortage")])
async def test_availability_tells_what_is_left(
    sdk: Sdk, scaleway: SimulatedScaleway, left: int | None, word: str
) -> None:
    if left is not None:
        scaleway.cloud.stock[(ZONE, "L4-1-24G")] = left
    shown = (await sdk.instance("get_server_types_availability")).servers
    assert shown["L4-1-24G"].availability == word
    assert shown["L40S-1-48G"].availability == "available"


async def test_images_are_listed_and_looked_up(sdk: Sdk) -> None:
    assert GPU_IMAGE in [image.id for image in (await sdk.instance("list_images")).images]
    image = (await sdk.instance("get_image", image_id=GPU_IMAGE)).image
    assert (image.state, image.root_volume.volume_type) == ("available", "sbs_snapshot")
    unknown = "11111111-1111-4111-8111-111111111111"
    assert (await refusal(lambda: sdk.instance("get_image", image_id=unknown)))[0] == 404
