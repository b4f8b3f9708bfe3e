"""Whether a model fits into a machine, before anybody pays for it. Sizes in bytes; 1 GB is 10^9 bytes, as on the cards.

    each GPU:  usable = 90 % of it  =  weights / GPUs  +  overhead  +  KV cache: sequences x context x bytes per token

All GPUs of the machine serve one model together (tensor parallelism), so they must be able to share its heads. Without
a shape (model_shape.py) the listing's `required_vram_gb` has to do, and the answer says that it is an estimate. The
surprising rule: there are three answers. vLLM starts only when one sequence of the context that it shall serve fits; a
machine that holds the weights and less context is told apart from one that cannot hold the model at all.
"""

from typing import Literal

import msgspec

from domain.catalogue import InstanceType
from domain.disk import recommended_disk_gb
from domain.market import Market, Offered, cheapest_first
from domain.model import ModelListed
from domain.model_shape import ModelShape
from domain.seed_shapes import seed_shape

GB = 10**9
USABLE_PERCENT = 90
"""vLLM's --gpu-memory-utilization, by default."""
OVERHEAD_BYTES_PER_GPU = 2 * GB
"""Activations, CUDA graphs and the driver's own; a cautious guess for one engine with vLLM's default batch."""
HOURS_A_DAY = 24
HOURS_A_MONTH = 720
"""SPEC 5.2."""
LEAST_GROWN_DISK_GB = 150
"""A boot volume that its provider made is grown to at least this (SPEC 4.2 step 8)."""
SYSTEM_DISK_GB = 60
"""The system, the engine's image, and room to unpack it."""
LOCAL = "local"
WITHOUT_DISK = frozenset({LOCAL, "bare_metal"})
"""Providers whose machines have the disks that they have."""
MAX_SUGGESTIONS = 5

Verdict = Literal["fits", "shorter_context", "does_not_fit"]


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What a model takes of a machine, all GPUs together, in bytes.

    Attributes:
        reason: a sentence for people.
        is_estimate: the model's config is unknown; then only `weight_bytes` is said, rounded as it was listed.
        context_tokens: that the engine shall serve.
        kv_bytes_per_sequence: of one sequence of that length.
        longest_context_tokens: of one sequence alone, at most as long.
        concurrent_sequences: of that length; shorter ones share the same room.
    """

    verdict: Verdict
    reason: str
    is_estimate: bool
    tensor_parallel: int
    total_bytes: int
    usable_bytes: int
    weight_bytes: int
    overhead_bytes: int
    context_tokens: int
    kv_bytes_per_sequence: int | None = None
    longest_context_tokens: int | None = None
    concurrent_sequences: int | None = None


def shape_of(model: ModelListed) -> ModelShape | None:
    """As it was listed, or as the seed knows it: a platform may have listed it before shapes were."""
    return model.shape or seed_shape(model.code)


def fit(model: ModelListed, provider: str, machine: InstanceType, *, context_tokens: int = 0) -> Fit:
    """`context_tokens`: that is asked for; 0: as much as was listed.

    `local` machines have no GPU: their engine serves from the processor's memory, which nobody measured here.
    """
    shape = None if provider == LOCAL else shape_of(model)
    context = served_context_tokens(model, asked=context_tokens)
    return _measured(model, shape, machine, context) if shape else _estimated(model, machine, context)


def served_context_tokens(model: ModelListed, *, asked: int) -> int:
    """What the engine is told to serve, so that the plan and the machine mean the same: never more than was listed."""
    shape = shape_of(model)
    longest = min(model.context_length, shape.max_context_tokens) if shape else model.context_length
    return min(asked, longest) if asked else longest


def _estimated(model: ModelListed, machine: InstanceType, context: int) -> Fit:
    fits = model.required_vram_gb <= machine.vram_gb
    return Fit(
        verdict="fits" if fits else "does_not_fit",
        reason=f"{model.code} needs {model.required_vram_gb} GB of VRAM; {machine.code} has {machine.vram_gb} GB.",
        is_estimate=True,
        tensor_parallel=max(1, machine.gpu_count),
        total_bytes=machine.vram_gb * GB,
        usable_bytes=machine.vram_gb * GB,
        weight_bytes=model.required_vram_gb * GB,
        overhead_bytes=0,
        context_tokens=context,
    )


def _measured(model: ModelListed, shape: ModelShape, machine: InstanceType, context: int) -> Fit:
    gpus = max(1, machine.gpu_count)
    usable = machine.vram_per_gpu_gb * GB * USABLE_PERCENT // 100
    free = usable - -(-shape.weight_bytes // gpus) - OVERHEAD_BYTES_PER_GPU
    # More GPUs than KV heads: each head lies on several of them.
    token_bytes = -(-shape.kv_bytes_per_token // min(gpus, shape.kv_heads))
    can_share = _can_share(shape, gpus)
    tokens = max(0, free) // token_bytes if can_share else 0
    return Fit(
        verdict=_verdict(tokens, context),
        reason=_reason(model, shape, machine, tokens, context) if can_share else _indivisible(shape, gpus),
        is_estimate=False,
        tensor_parallel=gpus,
        total_bytes=machine.vram_gb * GB,
        usable_bytes=usable * machine.gpu_count,
        weight_bytes=shape.weight_bytes,
        overhead_bytes=OVERHEAD_BYTES_PER_GPU * gpus,
        context_tokens=context,
        kv_bytes_per_sequence=token_bytes * context * gpus,
        longest_context_tokens=min(tokens, context),
        concurrent_sequences=tokens // context,
    )


def _can_share(shape: ModelShape, gpus: int) -> bool:
    divided = shape.kv_heads % gpus == 0 or gpus % shape.kv_heads == 0
    return shape.attention_heads % gpus == 0 and divided


def _verdict(tokens: int, context: int) -> Verdict:
    if tokens >= context:
        return "fits"
    return "shorter_context" if tokens else "does_not_fit"


def _reason(model: ModelListed, shape: ModelShape, machine: InstanceType, tokens: int, context: int) -> str:
    weights = f"{model.code} has {_gb(shape.weight_bytes)} GB of weights"
    if tokens >= context:
        return f"{weights}; {machine.code} holds them and {tokens // context} sequences of {context} tokens."
    if tokens:
        return f"{weights}; {machine.code} holds them, but {tokens} tokens of context only, not {context}."
    return f"{weights}; {machine.code} has {machine.vram_gb} GB of VRAM, which does not leave room for any context."


def _indivisible(shape: ModelShape, gpus: int) -> str:
    return f"{gpus} GPUs cannot share {shape.attention_heads} attention heads and {shape.kv_heads} KV heads evenly."


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / GB:.1f}"


def offers_that_fit(market: Market, model: ModelListed, *, context_tokens: int = 0) -> list[Offered]:
    """The cheapest that hold the model with the context that is asked for, at most MAX_SUGGESTIONS, no type twice."""
    found: dict[tuple[str, str], Offered] = {}
    for one in cheapest_first(market):
        if len(found) == MAX_SUGGESTIONS:
            break
        if (
            one.provider != LOCAL
            and fit(model, one.provider, one.type, context_tokens=context_tokens).verdict == "fits"
        ):
            found.setdefault((one.provider, one.type.code), one)
    return list(found.values())


def wanted_disk_gb(
    model: ModelListed, provider: str, machine: InstanceType, *, provider_gb: int | None, forced_gb: int = 0
) -> int:
    """Of the boot disk; 0 leaves it as it is.

    `provider_gb`: the organisation's setting for that provider. `forced_gb`: the platform's for every disk, whatever
    else is known; 0: none.
    """
    if provider in WITHOUT_DISK:
        return 0
    if forced_gb:
        return forced_gb
    wanted = recommended_disk_gb(model.code, stored_gb=model.data_volume_gb, provider_gb=provider_gb)
    shape = shape_of(model)
    if shape is not None and not model.data_volume_gb and provider_gb is None:
        wanted = max(wanted, -(-shape.weight_bytes // GB) + SYSTEM_DISK_GB)
    return max(wanted, LEAST_GROWN_DISK_GB) if machine.is_diskless else wanted
