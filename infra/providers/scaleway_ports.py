"""The firewall of our servers at Scaleway: one security group of ours for each project and zone.

    servers of ours ──> "inventiv-agents": stateful, inbound dropped, outbound accepted, rules added one by one

The project's default group belongs to its owner and is never touched. The surprising rule: rules are only ever added;
the call that replaces them all is not used, for it would close what somebody else opened.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from handlers.server_tags import PLATFORM_TAG
from infra.providers.scaleway_api import PAGE_SIZE, ScalewayApi, Sdk
from infra.providers.scaleway_places import split_id

EVERYWHERE = "0.0.0.0/0"
DESCRIPTION = "Workers of Inventiv Agents: made and kept by the platform."


class ScalewayPorts:
    """Implements handlers.cloud_ports.Ports for one project."""

    def __init__(self, api: ScalewayApi) -> None:
        self._api = api

    async def open_ports(self, provider_instance_id: str, ports: Sequence[int]) -> None:
        """Of all servers of ours in the zone: they share the group."""
        operation = "open_ports"
        zone, server_id = split_id(provider_instance_id, operation)
        answer = await self._api.call(operation, lambda sdk: sdk.instance.get_server(server_id=server_id, zone=zone))
        group_id = await self.own_group(operation, zone)
        await self._open(operation, zone, group_id, ports)
        held = answer.server.security_group
        if held is None or held.id != group_id:
            await self._api.call(operation, lambda sdk: _join(sdk, zone, server_id, group_id))

    async def own_group(self, operation: str, zone: str) -> str:
        """Its id; made when it is missing. Of two the older one is ours."""
        found = await self._groups(operation, zone)
        if not found:
            await self._api.call(operation, lambda sdk: self._create(sdk, zone))
            found = await self._groups(operation, zone)
        return str(min(found, key=_age).id)

    async def _groups(self, operation: str, zone: str) -> list[Any]:
        def page_of(sdk: Sdk, page: int) -> Any:
            return sdk.instance.list_security_groups(
                zone=zone, page=page, per_page=PAGE_SIZE, project=self._api.project_id, name=PLATFORM_TAG
            )

        listed = await self._api.pages(operation, "security_groups", page_of)
        return [group for group in listed if group.name == PLATFORM_TAG and PLATFORM_TAG in group.tags]

    def _create(self, sdk: Sdk, zone: str) -> Any:
        return sdk.instance.create_security_group(
            zone=zone,
            name=PLATFORM_TAG,
            description=DESCRIPTION,
            project=self._api.project_id,
            tags=[PLATFORM_TAG],
            stateful=True,
            inbound_default_policy="drop",
            outbound_default_policy="accept",
            project_default=False,
        )

    async def _open(self, operation: str, zone: str, group_id: str, ports: Sequence[int]) -> None:
        def page_of(sdk: Sdk, page: int) -> Any:
            return sdk.instance.list_security_group_rules(
                zone=zone, security_group_id=group_id, page=page, per_page=PAGE_SIZE
            )

        rules = await self._api.pages(operation, "rules", page_of)
        for port in sorted(set(ports)):
            if not any(_lets_in(rule, port) for rule in rules):
                await self._api.call(operation, lambda sdk, port=port: _add_rule(sdk, zone, group_id, port))  # type: ignore[misc] # mypy cannot infer a lambda with a default


def _add_rule(sdk: Sdk, zone: str, group_id: str, port: int) -> Any:
    from scaleway.instance.v1 import SecurityGroupRuleProtocol  # noqa: PLC0415 - slow to import

    return sdk.instance.create_security_group_rule(
        zone=zone,
        security_group_id=group_id,
        protocol=SecurityGroupRuleProtocol.TCP,
        direction="inbound",
        action="accept",
        ip_range=EVERYWHERE,
        position=1,
        editable=True,
        dest_port_from=port,
    )


def _join(sdk: Sdk, zone: str, server_id: str, group_id: str) -> Any:
    from scaleway.instance.v1 import SecurityGroupTemplate  # noqa: PLC0415 - slow to import

    template = SecurityGroupTemplate(id=group_id, name=PLATFORM_TAG)
    return sdk.instance._update_server(server_id=server_id, zone=zone, security_group=template)  # noqa: SLF001 - the SDK's call is marked as its own, though nothing else changes a server


def _lets_in(rule: Any, port: int) -> bool:
    first = rule.dest_port_from
    covers = first is None or first <= port <= (rule.dest_port_to or first)
    means = (str(rule.direction), str(rule.action), rule.ip_range) == ("inbound", "accept", EVERYWHERE)
    return means and covers and str(rule.protocol).lower() in {"tcp", "any"}


def _age(group: Any) -> tuple[datetime, str]:
    return group.creation_date or datetime.max.replace(tzinfo=UTC), group.id
