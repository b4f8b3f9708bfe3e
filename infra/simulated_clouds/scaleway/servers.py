"""The Instance API's servers as records: create, list, look up, change, delete; power.py switches them.

    create ──> a stopped server, its boot volume, the default firewall; no address yet

The surprising rule: deleting is for stopped servers alone (anything else is "still in use"), and takes no block volume
along: those stay, and are paid for, until somebody deletes them.
"""

from infra.simulated_clouds.scaleway.calls import Call, Reply, paged, tags_in, word
from infra.simulated_clouds.scaleway.cloud import SimulatedCloud, new_id
from infra.simulated_clouds.scaleway.errors import (
    invalid_argument,
    invalid_request,
    missing_arguments,
    not_found,
    still_in_use,
)
from infra.simulated_clouds.scaleway.network import default_group
from infra.simulated_clouds.scaleway.offers import IMAGES, OFFERS, Offer
from infra.simulated_clouds.scaleway.power import changeable, remove
from infra.simulated_clouds.scaleway.resources import Ip, Server
from infra.simulated_clouds.scaleway.shown import shown_server
from infra.simulated_clouds.scaleway.volumes import attach, volumes_of_new_server

MAX_TAG_COUNT = 128


def create_server(cloud: SimulatedCloud, call: Call) -> Reply:
    """Nothing of it remains when anything about it is refused."""
    project_id = cloud.own_project(call.account, call.body.get("project"), "compute_servers")
    offer = _wanted_offer(call)
    image_id = word(call, "image")
    if image_id and image_id not in IMAGES:
        raise not_found("instance_image", image_id)
    ips = [_free_ip(cloud, call, ip_id) for ip_id in call.body.get("public_ips") or []]
    cloud.check_quota(call.account, offer.commercial_type)
    cloud.check_stock(call.zone, offer.commercial_type)
    now = cloud.clock.now
    server = Server(
        server_id=new_id(),
        zone=call.zone,
        project_id=project_id,
        name=word(call, "name") or f"srv-{new_id()[:8]}",
        commercial_type=offer.commercial_type,
        image_id=image_id,
        created_at=now,
        created_by_call=len(cloud.calls),
        updated_at=now,
        group_id=_group_of_new_server(cloud, call),
        tags=tags_in(call.body)[:MAX_TAG_COUNT],
        dynamic_ip_required=call.body.get("dynamic_ip_required", True) is not False,
        protected=call.body.get("protected") is True,
    )
    volumes = volumes_of_new_server(cloud, call, server, offer)
    cloud.servers[server.server_id] = server
    for slot, volume in volumes.items():
        attach(cloud, volume, server, slot)
    for ip in ips:
        ip.server_id = server.server_id
    return Reply(201, {"server": shown_server(cloud, server)})


def _wanted_offer(call: Call) -> Offer:
    wanted = word(call, "commercial_type")
    absent = [name for name in ("commercial_type", "image") if not call.body.get(name)]
    if "image" in absent and call.body.get("volumes"):
        absent.remove("image")
    if absent:
        raise missing_arguments(*absent)
    offer = OFFERS.get(wanted)
    if offer is None or call.zone not in offer.zones:
        raise invalid_argument("commercial_type", "constraint", f"{wanted} is not available in {call.zone}")
    return offer


def _free_ip(cloud: SimulatedCloud, call: Call, ip_id: str) -> Ip:
    ip = cloud.ips.get(ip_id)
    if ip is None or (ip.zone, ip.project_id) != (call.zone, call.account.project_id):
        raise not_found("instance_ip", ip_id)
    if ip.server_id:
        raise invalid_request("ip is already attached")
    return ip


def _group_of_new_server(cloud: SimulatedCloud, call: Call) -> str:
    wanted = word(call, "security_group")
    if not wanted:
        return default_group(cloud, call.account, call.zone).group_id
    group = cloud.security_groups.get(wanted)
    if group is None or (group.zone, group.project_id) != (call.zone, call.account.project_id):
        raise not_found("instance_security_group", wanted)
    return wanted


def list_servers(cloud: SimulatedCloud, call: Call) -> Reply:
    """A name matches as a part, each of the tags exactly."""
    wanted = call.wanted_tags()
    ids = {server_id for server_id in call.query.get("servers", "").split(",") if server_id}
    found = [
        server
        for server in cloud.listed_servers(call.account, call.zone)
        if call.query.get("name", "") in server.name
        and wanted <= set(server.tags)
        and call.query.get("commercial_type", server.commercial_type) == server.commercial_type
        and call.query.get("state", server.state) == server.state
        and call.query.get("project", server.project_id) == server.project_id
        and (not ids or server.server_id in ids)
    ]
    if call.query.get("order", "creation_date_desc") == "creation_date_asc":
        found.reverse()
    return paged(call, "servers", [shown_server(cloud, server) for server in found])


def get_server(cloud: SimulatedCloud, call: Call) -> Reply:
    return Reply(200, {"server": shown_server(cloud, cloud.server(call.account, call.zone, call.ids["server_id"]))})


def update_server(cloud: SimulatedCloud, call: Call) -> Reply:
    """Name, tags, firewall and the switches; an absent key leaves what is."""
    server = changeable(cloud, call)
    body = call.body
    if body.get("volumes") is not None:
        raise invalid_argument("volumes", "constraint", "use attach-volume and detach-volume here")
    server.name = word(call, "name") or server.name
    server.tags = tags_in(body) if body.get("tags") is not None else server.tags
    if isinstance(body.get("dynamic_ip_required"), bool):
        server.dynamic_ip_required = body["dynamic_ip_required"]
    if isinstance(body.get("protected"), bool):
        server.protected = body["protected"]
    if isinstance(body.get("security_group"), dict):
        wanted = str(body["security_group"].get("id", ""))
        group = cloud.security_groups.get(wanted)
        if group is None or (group.zone, group.project_id) != (server.zone, server.project_id):
            raise not_found("instance_security_group", wanted)
        server.group_id = wanted
    server.updated_at = cloud.clock.now
    return Reply(200, {"server": shown_server(cloud, server)})


def delete_server(cloud: SimulatedCloud, call: Call) -> Reply:
    server = changeable(cloud, call)
    if server.state != "stopped":
        raise still_in_use("instance should be powered off", status=400)
    remove(cloud, server)
    return Reply(204)
