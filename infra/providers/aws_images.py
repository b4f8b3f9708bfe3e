"""Which image a GPU machine at AWS boots: NVIDIA's driver, Docker and the container toolkit are in it already.

AWS names its newest "Deep Learning Base" image of a region in a public parameter; where an account may not read that,
the newest image of that name by AWS does as well. The surprising rule: what was found is kept for an hour, so that one
attempt that is repeated asks for the same machine.
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from handlers.cloud_ports import CloudRefusedError
from infra.providers.aws_calls import AwsCalls

KEPT_S = 3600.0


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
        self._kept: dict[str, tuple[float, Image]] = {}

    async def of(self, region: str) -> Image:
        """Raises CloudRefusedError: there is none; CloudUnavailableError."""
        at, image = self._kept.get(region, (0.0, None))
        if image is None or self._clock() - at > KEPT_S:
            image = _shown(await self._named(region) or await self._newest(region))
            self._kept[region] = (self._clock(), image)
        return image

    async def _named(self, region: str) -> dict[str, Any] | None:
        try:
            reply = await self._calls(region, "get_parameter", service="ssm", Name=self._choice.parameter)
        except CloudRefusedError:
            return None  # keys that may rent servers may not be let to read parameters; the name tells as well
        wanted = [reply["Parameter"]["Value"]]
        found = (await self._calls(region, "describe_images", ImageIds=wanted))["Images"]
        return dict(found[0]) if found else None

    async def _newest(self, region: str) -> dict[str, Any]:
        filters = [{"Name": "name", "Values": [self._choice.name]}, {"Name": "state", "Values": ["available"]}]
        owners = list(self._choice.owners)
        reply = await self._calls(region, "describe_images", Owners=owners, Filters=filters)
        found: list[dict[str, Any]] = reply["Images"]
        if not found:
            message = f"{region} has no image {self._choice.name} of {', '.join(owners)}."
            raise CloudRefusedError("PROVIDER_CREATE_FAILED", message)
        return max(found, key=lambda image: (image.get("CreationDate", ""), image["ImageId"]))


def _shown(image: dict[str, Any]) -> Image:
    root = image.get("RootDeviceName") or "/dev/sda1"
    disks = {one.get("DeviceName"): one.get("Ebs", {}) for one in image.get("BlockDeviceMappings", [])}
    return Image(image_id=image["ImageId"], root_device=root, least_gib=int(disks.get(root, {}).get("VolumeSize") or 0))
