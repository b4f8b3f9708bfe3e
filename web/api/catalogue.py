"""What can be rented: providers, zones and instance types, as the built-in catalogue lists them.

The catalogue knows codes; the API also speaks of ids, since older clients do: each is derived from its codes.
"""

from fastapi import APIRouter, Depends

from domain.catalogue import PROVIDERS, Provider, Zone
from domain.ids import derived_id
from web.auth import member
from web.shapes import Reply, euros

router = APIRouter(tags=["catalogue"], dependencies=[Depends(member("catalogue.view"))])


class ProviderShown(Reply):
    id: str
    code: str
    name: str
    is_active: bool


class ZoneShown(Reply):
    id: str
    provider_id: str
    provider_code: str
    region: str
    code: str
    is_active: bool
    instance_types: list[str]


class InstanceTypeShown(Reply):
    """`cost_per_hour` in EUR; sizes in GB."""

    id: str
    provider_id: str
    provider_code: str
    code: str
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int
    ram_gb: int
    cost_per_hour: float


def provider_id(provider: str) -> str:
    return derived_id("catalogue", f"provider/{provider}")


def zone_id(provider: str, zone: str) -> str:
    return derived_id("catalogue", f"zone/{provider}/{zone}")


def instance_type_id(provider: str, instance_type: str) -> str:
    return derived_id("catalogue", f"instance_type/{provider}/{instance_type}")


@router.get("/providers")
async def providers() -> list[ProviderShown]:
    return [ProviderShown(id=provider_id(p.code), code=p.code, name=p.name, is_active=p.is_active) for p in PROVIDERS]


@router.get("/zones")
async def zones() -> list[ZoneShown]:
    return [_zone(provider, zone) for provider in PROVIDERS for zone in provider.zones]


def _zone(provider: Provider, zone: Zone) -> ZoneShown:
    return ZoneShown(
        id=zone_id(provider.code, zone.code),
        provider_id=provider_id(provider.code),
        provider_code=provider.code,
        region=zone.region,
        code=zone.code,
        is_active=zone.is_active and provider.is_active,
        instance_types=list(zone.instance_types),
    )


@router.get("/instance_types")
async def instance_types() -> list[InstanceTypeShown]:
    return [
        InstanceTypeShown(
            id=instance_type_id(provider.code, offered.code),
            provider_id=provider_id(provider.code),
            provider_code=provider.code,
            code=offered.code,
            gpu_count=offered.gpu_count,
            vram_per_gpu_gb=offered.vram_per_gpu_gb,
            cpu_count=offered.cpu_count,
            ram_gb=offered.ram_gb,
            cost_per_hour=euros(offered.price_eur_micros_per_hour),
        )
        for provider in PROVIDERS
        for offered in provider.instance_types
    ]
