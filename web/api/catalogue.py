"""What can be rented: providers, zones and instance types, with the price and the stock that providers said last.

    built-in catalogue ──┐
    synced offers ───────┴─> web/market.py ──> these pages; `source` tells which of them a line is from

The catalogue knows codes; the API also speaks of ids, since older clients do: each is derived from its codes. The
surprising rule: what is known of a place depends on who asks, for each organisation has accounts of its own.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends

from domain.catalogue import PROVIDERS, InstanceType, Provider
from domain.ids import derived_id
from domain.market import Market, Offered, Stock
from projections.catalogue import list_offers
from web.auth import Member, Position, Served, member
from web.errors import not_found
from web.market import market_of
from web.shapes import PathId, Reply, euros

router = APIRouter(tags=["catalogue"])

Viewer = Annotated[Member, Depends(member("catalogue.view"))]
Everyone = Annotated[Member, Depends(member("models.view"))]

Source = Literal["built_in", "provider"]
_NUMBER_AT_END = re.compile(r"-\d+$|(?<=\d)[a-z]$")
"""What a zone's code adds to its region's: "fr-par-2" lies in "fr-par", "eu-west-3a" in "eu-west-3"."""


class ProviderShown(Reply):
    """`synced_at`: when its offers last changed; null while only the built-in catalogue is known."""

    id: str
    code: str
    name: str
    is_active: bool
    synced_at: datetime | None


class ZoneShown(Reply):
    id: str
    provider_id: str
    provider_code: str
    region: str
    code: str
    is_active: bool
    instance_types: list[str]


class PlaceShown(Reply):
    """A type in a zone. `stock`: available, scarce, out, or unknown."""

    zone_id: str
    zone_code: str
    cost_per_hour: float | None
    stock: Stock


class InstanceTypeShown(Reply):
    """`cost_per_hour` in EUR, the lowest of its places, null when nobody knows it; sizes in GB."""

    id: str
    provider_id: str
    provider_code: str
    code: str
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int
    ram_gb: int
    cost_per_hour: float | None
    source: Source
    places: list[PlaceShown]


def provider_id(provider: str) -> str:
    return derived_id("catalogue", f"provider/{provider}")


def zone_id(provider: str, zone: str) -> str:
    return derived_id("catalogue", f"zone/{provider}/{zone}")


def instance_type_id(provider: str, instance_type: str) -> str:
    return derived_id("catalogue", f"instance_type/{provider}/{instance_type}")


@router.get("/providers")
async def providers(viewer: Viewer, services: Served, position: Position) -> list[ProviderShown]:
    async with services.read("catalogue", position=position) as connection:
        offers = await list_offers(connection, viewer.organization_id)
    synced = {one.provider: one.synced_at for one in sorted(offers, key=lambda one: one.synced_at)}
    return [
        ProviderShown(
            id=provider_id(p.code), code=p.code, name=p.name, is_active=p.is_active, synced_at=synced.get(p.code)
        )
        for p in PROVIDERS
    ]


@router.get("/zones")
async def zones(viewer: Viewer, services: Served, position: Position) -> list[ZoneShown]:
    market = await market_of(services, viewer.organization_id, position)
    return [zone for provider in PROVIDERS for zone in _zones(provider, market)]


def _zones(provider: Provider, market: Market) -> list[ZoneShown]:
    known = {zone.code: zone for zone in provider.zones}
    offered = {one.zone for one in market if one.provider == provider.code}
    return [
        ZoneShown(
            id=zone_id(provider.code, code),
            provider_id=provider_id(provider.code),
            provider_code=provider.code,
            region=known[code].region if code in known else _NUMBER_AT_END.sub("", code),
            code=code,
            is_active=provider.is_active and (code not in known or known[code].is_active),
            instance_types=_types_in(provider, code, market),
        )
        for code in [*known, *sorted(offered - known.keys())]
    ]


def _types_in(provider: Provider, zone: str, market: Market) -> list[str]:
    if not provider.is_active:
        return [code for known in provider.zones if known.code == zone for code in known.instance_types]
    return [one.type.code for one in market if (one.provider, one.zone) == (provider.code, zone)]


@router.get("/instance_types")
async def instance_types(viewer: Viewer, services: Served, position: Position) -> list[InstanceTypeShown]:
    """All that is known, whether or not there is a place for it now."""
    market = await market_of(services, viewer.organization_id, position)
    return [shown for provider in PROVIDERS for shown in _types(provider, market)]


def _types(provider: Provider, market: Market) -> list[InstanceTypeShown]:
    offered: dict[str, list[Offered]] = {known.code: [] for known in provider.instance_types}
    for one in market:
        if one.provider == provider.code:
            offered.setdefault(one.type.code, []).append(one)
    built_in = {known.code: known for known in provider.instance_types}
    return [
        _type(provider.code, places[0].type if places else built_in[code], places) for code, places in offered.items()
    ]


def _type(provider: str, known: InstanceType, places: Iterable[Offered]) -> InstanceTypeShown:
    shown = [_place(one) for one in places]
    prices = [one.price_eur_micros_per_hour for one in places] or [known.price_eur_micros_per_hour]
    lowest = min((price for price in prices if price is not None), default=None)
    return InstanceTypeShown(
        id=instance_type_id(provider, known.code),
        provider_id=provider_id(provider),
        provider_code=provider,
        code=known.code,
        gpu_count=known.gpu_count,
        vram_per_gpu_gb=known.vram_per_gpu_gb,
        cpu_count=known.cpu_count,
        ram_gb=known.ram_gb,
        cost_per_hour=_in_euros(lowest),
        source="provider" if any(one.is_current for one in places) else "built_in",
        places=shown,
    )


def _place(one: Offered) -> PlaceShown:
    return PlaceShown(
        zone_id=zone_id(one.provider, one.zone),
        zone_code=one.zone,
        cost_per_hour=_in_euros(one.price_eur_micros_per_hour),
        stock=one.stock,
    )


def _in_euros(micros: int | None) -> float | None:
    return None if micros is None else euros(micros)


@router.get("/zones/{zone}/instance_types")
async def instance_types_of_zone(
    zone: PathId, everyone: Everyone, services: Served, position: Position, provider_code: str = ""
) -> list[InstanceTypeShown]:
    """What can be rented there, with its price and stock in that zone alone; `zone` is an id or a code."""
    market = await market_of(services, everyone.organization_id, position)
    known = {(p.code, z.code) for p in PROVIDERS for z in p.zones} | {(one.provider, one.zone) for one in market}
    wanted = {pair for pair in known if zone in {pair[1], zone_id(*pair)} and provider_code in {"", pair[0]}}
    if not wanted:
        raise not_found("zone")
    return [_type(one.provider, one.type, [one]) for one in market if (one.provider, one.zone) in wanted]
