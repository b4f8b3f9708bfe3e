"""AWS's structures as ours, and ours as AWS's: ids, tags, sizes, states. Pure.

    "<region>/<i-...>"  "<region>/<vol-...>"     tags {name: value} <-> [{"Key", "Value"}]     GB (10^9) <-> GiB (2^30)

The surprising rule: a server that is shutting down is gone. AWS lists it for another hour, bills nothing, and lets
nobody turn it back.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from handlers.cloud_ports import Server, Volume

GB = 10**9
GIB = 2**30
ALIVE_STATES = ("pending", "running", "stopping", "stopped")
ROOT_DEVICES = frozenset({"/dev/sda1", "/dev/xvda"})
"""What AWS's own images and their kin call the disk they boot from."""
PLATFORM_KEY = "platform"
_REGION = re.compile(r"[a-z]{2}(?:-[a-z]+)+-\d+")
_OWN_TAGS = frozenset({"Name"})


def region_of(zone: str) -> str:
    """Of an availability zone, a local zone too: "eu-west-3a" and "us-east-1-bos-1a" are of their first region."""
    found = re.match(r"[a-z]{2}(?:-[a-z]+)+?-\d+", zone)
    return found[0] if found else ""


def split_id(full_id: str) -> tuple[str, str]:
    """("eu-west-3", "i-0abc"); two empty texts for what is no id of ours."""
    region, slash, own = full_id.partition("/")
    return (region, own) if slash and own and _REGION.fullmatch(region) else ("", "")


def aws_tags(name: str, tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": "Name", "Value": name}, *({"Key": key, "Value": value} for key, value in tags.items())]


def our_tags(theirs: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Without those that AWS's own services add, and without the name."""
    return {
        tag["Key"]: tag["Value"] for tag in theirs if tag["Key"] not in _OWN_TAGS and not tag["Key"].startswith("aws:")
    }


def name_in(theirs: Iterable[Mapping[str, str]]) -> str:
    return next((tag["Value"] for tag in theirs if tag["Key"] == "Name"), "")


def gib_of(size_gb: int) -> int:
    """The smallest disk of whole GiB that holds as many GB."""
    return -(-size_gb * GB // GIB)


def gb_of(size_gib: int) -> int:
    return size_gib * GIB // GB


def vram_gb_of(mib: int) -> int:
    """The number on the card. AWS says some sizes in powers of two (16384 MiB), some in powers of ten (22888 MiB)."""
    return mib // 1024 if mib % 1024 == 0 else round(mib * 2**20 / GB)


def is_alive(instance: Mapping[str, Any]) -> bool:
    return instance["State"]["Name"] in ALIVE_STATES


def server_of(region: str, instance: Mapping[str, Any]) -> Server:
    tags = instance.get("Tags", [])
    return Server(
        provider_instance_id=f"{region}/{instance['InstanceId']}",
        name=name_in(tags),
        tags=our_tags(tags),
        running=instance["State"]["Name"] == "running",
        ip_address=instance.get("PublicIpAddress") or "",
        zone=instance.get("Placement", {}).get("AvailabilityZone", ""),
        created_at=_utc(instance.get("LaunchTime")),
    )


def volume_of(region: str, volume: Mapping[str, Any]) -> Volume:
    tags = volume.get("Tags", [])
    attached = next((one for one in volume.get("Attachments", []) if one.get("InstanceId")), None)
    return Volume(
        provider_volume_id=f"{region}/{volume['VolumeId']}",
        name=name_in(tags),
        volume_type=volume.get("VolumeType", ""),
        size_gb=gb_of(volume["Size"]),
        is_boot=attached is not None and attached.get("Device") in ROOT_DEVICES,
        attached_to=f"{region}/{attached['InstanceId']}" if attached else "",
        tags=our_tags(tags),
        created_at=_utc(volume.get("CreateTime")),
    )


def _utc(moment: datetime | None) -> datetime | None:
    return moment.astimezone(UTC) if moment else None
