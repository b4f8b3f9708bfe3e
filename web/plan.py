"""A plan: what a deployment would rent, whether its model fits there, and what that costs. Nothing is bought.

It is made of the very command that would be sent, so it refuses what the deployment would refuse, in the same words.
Sizes in GB (10^9 bytes), prices in EUR; null where nobody knows. The surprising rule: a wish with alternatives may end
up at a dearer place, so `cost_per_hour_at_most` stands beside the price of the first.
"""

from collections.abc import Sequence
from typing import Literal

from domain.deployment import Engine, NamedPlace, RequestDeployment, refusal_of
from domain.market import Market, Offered, Stock, find
from domain.planning import GB, HOURS_A_DAY, HOURS_A_MONTH, Fit, Verdict, fit, offers_that_fit
from web.shapes import Refused, Reply, euros


class MemoryPlan(Reply):
    """All GPUs of the machine together.

    `is_estimate`: the model's config is unknown, so its listed VRAM stands for its weights, and nothing is known of its
    context. `kv_gb_per_sequence`: of one sequence of `context_tokens`; so many fit at the same time.
    """

    verdict: Verdict
    reason: str
    is_estimate: bool
    tensor_parallel: int
    total_gb: float
    usable_gb: float
    weights_gb: float
    overhead_gb: float
    context_tokens: int
    kv_gb_per_sequence: float | None
    longest_context_tokens: int | None
    concurrent_sequences: int | None


class PlannedPlace(Reply):
    """`cost_per_hour` of one instance. `memory` is null where nothing is known of the place or the model, and for the
    simulated engine, which has no weights.
    """

    zone: str
    instance_type: str
    is_offered: bool
    gpu_count: int
    vram_per_gpu_gb: int
    stock: Stock
    cost_per_hour: float | None
    memory: MemoryPlan | None


class Suggestion(Reply):
    """A place that holds the model with the context that was asked for."""

    provider: str
    zone: str
    instance_type: str
    gpu_count: int
    vram_per_gpu_gb: int
    stock: Stock
    cost_per_hour: float | None


class DeploymentPlan(Reply):
    """`places`: where it is asked first, then the alternatives in their order. `fits`: null where nobody can say.

    The costs are those of all instances, at the first place; a day has 24 hours, a month 720.
    """

    status: Literal["planned"] = "planned"
    model: str
    engine: Engine
    instances: int
    provider: str
    places: list[PlannedPlace]
    fits: bool | None
    disk_gb: int
    cost_per_hour: float | None
    cost_per_day: float | None
    cost_per_month: float | None
    cost_per_hour_at_most: float | None
    suggestions: list[Suggestion]
    credentials_missing: list[str]
    refusal: Refused | None


def plan_of(command: RequestDeployment, market: Market) -> DeploymentPlan:
    refusal = refusal_of(command)
    places = [_place(command, named, market) for named in command.places]
    memory, hourly = places[0].memory, _times(places[0].cost_per_hour, command.instances)
    return DeploymentPlan(
        model=command.model_code,
        engine=command.engine,
        instances=command.instances,
        provider=command.provider,
        places=places,
        fits=memory.verdict == "fits" if memory else None,
        disk_gb=command.disk_gb,
        cost_per_hour=hourly,
        cost_per_day=_times(hourly, HOURS_A_DAY),
        cost_per_month=_times(hourly, HOURS_A_MONTH),
        cost_per_hour_at_most=_times(_dearest(places), command.instances),
        suggestions=_suggestions(command, market),
        credentials_missing=list(command.credentials_missing),
        refusal=Refused(error=refusal.code, message=refusal.message) if refusal else None,
    )


def _place(command: RequestDeployment, named: NamedPlace, market: Market) -> PlannedPlace:
    offer, found = named.offer, find(market, command.provider, named.zone, named.instance_type)
    memory = None
    if offer is not None and command.model is not None and command.engine == "vllm":
        memory = _memory(fit(command.model, command.provider, offer, context_tokens=command.context_tokens))
    price = offer.price_eur_micros_per_hour if offer else None
    return PlannedPlace(
        zone=named.zone,
        instance_type=named.instance_type,
        is_offered=named.offered_in_zone,
        gpu_count=offer.gpu_count if offer else 0,
        vram_per_gpu_gb=offer.vram_per_gpu_gb if offer else 0,
        stock=found.stock if found else "unknown",
        cost_per_hour=None if price is None else euros(price),
        memory=memory,
    )


def _memory(found: Fit) -> MemoryPlan:
    kv_bytes = found.kv_bytes_per_sequence
    return MemoryPlan(
        verdict=found.verdict,
        reason=found.reason,
        is_estimate=found.is_estimate,
        tensor_parallel=found.tensor_parallel,
        total_gb=_gb(found.total_bytes),
        usable_gb=_gb(found.usable_bytes),
        weights_gb=_gb(found.weight_bytes),
        overhead_gb=_gb(found.overhead_bytes),
        context_tokens=found.context_tokens,
        kv_gb_per_sequence=None if kv_bytes is None else _gb(kv_bytes),
        longest_context_tokens=found.longest_context_tokens,
        concurrent_sequences=found.concurrent_sequences,
    )


def _gb(size_bytes: int) -> float:
    return round(size_bytes / GB, 2)


def _times(price: float | None, factor: int) -> float | None:
    return None if price is None else round(price * factor, 6)


def _dearest(places: Sequence[PlannedPlace]) -> float | None:
    """None when one of the prices is unknown: then nobody can say."""
    prices = [place.cost_per_hour for place in places]
    known = [price for price in prices if price is not None]
    return max(known) if len(known) == len(prices) else None


def _suggestions(command: RequestDeployment, market: Market) -> list[Suggestion]:
    """None where nothing has to fit."""
    if command.model is None or command.engine != "vllm":
        return []
    return [_suggestion(one) for one in offers_that_fit(market, command.model, context_tokens=command.context_tokens)]


def _suggestion(one: Offered) -> Suggestion:
    price = one.price_eur_micros_per_hour
    return Suggestion(
        provider=one.provider,
        zone=one.zone,
        instance_type=one.type.code,
        gpu_count=one.type.gpu_count,
        vram_per_gpu_gb=one.type.vram_per_gpu_gb,
        stock=one.stock,
        cost_per_hour=None if price is None else euros(price),
    )
