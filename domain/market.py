"""What can be rented, place by place: the built-in catalogue, and what providers and enrolled hosts said since.

    PROVIDERS ──> built_in() ──┐
    a provider's own list ─────┴─> merged ──> Market ──> find, zones_of, cheapest_first

The surprising rule: a provider that was asked knows better. Its built-in lines count only until its first own list;
but a price that it does not say in EUR stays what the catalogue says.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec
from msgspec.structs import replace

from domain.catalogue import PROVIDERS, InstanceType, find_provider

Stock = Literal["available", "scarce", "out", "unknown"]


class Offered(msgspec.Struct, frozen=True, kw_only=True):
    """One type in one zone; `is_current`: as its provider said itself, not as the built-in catalogue knows it."""

    provider: str
    zone: str
    type: InstanceType
    stock: Stock = "unknown"
    is_current: bool = False

    @property
    def price_eur_micros_per_hour(self) -> int | None:
        return self.type.price_eur_micros_per_hour


Market = Sequence[Offered]


def built_in() -> list[Offered]:
    """Of every active provider, zone and type."""
    return [
        Offered(provider=provider.code, zone=zone.code, type=offered)
        for provider in PROVIDERS
        if provider.is_active
        for zone in provider.zones
        if zone.is_active
        for code in zone.instance_types
        if (offered := provider.instance_type(code)) is not None
    ]


def merged(said: Iterable[Offered]) -> list[Offered]:
    """The built-in market with what active providers said of themselves in place of theirs."""
    own = [_completed(one) for one in said if find_provider(one.provider) is not None]
    asked = {one.provider for one in own}
    return [*(one for one in built_in() if one.provider not in asked), *own]


def _completed(said: Offered) -> Offered:
    """With what only the built-in catalogue knows of that type."""
    provider = find_provider(said.provider)
    known = provider.instance_type(said.type.code) if provider else None
    if known is None:
        return said
    price = said.price_eur_micros_per_hour
    completed = replace(
        said.type,
        is_diskless=known.is_diskless,
        price_eur_micros_per_hour=known.price_eur_micros_per_hour if price is None else price,
    )
    return replace(said, type=completed)


def find(market: Market, provider: str, zone: str, instance_type: str) -> Offered | None:
    wanted = (provider, zone, instance_type)
    return next((one for one in market if (one.provider, one.zone, one.type.code) == wanted), None)


def type_of(market: Market, provider: str, instance_type: str) -> InstanceType | None:
    """A type that is offered somewhere, or that the catalogue at least knows."""
    somewhere = (one.type for one in market if (one.provider, one.type.code) == (provider, instance_type))
    known = find_provider(provider)
    return next(somewhere, None) or (known.instance_type(instance_type) if known else None)


def knows_zone(market: Market, provider: str, zone: str) -> bool:
    """One in which something is offered, or an empty one of the catalogue."""
    known = find_provider(provider)
    in_catalogue = known is not None and known.zone(zone) is not None
    return in_catalogue or any((one.provider, one.zone) == (provider, zone) for one in market)


def cheapest_first(market: Iterable[Offered]) -> list[Offered]:
    """What is known to be sold out is left out; a price that nobody knows comes last."""

    def rank(one: Offered) -> tuple[bool, int, str, str, str]:
        price = one.price_eur_micros_per_hour
        return (price is None, price or 0, one.provider, one.zone, one.type.code)

    return sorted((one for one in market if one.stock != "out"), key=rank)
