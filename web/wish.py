"""From what a client sent to what a deployment asks for: codes or ids in, what is offered there attached.

Nothing is refused here but nonsense: an unknown zone or model is passed on as such, and the deployment's own decision
refuses it, so that every refusal is an event with SPEC's code.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace

from domain.activation import Flag
from domain.catalogue import PROVIDERS, InstanceType, Provider, find_provider
from domain.deployment import SIMULATED_MODEL, Engine, NamedPlace, RequestDeployment
from domain.ids import derived_id
from domain.market import Market, find, knows_zone, type_of
from domain.model import ModelListed
from domain.planning import wanted_disk_gb
from web.errors import ApiError
from web.shapes import EUR_MICROS

DEFAULT_PROVIDER = "local"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where to rent, by code; empty when not said. `price_eur_per_hour`: for a place whose price nobody knows."""

    provider: str
    zone: str
    instance_type: str
    price_eur_per_hour: float | None = None


def place_of(
    market: Market,
    *,
    provider: str,
    zone: str,
    instance_type: str,
    provider_id: str,
    zone_id: str,
    instance_type_id: str,
    price_eur_per_hour: float | None = None,
) -> Place:
    """Codes win over ids; with no provider named, this machine; a choice of one needs no naming."""
    code = provider or _provider_behind(provider_id, zone_id, instance_type_id) or provider_id or DEFAULT_PROVIDER
    if find_provider(code) is None:
        return Place(provider=code, zone=zone or zone_id, instance_type=instance_type or instance_type_id)
    zones = {derived_id("catalogue", f"zone/{code}/{z}"): z for z in _zones(market, code)}
    named_zone = zone or zones.get(zone_id, zone_id) or _only_one(zones.values())
    types = {derived_id("catalogue", f"instance_type/{code}/{t}"): t for t in _types(market, code)}
    return Place(
        provider=code,
        zone=named_zone,
        instance_type=instance_type or types.get(instance_type_id, instance_type_id) or _only_one(types.values()),
        price_eur_per_hour=price_eur_per_hour,
    )


def _zones(market: Market, provider: str) -> list[str]:
    """Every one by which it may be named, in the catalogue or offered."""
    known = find_provider(provider)
    listed = [zone.code for zone in known.zones if zone.is_active] if known else []
    return list(dict.fromkeys([*listed, *(one.zone for one in market if one.provider == provider)]))


def _types(market: Market, provider: str) -> list[str]:
    known = find_provider(provider)
    listed = [offered.code for offered in known.instance_types] if known else []
    return list(dict.fromkeys([*listed, *(one.type.code for one in market if one.provider == provider)]))


def _only_one(choices: Iterable[str]) -> str:
    found = list(choices)
    return found[0] if len(found) == 1 else ""


def _provider_behind(*ids: str) -> str:
    return next((p.code for p in PROVIDERS if _ids_of(p) & set(ids)), "")


def _ids_of(provider: Provider) -> set[str]:
    names = [f"provider/{provider.code}"]
    names += [f"zone/{provider.code}/{zone.code}" for zone in provider.zones]
    names += [f"instance_type/{provider.code}/{offered.code}" for offered in provider.instance_types]
    return {derived_id("catalogue", name) for name in names}


def engine_of(engine: Engine | None, *, model_code: str, provider: str) -> Engine:
    """Said, or: the simulated engine on this machine and for the model that has no weights, vLLM elsewhere."""
    if engine is not None:
        return engine
    return "simulated" if provider == DEFAULT_PROVIDER or model_code == SIMULATED_MODEL else "vllm"


def request_of(
    market: Market,
    *,
    model_code: str,
    model: ModelListed | None,
    places: Sequence[Place],
    instances: int,
    engine: Engine,
    startup_timeout_s: int,
    activate: tuple[Flag, ...],
    context_tokens: int = 0,
    provider_disk_gb: int | None = None,
    forced_disk_gb: int = 0,
    credentials_missing: tuple[str, ...] = (),
) -> RequestDeployment:
    """The command, with what is offered at each place; `places`: the first, then where else, of the same provider.

    Raises:
        ApiError: 400 price_already_known.
    """
    provider = places[0].provider
    first, *others = (_named(market, place) for place in places)
    return RequestDeployment(
        model_code=model_code,
        instances=instances,
        engine=engine,
        provider=provider,
        zone=first.zone,
        instance_type=first.instance_type,
        startup_timeout_s=startup_timeout_s,
        provider_known=find_provider(provider) is not None,
        zone_known=first.zone_known,
        model=model,
        offer=first.offer,
        offered_in_zone=first.offered_in_zone,
        activate=activate,
        alternatives=tuple(others),
        disk_gb=_disk_gb(model, provider, (first, *others), provider_disk_gb, forced_disk_gb),
        context_tokens=context_tokens,
        credentials_missing=credentials_missing,
    )


def _named(market: Market, place: Place) -> NamedPlace:
    found = find(market, place.provider, place.zone, place.instance_type)
    offer = found.type if found else type_of(market, place.provider, place.instance_type)
    return NamedPlace(
        zone=place.zone,
        instance_type=place.instance_type,
        zone_known=knows_zone(market, place.provider, place.zone),
        offer=_priced(offer, place.price_eur_per_hour) if offer else None,
        offered_in_zone=found is not None,
    )


def _priced(offer: InstanceType, price_eur_per_hour: float | None) -> InstanceType:
    if price_eur_per_hour is None:
        return offer
    if offer.price_eur_micros_per_hour is not None:
        raise ApiError(400, "price_already_known", f"The catalogue knows what {offer.code} costs; leave the price out.")
    return replace(offer, price_eur_micros_per_hour=round(price_eur_per_hour * EUR_MICROS))


def _disk_gb(
    model: ModelListed | None, provider: str, places: Sequence[NamedPlace], provider_gb: int | None, forced_gb: int
) -> int:
    """One size for every place, so the largest that one of them asks for."""
    if model is None:
        return 0
    machines = [named.offer for named in places if named.offer is not None]
    sizes = (
        wanted_disk_gb(model, provider, machine, provider_gb=provider_gb, forced_gb=forced_gb) for machine in machines
    )
    return max(sizes, default=0)
