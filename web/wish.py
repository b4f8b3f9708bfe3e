"""From what a client sent to what a deployment asks for: codes or ids in, catalogue answers attached.

Nothing is refused here: an unknown zone or model is passed on as such, and the deployment's own decision refuses it, so
that every refusal is an event with SPEC's code.
"""

import msgspec

from domain.activation import Flag
from domain.catalogue import PROVIDERS, Provider, find_provider
from domain.deployment import SIMULATED_MODEL, Engine, RequestDeployment
from domain.ids import derived_id
from domain.model import ModelListed

DEFAULT_PROVIDER = "local"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where to rent, by code; empty when not said."""

    provider: str
    zone: str
    instance_type: str


def place_of(
    *, provider: str, zone: str, instance_type: str, provider_id: str, zone_id: str, instance_type_id: str
) -> Place:
    """Codes win over ids; with no provider named, this machine; a choice of one needs no naming."""
    code = provider or _provider_behind(provider_id, zone_id, instance_type_id) or provider_id or DEFAULT_PROVIDER
    found = find_provider(code)
    if found is None:
        return Place(provider=code, zone=zone or zone_id, instance_type=instance_type or instance_type_id)
    zones = {derived_id("catalogue", f"zone/{code}/{z.code}"): z.code for z in found.zones if z.is_active}
    types = {derived_id("catalogue", f"instance_type/{code}/{t.code}"): t.code for t in found.instance_types}
    return Place(
        provider=code,
        zone=zone or zones.get(zone_id, zone_id) or _only_one(list(zones.values())),
        instance_type=instance_type or types.get(instance_type_id, instance_type_id) or _only_one(list(types.values())),
    )


def _only_one(choices: list[str]) -> str:
    return choices[0] if len(choices) == 1 else ""


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
    *,
    model_code: str,
    model: ModelListed | None,
    place: Place,
    instances: int,
    engine: Engine,
    startup_timeout_s: int,
    activate: tuple[Flag, ...],
) -> RequestDeployment:
    """The command, with what the catalogue says about each name in it."""
    provider = find_provider(place.provider)
    zone = provider.zone(place.zone) if provider else None
    return RequestDeployment(
        model_code=model_code,
        instances=instances,
        engine=engine,
        provider=place.provider,
        zone=place.zone,
        instance_type=place.instance_type,
        startup_timeout_s=startup_timeout_s,
        provider_known=provider is not None,
        zone_known=zone is not None,
        model=model,
        offer=provider.instance_type(place.instance_type) if provider else None,
        offered_in_zone=zone is not None and place.instance_type in zone.instance_types,
        activate=activate,
    )
