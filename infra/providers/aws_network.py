"""Where a server stands in an AWS account's network, and what its firewall lets in.

One security group of ours in each network holds all our servers of it. Rules are added, never taken away: what an
owner opened by hand stays open. The surprising rule: a port that is opened for one server is open for its neighbours.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from handlers.cloud_ports import CloudRefusedError
from infra.providers.aws_calls import AwsCalls
from infra.providers.aws_shapes import split_id

GROUP_NAME = "inventiv-agents-workers"
ANYWHERE = "0.0.0.0/0"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    subnet_id: str
    vpc_id: str


class AwsNetwork:
    """Implements handlers.cloud_ports.Ports, and finds a place for each new server."""

    def __init__(self, calls: AwsCalls) -> None:
        self._calls = calls

    async def place_in(self, region: str, zone: str) -> Place:
        """Raises CloudRefusedError: the account has no network there; CloudUnavailableError."""
        own = list(self._calls.account.subnet_ids)
        chosen = {"Name": "subnet-id", "Values": own} if own else {"Name": "default-for-az", "Values": ["true"]}
        filters = [{"Name": "availability-zone", "Values": [zone]}, chosen]
        found = (await self._calls(region, "describe_subnets", Filters=filters))["Subnets"]
        if not found:
            message = f"The account has no {'chosen' if own else 'default'} subnet in {zone}; set subnet_ids."
            raise CloudRefusedError("PROVIDER_CREATE_FAILED", message)
        return Place(subnet_id=found[0]["SubnetId"], vpc_id=found[0]["VpcId"])

    async def group_in(self, region: str, vpc_id: str) -> str:
        """The id of our security group in a network; made when it is missing."""
        found = await self._find_group(region, vpc_id)
        if found:
            return found
        try:
            made = await self._calls(
                region, "create_security_group", GroupName=GROUP_NAME, Description="Inventiv workers", VpcId=vpc_id
            )
        except CloudRefusedError as refused:
            found = await self._find_group(region, vpc_id)  # somebody else may have made it just now
            if found:
                return found
            raise refused from None
        return str(made["GroupId"])

    async def _find_group(self, region: str, vpc_id: str) -> str:
        filters = [{"Name": "group-name", "Values": [GROUP_NAME]}, {"Name": "vpc-id", "Values": [vpc_id]}]
        found = (await self._calls(region, "describe_security_groups", Filters=filters))["SecurityGroups"]
        return str(found[0]["GroupId"]) if found else ""

    async def open_ports(self, provider_instance_id: str, ports: Sequence[int]) -> None:
        region, instance_id = split_id(provider_instance_id)
        found = (await self._calls(region, "describe_instances", InstanceIds=[instance_id]))["Reservations"]
        groups = [group_id for one in found for group_id in _groups_of(one["Instances"][0])]
        if not groups:
            raise CloudRefusedError("PROVIDER_SECURITY_GROUP_FAILED", f"{provider_instance_id} has no security group.")
        reply = await self._calls(region, "describe_security_groups", GroupIds=groups)
        missing = [port for port in ports if not any(_lets_in(group, port) for group in reply["SecurityGroups"])]
        for port in missing:
            await self._open(region, groups[0], port)

    async def _open(self, region: str, group_id: str, port: int) -> None:
        rule = {"IpProtocol": "tcp", "FromPort": port, "ToPort": port, "IpRanges": [{"CidrIp": ANYWHERE}]}
        try:
            await self._calls(region, "authorize_security_group_ingress", GroupId=group_id, IpPermissions=[rule])
        except CloudRefusedError as refused:
            if not refused.message.startswith("InvalidPermission.Duplicate"):
                raise


def _groups_of(instance: dict[str, Any]) -> list[str]:
    """Of the server and of its network interfaces, each once."""
    holders = [instance, *({"SecurityGroups": one.get("Groups", [])} for one in instance.get("NetworkInterfaces", []))]
    return list(dict.fromkeys(group["GroupId"] for holder in holders for group in holder.get("SecurityGroups", [])))


def _lets_in(group: dict[str, Any], port: int) -> bool:
    """Whether TCP of everywhere reaches this port."""
    for rule in group.get("IpPermissions", []):
        every_port = rule["IpProtocol"] == "-1"
        in_range = rule["IpProtocol"] == "tcp" and rule.get("FromPort", 0) <= port <= rule.get("ToPort", 0)
        if (every_port or in_range) and any(one.get("CidrIp") == ANYWHERE for one in rule.get("IpRanges", [])):
            return True
    return False
