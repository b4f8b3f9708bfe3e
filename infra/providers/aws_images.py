"""Which image a GPU machine at AWS boots: NVIDIA's driver, Docker and the container toolkit are in it already.

AWS names its newest "Deep Learning Base" image of a region in a public parameter; where an account may not read that,
the newest image of that name by AWS does as well. An organisation may choose another one, by its id or, for several
regions, by the name of its own images. The surprising rule: what was found is kept for an hour, so that one attempt
that is repeated asks for the same machine.
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from handlers.cloud_ports import CloudRefusedError
from infra.providers.aws_calls import AwsCalls

KEPT_S = 3600.0
OWN = ("self",)
"""EC2's word for the account's own images."""


class ImageChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Where the image is named: a public parameter of AWS, else the newest image of one of the owners by its name."""

    parameter: str = "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-22.04/latest/ami-id"
    owners: tuple[str, ...] = ("amazon",)
    name: str = "Deep Learning Base OSS Nvidia Driver GPU AMI (Ubuntu 22.04)*"


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """`root_device`: the name of its boot disk, which holds at least `least_gib` GiB."""

    image_id: str
    root_device: str
    least_gib: int


class Images:
    """Finds the image of each region of an account."""

    def __init__(self, calls: AwsCalls, choice: ImageChoice, clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._choice = choice
        self._clock = clock
        self._kept: dict[str, tuple[float, str, Image]] = {}

    async def of(self, region: str, chosen: str = "") -> Image:
        """`chosen`: an image's id, or a name of the account's own; empty: AWS's.

        Raises:
            CloudRefusedError: there is none.
            CloudUnavailableError: nobody knows.
        """
        kept = self._kept.get(region)
        if kept is None or kept[1] != chosen or self._clock() - kept[0] > KEPT_S:
            found = await self._chosen(region, chosen) if chosen else await self._aws_own(region)
            kept = self._kept[region] = (self._clock(), chosen, _shown(found))
        return kept[2]

    async def _chosen(self, region: str, chosen: str) -> dict[str, Any]:
        if not chosen.startswith("ami-"):
            return await self._newest(region, OWN, chosen)
        found = (await self._calls(region, "describe_images", ImageIds=[chosen]))["Images"]
        if not found:
            raise CloudRefusedError("PROVIDER_CREATE_FAILED", f"{region} has no image {chosen}.")
        return dict(found[0])

    async def _aws_own(self, region: str) -> dict[str, Any]:
        return await self._named(region) or await self._newest(region, self._choice.owners, self._choice.name)

    async def _named(self, region: str) -> dict[str, Any] | None:
        try:
            reply = await self._calls(region, "get_parameter", service="ssm", Name=self._choice.parameter)
        except CloudRefusedError:
            return None  # keys that may rent servers may not be let to read parameters; the name tells as well
        wanted = [reply["Parameter"]["Value"]]
        found = (await self._calls(region, "describe_images", ImageIds=wanted))["Images"]
        return dict(found[0]) if found else None

    async def _newest(self, region: str, owners: tuple[str, ...], name: str) -> dict[str, Any]:
        filters = [{"Name": "name", "Values": [name]}, {"Name": "state", "Values": ["available"]}]
        reply = await self._calls(region, "describe_images", Owners=list(owners), Filters=filters)
        found: list[dict[str, Any]] = reply["Images"]
        if not found:
            message = f"{region} has no image {name} of {', '.join(owners)}."
            raise CloudRefusedError("PROVIDER_CREATE_FAILED", message)
        return max(found, key=lambda image: (image.get("CreationDate", ""), image["ImageId"]))


def _shown(image: dict[str, Any]) -> Image:
    root = image.get("RootDeviceName") or "/dev/sda1"
    disks = {one.get("DeviceName"): one.get("Ebs", {}) for one in image.get("BlockDeviceMappings", [])}
    return Image(image_id=image["ImageId"], root_device=root, least_gib=int(disks.get(root, {}).get("VolumeSize") or 0))
