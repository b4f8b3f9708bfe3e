"""What the simulated Scaleway rents out: types of servers with their zones and prices, and images to boot from.

Sizes and prices are those of SPEC 9.5. The surprising rule: the catalogue shows every type in every zone that sells it,
sold out or not; only the availability and the refusals tell what is left.
"""

from dataclasses import dataclass
from typing import Any

ZONES = ("fr-par-1", "fr-par-2", "fr-par-3", "nl-ams-1", "nl-ams-2", "nl-ams-3", "pl-waw-1", "pl-waw-2", "pl-waw-3")
GB = 10**9
GIB = 2**30
HOURS_PER_MONTH = 730
SCARCE_BELOW = 3
GPU_IMAGE = "5c3d28db-33ce-4997-8572-f49506339283"
PLAIN_IMAGE = "8e0da557-5d75-40ba-b928-5984075aa255"
IMAGES = {GPU_IMAGE: "Ubuntu Noble GPU OS 13 passthrough", PLAIN_IMAGE: "Ubuntu 24.04 Noble Numbat"}
BOOT_VOLUME_BYTES = 20 * GB
"""Made by itself when a server is created without a word about volumes."""


@dataclass(frozen=True)
class Offer:
    """One type; memory in GiB, local storage in GB (0: boots from block storage alone)."""

    commercial_type: str
    gpu_name: str
    gpu_count: int
    vram_gib: int
    cpu_count: int
    ram_gib: int
    hourly_price_eur: float
    zones: tuple[str, ...] = ("fr-par-2",)
    local_gb: int = 0

    @property
    def diskless(self) -> bool:
        return self.local_gb == 0


def _offers() -> dict[str, Offer]:
    widely = ("fr-par-1", "fr-par-2", "nl-ams-1", "pl-waw-2")
    rows = [
        Offer("B300-SXM-8-288G", "B300-SXM", 8, 288, 224, 3840, 60.0),
        Offer("H100-SXM-8-80G", "H100-SXM", 8, 80, 128, 960, 23.028),
        Offer("H100-SXM-4-80G", "H100-SXM", 4, 80, 64, 480, 11.61),
        Offer("H100-SXM-2-80G", "H100-SXM", 2, 80, 32, 240, 6.018),
        Offer("H100-2-80G", "H100", 2, 80, 48, 480, 5.46, ("fr-par-2", "pl-waw-2")),
        Offer("H100-1-80G", "H100", 1, 80, 24, 240, 2.73, ("fr-par-2", "pl-waw-2")),
        Offer("L40S-8-48G", "L40S", 8, 48, 64, 768, 11.1994),
        Offer("L40S-4-48G", "L40S", 4, 48, 32, 384, 5.5997),
        Offer("L40S-2-48G", "L40S", 2, 48, 16, 192, 2.7998, ("fr-par-2", "pl-waw-2")),
        Offer("L40S-1-48G", "L40S", 1, 48, 8, 96, 1.3999, ("fr-par-2", "pl-waw-2")),
        Offer("L4-8-24G", "L4", 8, 24, 64, 384, 6.0),
        Offer("L4-4-24G", "L4", 4, 24, 32, 192, 3.0),
        Offer("L4-2-24G", "L4", 2, 24, 16, 96, 1.5, widely),
        Offer("L4-1-24G", "L4", 1, 24, 8, 48, 0.75, widely),
        Offer("RENDER-S", "P100", 1, 16, 10, 42, 1.221),
        Offer("PRO2-XXS", "", 0, 0, 2, 8, 0.055, ZONES),
        Offer("DEV1-S", "", 0, 0, 2, 2, 0.01368, ZONES, local_gb=20),
    ]
    return {row.commercial_type: row for row in rows}


OFFERS = _offers()


def offers_in(zone: str) -> list[Offer]:
    """In the order of their names, which is Scaleway's."""
    return [OFFERS[name] for name in sorted(OFFERS) if zone in OFFERS[name].zones]


def shown_offer(offer: Offer) -> dict[str, Any]:
    local_bytes = offer.local_gb * GB
    bandwidth = 2_500_000_000 * max(1, offer.gpu_count)
    gpu = {"gpu_manufacturer": "NVIDIA", "gpu_name": offer.gpu_name, "gpu_memory": offer.vram_gib * GIB}
    return {
        "alt_names": [],
        "arch": "x86_64",
        "ncpus": offer.cpu_count,
        "ram": offer.ram_gib * GIB,
        "gpu": offer.gpu_count,
        "gpu_info": gpu if offer.gpu_count else None,
        "mig_profile": None,
        "volumes_constraint": {"min_size": 0, "max_size": local_bytes},
        "per_volume_constraint": {"l_ssd": {"min_size": GB if local_bytes else 0, "max_size": local_bytes}},
        "scratch_storage_max_size": None,
        "monthly_price": round(offer.hourly_price_eur * HOURS_PER_MONTH, 4),
        "hourly_price": offer.hourly_price_eur,
        "capabilities": {"boot_types": ["local", "rescue"], "block_storage": True, "max_file_systems": 0},
        "network": {
            "ipv6_support": True,
            "sum_internal_bandwidth": bandwidth,
            "sum_internet_bandwidth": bandwidth,
            "interfaces": [{"internal_bandwidth": bandwidth, "internet_bandwidth": bandwidth}],
        },
        "block_bandwidth": 1_048_576_000,
        "end_of_service": False,
    }


def availability(left: int | None) -> str:
    """`left` servers of a type in a zone; None is plenty."""
    if left is None or left >= SCARCE_BELOW:
        return "available"
    return "scarce" if left else "shortage"
