"""What an AWS account can rent: the GPU types of the built-in families, in each zone that is open to it.

AWS says neither a price in EUR nor whether a type is in stock, so both stay unknown; the first attempt tells the stock.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from handlers.cloud_ports import Offer
from infra.providers.aws_calls import AwsCalls
from infra.providers.aws_shapes import vram_gb_of

FAMILIES = ("g4dn", "g5", "g6", "g6e", "p4d", "p5")
"""NVIDIA's GPUs on x86 machines, which the image and the engine are made for."""


class AwsOffers:
    """Implements handlers.cloud_ports.Offers."""

    def __init__(self, calls: AwsCalls) -> None:
        self._calls = calls

    async def list_offers(self) -> Sequence[Offer]:
        return [offer for region in self._calls.account.regions for offer in await self._offers_in(region)]

    async def _offers_in(self, region: str) -> list[Offer]:
        ours = [{"Name": "instance-type", "Values": [f"{family}.*" for family in FAMILIES]}]
        types = await self._calls.all(region, "describe_instance_types", "InstanceTypes", Filters=ours)
        shapes = {one["InstanceType"]: one for one in types if one.get("GpuInfo", {}).get("Gpus")}
        if not shapes:
            return []
        offered = await self._calls.all(
            region,
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": sorted(shapes)}],
        )
        return sorted(_offers(offered, shapes), key=lambda offer: (offer.zone, offer.instance_type))


def _offers(offered: Sequence[Mapping[str, Any]], shapes: Mapping[str, Mapping[str, Any]]) -> Iterator[Offer]:
    for one in offered:
        shape = shapes.get(one["InstanceType"])
        if shape is not None:
            (gpus, *_) = shape["GpuInfo"]["Gpus"]
            yield Offer(
                zone=one["Location"],
                instance_type=one["InstanceType"],
                gpu_count=gpus["Count"],
                vram_per_gpu_gb=vram_gb_of(gpus["MemoryInfo"]["SizeInMiB"]),
                cpu_count=shape["VCpuInfo"]["DefaultVCpus"],
                ram_gb=shape["MemoryInfo"]["SizeInMiB"] // 1024,
                price_eur_micros_per_hour=None,
            )
