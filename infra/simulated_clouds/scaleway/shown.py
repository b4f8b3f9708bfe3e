"""How the two APIs show a resource: the keys, and the forms of the values, that Scaleway's own answers have.

Pure: records in, JSON out. Three traps are theirs and kept: a block volume within a server has neither name nor size,
a rule's protocol comes back in capitals and without a /32, and a port range of one port has no end.
"""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from infra.simulated_clouds.scaleway.offers import GB, IMAGES
from infra.simulated_clouds.scaleway.resources import Ip, Rule, SecurityGroup, Server, Volume, mac_address

if TYPE_CHECKING:
    from infra.simulated_clouds.scaleway.cloud import SimulatedCloud

Shown = dict[str, Any]
CATALOGUE_OWNER = "51b656e3-4865-41e8-adbc-0c45bdd780db"
ALLOWED_ACTIONS = {
    "stopped": ["poweron"],
    "running": ["poweroff", "terminate", "reboot", "stop_in_place"],
    "stopped in place": ["poweron", "poweroff", "terminate"],
}
_NEVER: dict[str, Any] = {
    "ipv6": None,
    "enable_ipv6": False,
    "private_ip": None,
    "bootscript": None,
    "location": None,
    "placement_group": None,
}
_EMPTY: dict[str, list[Any]] = {"extra_networks": [], "maintenances": [], "private_nics": [], "filesystems": []}


def instance_date(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds")


def block_date(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def shown_server(cloud: "SimulatedCloud", server: Server) -> Shown:
    ips = [_server_ip(ip) for ip in cloud.ips.values() if ip.server_id == server.server_id]
    group = cloud.security_groups[server.group_id]
    volumes = {slot: _server_volume(cloud, server, cloud.volumes[v]) for slot, v in sorted(server.volume_ids.items())}
    return {
        "id": server.server_id,
        "name": server.name,
        "arch": "x86_64",
        "commercial_type": server.commercial_type,
        "boot_type": server.boot_type,
        "organization": cloud.organization_of(server.project_id),
        "project": server.project_id,
        "hostname": server.name.replace("_", "-").lower(),
        "image": shown_image(cloud, server.image_id, server.zone) if server.image_id else None,
        "volumes": volumes,
        "tags": list(server.tags),
        "state": server.state,
        "protected": server.protected,
        "state_detail": server.state_detail,
        "public_ip": ips[0] if ips else None,
        "public_ips": ips,
        "mac_address": mac_address(server.server_id),
        "routed_ip_enabled": True,
        "dynamic_ip_required": server.dynamic_ip_required,
        # Never the same for two servers, even when the clock stands: "the oldest" is the same one for everybody.
        "creation_date": instance_date(cloud.clock.date(server.created_at + server.created_by_call * 1e-6)),
        "modification_date": instance_date(cloud.clock.date(server.updated_at)),
        "security_group": {"id": group.group_id, "name": group.name},
        "allowed_actions": ALLOWED_ACTIONS.get(server.state, []),
        "zone": server.zone,
        "end_of_service": False,
        **_NEVER,
        **_EMPTY,
    }


def _server_volume(cloud: "SimulatedCloud", server: Server, volume: Volume) -> Shown:
    short = {"boot": False, "volume_type": volume.kind, "id": volume.volume_id, "zone": volume.zone}
    if volume.kind == "sbs_volume":
        return short
    whole = shown_local_volume(cloud, volume)
    return {**whole, **short, "server": {"id": server.server_id, "name": server.name}}


def _server_ip(ip: Ip) -> Shown:
    return {
        "id": ip.ip_id,
        "address": ip.address,
        "gateway": "127.0.0.1",
        "netmask": "32",
        "family": "inet",
        "dynamic": ip.dynamic,
        "provisioning_mode": "dhcp",
        "tags": list(ip.tags),
        "ipam_id": ip.ip_id,
        "state": "attached",
    }


def shown_local_volume(cloud: "SimulatedCloud", volume: Volume) -> Shown:
    server = cloud.servers.get(volume.server_id)
    return {
        "id": volume.volume_id,
        "name": volume.name,
        "volume_type": volume.kind,
        "export_uri": None,
        "organization": cloud.organization_of(volume.project_id),
        "project": volume.project_id,
        "server": {"id": server.server_id, "name": server.name} if server else None,
        "size": volume.size,
        "state": "available",
        "creation_date": instance_date(cloud.clock.date(volume.created_at)),
        "modification_date": instance_date(cloud.clock.date(volume.updated_at)),
        "tags": list(volume.tags),
        "zone": volume.zone,
    }


def shown_block_volume(cloud: "SimulatedCloud", volume: Volume) -> Shown:
    reference = {
        "id": volume.reference_id,
        "product_resource_type": "instance_server",
        "product_resource_id": volume.server_id,
        "created_at": block_date(cloud.clock.date(volume.attached_at)),
        "type": "exclusive",
        "status": "attached",
    }
    detached = volume.last_detached_at
    return {
        "id": volume.volume_id,
        "name": volume.name,
        "type": f"sbs_{volume.perf_iops // 1000}k",
        "size": volume.size,
        "project_id": volume.project_id,
        "created_at": block_date(cloud.clock.date(volume.created_at)),
        "updated_at": block_date(cloud.clock.date(volume.updated_at)),
        "references": [reference] if volume.server_id else [],
        "parent_snapshot_id": None,
        "status": volume.state,
        "tags": list(volume.tags),
        "specs": {"perf_iops": volume.perf_iops, "class": "sbs"},
        "last_detached_at": block_date(cloud.clock.date(detached)) if detached is not None else None,
        "zone": volume.zone,
    }


def shown_image(cloud: "SimulatedCloud", image_id: str, zone: str) -> Shown:
    date = instance_date(cloud.clock.date(0.0))
    return {
        "id": image_id,
        "name": IMAGES[image_id],
        "organization": CATALOGUE_OWNER,
        "project": CATALOGUE_OWNER,
        "root_volume": {"id": image_id, "name": "", "volume_type": "sbs_snapshot", "size": 20 * GB},
        "extra_volumes": {},
        "public": True,
        "arch": "x86_64",
        "creation_date": date,
        "modification_date": date,
        "default_bootscript": None,
        "from_server": "",
        "state": "available",
        "tags": [],
        "zone": zone,
    }


def shown_ip(cloud: "SimulatedCloud", ip: Ip) -> Shown:
    server = cloud.servers.get(ip.server_id)
    return {
        "id": ip.ip_id,
        "address": ip.address,
        "prefix": None,
        "reverse": None,
        "server": {"id": server.server_id, "name": server.name} if server else None,
        "organization": cloud.organization_of(ip.project_id),
        "project": ip.project_id,
        "zone": ip.zone,
        "type": "routed_ipv4",
        "state": "attached" if server else "detached",
        "tags": list(ip.tags),
        "ipam_id": ip.ip_id,
    }


def shown_group(cloud: "SimulatedCloud", group: SecurityGroup) -> Shown:
    servers = [s for s in cloud.servers.values() if s.group_id == group.group_id]
    return {
        "id": group.group_id,
        "creation_date": instance_date(cloud.clock.date(group.created_at)),
        "modification_date": instance_date(cloud.clock.date(group.updated_at)),
        "name": group.name,
        "description": group.description,
        "organization": cloud.organization_of(group.project_id),
        "project": group.project_id,
        "servers": [{"id": server.server_id, "name": server.name} for server in servers],
        "stateful": group.stateful,
        "inbound_default_policy": group.inbound,
        "outbound_default_policy": group.outbound,
        "organization_default": False,
        "project_default": group.project_default,
        "enable_default_security": group.enable_default_security,
        "state": "available",
        "tags": list(group.tags),
        "zone": group.zone,
    }


def shown_rule(rule: Rule, zone: str) -> Shown:
    return {
        "id": rule.rule_id,
        "protocol": rule.protocol.upper(),
        "direction": rule.direction,
        "ip_range": rule.ip_range.removesuffix("/32"),
        "dest_ip_range": None,
        "dest_port_from": rule.port_from,
        "dest_port_to": rule.port_to if rule.port_to != rule.port_from else None,
        "position": rule.position,
        "editable": rule.editable,
        "action": rule.action,
        "zone": zone,
    }


def shown_task(cloud: "SimulatedCloud", task_id: str, server: Server, action: str) -> Shown:
    return {
        "id": task_id,
        "description": f"server_{action}",
        "status": "pending",
        "href_from": f"/servers/{server.server_id}/action",
        "href_result": f"/servers/{server.server_id}",
        "started_at": instance_date(cloud.clock.date(cloud.clock.now)),
        "terminated_at": None,
        "progress": 0,
        "zone": server.zone,
    }
