"""EBS: the disks of servers at AWS. Implements handlers.cloud_ports.Volumes.

A boot disk is made with its server, in the wanted size, and AWS deletes it with it (DeleteOnTermination), also when the
machine switches itself off for good. The surprising rule: AWS counts in GiB, we in GB, so a disk of 200 GB is one of
187 GiB; asked for its size it says 200 again.
"""

import hashlib
from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from typing import Any

from handlers.cloud_ports import (
    Absent,
    CloudRefusedError,
    CloudUnavailableError,
    Unknown,
    Volume,
)
from infra.providers.aws_calls import AwsCalls
from infra.providers.aws_shapes import PLATFORM_KEY, aws_tags, gib_of, region_of, split_id, volume_of

VOLUME_TYPE = "gp3"
DATA_DEVICES = tuple(f"/dev/sd{letter}" for letter in ascii_lowercase[5:16])
"""/dev/sdf to /dev/sdp: those that AWS leaves to its customers."""
GONE_STATES = frozenset({"deleting", "deleted"})


def client_token(name: str, life: int = 0) -> str:
    """64 characters, EC2's limit: the same name is the same thing, so asking twice makes one.

    `life`: how many of that name have ended before.
    """
    return hashlib.sha256(f"{name}/{life}".encode() if life else name.encode()).hexdigest()


class AwsVolumes:
    def __init__(self, calls: AwsCalls, platform: str) -> None:
        self._calls = calls
        self._platform = platform

    async def list_volumes(self, provider_instance_id: str) -> Sequence[Volume]:
        region, instance_id = split_id(provider_instance_id)
        return await self._listed(region, {"Name": "attachment.instance-id", "Values": [instance_id]}) if region else []

    async def list_own_volumes(self) -> Sequence[Volume]:
        ours = {"Name": f"tag:{PLATFORM_KEY}", "Values": [self._platform]}
        return [found for region in self._calls.account.regions for found in await self._listed(region, ours)]

    async def _listed(self, region: str, *filters: dict[str, Any]) -> list[Volume]:
        found = await self._calls.all(region, "describe_volumes", "Volumes", Filters=list(filters))
        return [volume_of(region, one) for one in found if one["State"] not in GONE_STATES]

    async def find_volume(self, provider_volume_id: str) -> Volume | Absent | Unknown:
        region, volume_id = split_id(provider_volume_id)
        if not region:
            return Absent()
        try:
            found = (await self._calls(region, "describe_volumes", VolumeIds=[volume_id]))["Volumes"]
        except CloudRefusedError as refused:
            return Absent() if refused.kind == "not_found" else Unknown(refused.message)
        except CloudUnavailableError as unavailable:
            return Unknown(str(unavailable))
        alive = [volume_of(region, one) for one in found if one["State"] not in GONE_STATES]
        return alive[0] if alive else Absent()

    async def resize_volume(self, provider_volume_id: str, size_gb: int) -> None:
        region, volume_id = split_id(provider_volume_id)
        volume = await self._present(provider_volume_id, "PROVIDER_VOLUME_RESIZE_FAILED")
        if volume.size_gb < size_gb:
            await self._calls(region, "modify_volume", VolumeId=volume_id, Size=gib_of(size_gb))

    async def create_volume(self, *, name: str, zone: str, size_gb: int, tags: Mapping[str, str]) -> Volume:
        region = region_of(zone)
        ours = {"Name": f"tag:{PLATFORM_KEY}", "Values": [self._platform]}
        for found in await self._listed(region, {"Name": "tag:Name", "Values": [name]}, ours):
            return found
        specification = {"ResourceType": "volume", "Tags": aws_tags(name, tags)}
        made = await self._calls(
            region,
            "create_volume",
            AvailabilityZone=zone,
            Size=gib_of(size_gb),
            VolumeType=VOLUME_TYPE,
            ClientToken=client_token(name),
            TagSpecifications=[specification],
        )
        return volume_of(region, made)

    async def attach_volume(self, provider_volume_id: str, provider_instance_id: str) -> None:
        """Raises CloudRefusedError: it belongs to another server, or this one takes no more."""
        volume = await self._present(provider_volume_id, "PROVIDER_VOLUME_ATTACH_FAILED")
        if volume.attached_to == provider_instance_id:
            return
        if volume.attached_to:
            message = f"{provider_volume_id} is attached to {volume.attached_to}."
            raise CloudRefusedError("PROVIDER_VOLUME_ATTACH_FAILED", message)
        region, volume_id = split_id(provider_volume_id)
        _, instance_id = split_id(provider_instance_id)
        device = await self._free_device(region, instance_id)
        await self._calls(region, "attach_volume", VolumeId=volume_id, InstanceId=instance_id, Device=device)

    async def _free_device(self, region: str, instance_id: str) -> str:
        attached = {"Name": "attachment.instance-id", "Values": [instance_id]}
        found = await self._calls.all(region, "describe_volumes", "Volumes", Filters=[attached])
        taken = {one.get("Device") for volume in found for one in volume.get("Attachments", [])}
        free = [device for device in DATA_DEVICES if device not in taken]
        if not free:
            raise CloudRefusedError("PROVIDER_VOLUME_ATTACH_FAILED", f"{instance_id} has no device left for a volume.")
        return free[0]

    async def delete_volume(self, provider_volume_id: str) -> None:
        region, volume_id = split_id(provider_volume_id)
        if not region:
            return
        try:
            await self._calls(region, "delete_volume", VolumeId=volume_id)
        except CloudRefusedError as refused:
            if refused.kind != "not_found":
                raise

    async def _present(self, provider_volume_id: str, code: str) -> Volume:
        match await self.find_volume(provider_volume_id):
            case Volume() as volume:
                return volume
            case Absent():
                raise CloudRefusedError(code, f"There is no volume {provider_volume_id}.", "not_found")
            case Unknown(reason=reason):
                raise CloudUnavailableError(reason)
