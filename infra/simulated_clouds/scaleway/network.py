"""Addresses and firewalls of the simulated Scaleway.

Every zone of a project has a default security group from the first look, which lets everything in. The surprising rule:
setting rules replaces all that can be edited; whoever wants to add one without taking another's away must send both.
"""

from collections.abc import Mapping
from typing import Any

from infra.simulated_clouds.scaleway.calls import Call, Reply, paged, tags_in, word
from infra.simulated_clouds.scaleway.cloud import SimulatedCloud, new_id
from infra.simulated_clouds.scaleway.errors import (
    ApiError,
    invalid_argument,
    invalid_request,
    not_found,
    unknown_resource,
)
from infra.simulated_clouds.scaleway.resources import Account, Ip, Rule, SecurityGroup, Server
from infra.simulated_clouds.scaleway.shown import shown_group, shown_ip, shown_rule

MAX_RULES = 512
PROTOCOLS = ("TCP", "UDP", "ICMP", "ANY")
MAX_PORT = 65_535


def default_group(cloud: SimulatedCloud, account: Account, zone: str) -> SecurityGroup:
    for group in cloud.security_groups.values():
        if group.project_default and (group.zone, group.project_id) == (zone, account.project_id):
            return group
    now = cloud.clock.now
    name, words = "Default security group", "Auto generated security group."
    group = SecurityGroup(new_id(), zone, account.project_id, name, words, True, "accept", "accept", True, now, now)
    cloud.security_groups[group.group_id] = group
    return group


def list_security_groups(cloud: SimulatedCloud, call: Call) -> Reply:
    default_group(cloud, call.account, call.zone)
    found = [
        group
        for group in cloud.security_groups.values()
        if (group.zone, group.project_id) == (call.zone, call.account.project_id)
        and call.query.get("name", "") in group.name
        and call.wanted_tags() <= set(group.tags)
        and call.query.get("project_default", "").lower() in ("", str(group.project_default).lower())
    ]
    return paged(call, "security_groups", [shown_group(cloud, group) for group in found])


def create_security_group(cloud: SimulatedCloud, call: Call) -> Reply:
    project_id = cloud.own_project(call.account, call.body.get("project"), "compute_security_groups")
    now = cloud.clock.now
    group = SecurityGroup(
        group_id=new_id(),
        zone=call.zone,
        project_id=project_id,
        name=word(call, "name") or f"sg-{new_id()[:8]}",
        description=word(call, "description"),
        stateful=call.body.get("stateful") is True,
        inbound=_policy(call, "inbound_default_policy", "accept"),
        outbound=_policy(call, "outbound_default_policy", "accept"),
        project_default=False,
        created_at=now,
        updated_at=now,
        enable_default_security=call.body.get("enable_default_security", True) is not False,
        tags=tags_in(call.body),
    )
    cloud.security_groups[group.group_id] = group
    return Reply(201, {"security_group": shown_group(cloud, group)})


def get_security_group(cloud: SimulatedCloud, call: Call) -> Reply:
    return Reply(200, {"security_group": shown_group(cloud, _group(cloud, call))})


def update_security_group(cloud: SimulatedCloud, call: Call) -> Reply:
    group = _group(cloud, call)
    group.name = word(call, "name") or group.name
    group.description = word(call, "description") or group.description
    group.inbound = _policy(call, "inbound_default_policy", group.inbound)
    group.outbound = _policy(call, "outbound_default_policy", group.outbound)
    if isinstance(call.body.get("stateful"), bool):
        group.stateful = call.body["stateful"]
    group.tags = tags_in(call.body) if call.body.get("tags") is not None else group.tags
    group.updated_at = cloud.clock.now
    return Reply(200, {"security_group": shown_group(cloud, group)})


def delete_security_group(cloud: SimulatedCloud, call: Call) -> Reply:
    group = _group(cloud, call)
    if group.project_default or any(s.group_id == group.group_id for s in cloud.servers.values()):
        raise ApiError(400, {"type": "conflict", "message": "Group is in use. You cannot delete it."})
    del cloud.security_groups[group.group_id]
    return Reply(204)


def _group(cloud: SimulatedCloud, call: Call) -> SecurityGroup:
    default_group(cloud, call.account, call.zone)
    group_id = call.ids["group_id"]
    group = cloud.security_groups.get(group_id)
    if group is None or (group.zone, group.project_id) != (call.zone, call.account.project_id):
        raise unknown_resource("Security group", group_id)
    return group


def _policy(call: Call, name: str, present: str) -> str:
    wanted = word(call, name) or present
    if wanted not in ("accept", "drop"):
        raise invalid_argument(name, "constraint", "must be accept or drop")
    return wanted


def list_security_group_rules(cloud: SimulatedCloud, call: Call) -> Reply:
    group = _group(cloud, call)
    return paged(call, "rules", [shown_rule(rule, group.zone) for rule in group.rules])


def create_security_group_rule(cloud: SimulatedCloud, call: Call) -> Reply:
    group = _group(cloud, call)
    rule = _new_rule(call.body, position=len(group.rules) + 1)
    if len(group.rules) >= MAX_RULES:
        raise invalid_request(f"a security group has at most {MAX_RULES} rules")
    group.rules.append(rule)
    group.updated_at = cloud.clock.now
    return Reply(201, {"rule": shown_rule(rule, group.zone)})


def set_security_group_rules(cloud: SimulatedCloud, call: Call) -> Reply:
    """All or none of them; what is not named any more is gone."""
    group = _group(cloud, call)
    wanted = call.body.get("rules") or []
    if not isinstance(wanted, list) or len(wanted) > MAX_RULES:
        raise invalid_argument("rules", "format", f"must be a list of at most {MAX_RULES} rules")
    known = {rule.rule_id: rule for rule in group.rules}
    rules = []
    for position, template in enumerate(wanted, start=1):
        if template.get("id") and template["id"] not in known:
            raise not_found("instance_security_group_rule", str(template["id"]))
        rules.append(_new_rule(template, position=position, rule_id=str(template.get("id") or "")))
    group.rules = rules
    group.updated_at = cloud.clock.now
    return Reply(200, {"rules": [shown_rule(rule, group.zone) for rule in group.rules]})


def delete_security_group_rule(cloud: SimulatedCloud, call: Call) -> Reply:
    group = _group(cloud, call)
    rule_id = call.ids["rule_id"]
    if rule_id not in [rule.rule_id for rule in group.rules]:
        raise not_found("instance_security_group_rule", rule_id)
    group.rules = [rule for rule in group.rules if rule.rule_id != rule_id]
    return Reply(204)


def _new_rule(template: Mapping[str, Any], *, position: int, rule_id: str = "") -> Rule:
    protocol = str(template.get("protocol", "")).upper()
    if protocol not in PROTOCOLS:
        raise invalid_argument("protocol", "constraint", f"must be one of {', '.join(PROTOCOLS)}")
    if template.get("action") not in ("accept", "drop"):
        raise invalid_argument("action", "constraint", "must be accept or drop")
    if template.get("direction") not in ("inbound", "outbound"):
        raise invalid_argument("direction", "constraint", "must be inbound or outbound")
    return Rule(
        rule_id=rule_id or new_id(),
        direction=str(template["direction"]),
        action=str(template["action"]),
        protocol=protocol,
        ip_range=str(template.get("ip_range") or "0.0.0.0/0"),
        port_from=_port(template, "dest_port_from"),
        port_to=_port(template, "dest_port_to"),
        position=position,
    )


def _port(template: Mapping[str, Any], name: str) -> int | None:
    port = template.get(name)
    if port is None:
        return None
    if not isinstance(port, int) or not 1 <= port <= MAX_PORT:
        raise invalid_argument(name, "constraint", f"must be from 1 to {MAX_PORT}")
    return port


def list_ips(cloud: SimulatedCloud, call: Call) -> Reply:
    found = [
        ip
        for ip in cloud.ips.values()
        if not ip.dynamic
        and (ip.zone, ip.project_id) == (call.zone, call.account.project_id)
        and call.wanted_tags() <= set(ip.tags)
        and call.query.get("name", "") in ip.address
    ]
    return paged(call, "ips", [shown_ip(cloud, ip) for ip in found])


def create_ip(cloud: SimulatedCloud, call: Call) -> Reply:
    """Reserves one; it is paid for until it is deleted, attached or not."""
    project_id = cloud.own_project(call.account, call.body.get("project"), "compute_ips")
    server = _server_of(cloud, call)
    ip_id = new_id()
    ip = Ip(ip_id, call.zone, project_id, cloud.new_address(ip_id), False, cloud.clock.now, tags=tags_in(call.body))
    ip.server_id = server.server_id if server else ""
    cloud.ips[ip_id] = ip
    return Reply(201, {"ip": shown_ip(cloud, ip)})


def get_ip(cloud: SimulatedCloud, call: Call) -> Reply:
    return Reply(200, {"ip": shown_ip(cloud, _ip(cloud, call))})


def update_ip(cloud: SimulatedCloud, call: Call) -> Reply:
    """`server` null detaches it."""
    ip = _ip(cloud, call)
    if "server" in call.body:
        server = _server_of(cloud, call)
        ip.server_id = server.server_id if server else ""
    ip.tags = tags_in(call.body) if call.body.get("tags") is not None else ip.tags
    return Reply(200, {"ip": shown_ip(cloud, ip)})


def delete_ip(cloud: SimulatedCloud, call: Call) -> Reply:
    cloud.release(_ip(cloud, call))
    return Reply(204)


def _server_of(cloud: SimulatedCloud, call: Call) -> Server | None:
    server_id = word(call, "server")
    return cloud.server(call.account, call.zone, server_id) if server_id else None


def _ip(cloud: SimulatedCloud, call: Call) -> Ip:
    """By its id or its address."""
    wanted = call.ids["ip_id"]
    for ip in cloud.ips.values():
        mine = (ip.zone, ip.project_id) == (call.zone, call.account.project_id)
        if mine and not ip.dynamic and wanted in (ip.ip_id, ip.address):
            return ip
    raise unknown_resource("IP", wanted)
