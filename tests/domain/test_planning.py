"""Whether a model fits: the numbers behind yes, shorter, and no; and what would do instead."""

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.catalogue import SEED_MODELS, InstanceType, find_provider
from domain.market import Offered, built_in
from domain.model import ModelListed
from domain.planning import (
    GB,
    LEAST_GROWN_DISK_GB,
    OVERHEAD_BYTES_PER_GPU,
    Fit,
    fit,
    offers_that_fit,
    wanted_disk_gb,
)

MODELS = {
    one.code: ModelListed(**{field: getattr(one, field) for field in ModelListed.__struct_fields__})
    for one in SEED_MODELS
}
LLAMA_8B = MODELS["meta-llama/Llama-3.1-8B-Instruct"]
QWEN_7B = MODELS["Qwen/Qwen2.5-7B-Instruct"]
LLAMA_70B = MODELS["meta-llama/Meta-Llama-3-70B-Instruct"]
UNKNOWN = ModelListed(code="own/model", name="m", required_vram_gb=40, context_length=8192, data_volume_gb=0)


def machine(code: str) -> InstanceType:
    for provider in ("scaleway", "aws"):
        found = find_provider(provider)
        if found is not None and (offered := found.instance_type(code)):
            return offered
    raise AssertionError(code)


def on(model: ModelListed, code: str) -> Fit:
    return fit(model, "scaleway", machine(code))


def test_what_fits_says_how_many_sequences_do() -> None:
    found = on(QWEN_7B, "L4-1-24G")
    free = 24 * GB * 9 // 10 - found.weight_bytes - OVERHEAD_BYTES_PER_GPU
    assert (found.verdict, found.is_estimate, found.tensor_parallel) == ("fits", False, 1)
    assert found.kv_bytes_per_sequence == 57_344 * 32_768
    assert found.concurrent_sequences == free // (57_344 * 32_768) == 2


def test_weights_that_leave_room_for_less_context_are_told_apart() -> None:
    found = on(LLAMA_8B, "L4-1-24G")
    assert (found.verdict, found.concurrent_sequences) == ("shorter_context", 0)
    assert found.longest_context_tokens == 27_004
    assert on(replace(LLAMA_8B, context_length=16_384), "L4-1-24G").verdict == "fits"


def test_weights_that_fill_the_memory_do_not_fit() -> None:
    found = on(LLAMA_70B, "H100-2-80G")
    assert (found.verdict, found.longest_context_tokens) == ("does_not_fit", 0)
    assert "141.1 GB of weights" in found.reason


def test_all_gpus_of_a_machine_serve_one_model_together() -> None:
    found = on(LLAMA_70B, "L40S-4-48G")
    assert (found.verdict, found.tensor_parallel, found.total_bytes) == ("fits", 4, 192 * GB)
    assert found.overhead_bytes == 4 * OVERHEAD_BYTES_PER_GPU


def test_gpus_that_cannot_share_the_heads_do_not_fit_however_large() -> None:
    found = on(QWEN_7B, "H100-SXM-8-80G")  # 28 heads among 8 GPUs
    assert (found.verdict, found.concurrent_sequences) == ("does_not_fit", 0)
    assert "cannot share" in found.reason


def test_more_gpus_than_kv_heads_keep_copies_of_them() -> None:
    few_heads = replace(LLAMA_8B, shape=replace(LLAMA_8B.shape, kv_heads=2))  # type: ignore[type-var] # seeds have one
    two, four = on(few_heads, "L4-2-24G"), on(few_heads, "L4-4-24G")
    assert two.kv_bytes_per_sequence is not None
    assert four.kv_bytes_per_sequence == 2 * two.kv_bytes_per_sequence


def test_without_a_shape_the_listed_vram_is_an_estimate() -> None:
    assert (on(UNKNOWN, "L40S-1-48G").verdict, on(UNKNOWN, "L40S-1-48G").is_estimate) == ("fits", True)
    assert on(UNKNOWN, "L4-1-24G").verdict == "does_not_fit"
    assert on(UNKNOWN, "L40S-1-48G").concurrent_sequences is None


def test_a_platform_that_listed_its_seed_before_shapes_knows_them_all_the_same() -> None:
    assert on(replace(QWEN_7B, shape=None), "L4-1-24G") == on(QWEN_7B, "L4-1-24G")


def test_this_machine_is_measured_by_the_listing_alone() -> None:
    local = find_provider("local")
    assert local is not None
    found = fit(MODELS["Qwen/Qwen2.5-0.5B-Instruct"], "local", local.instance_types[0])
    assert (found.verdict, found.is_estimate) == ("fits", True)


def test_the_cheapest_that_fit_come_first_and_no_type_twice() -> None:
    found = offers_that_fit(built_in(), LLAMA_8B)
    assert [one.type.code for one in found][:3] == ["L40S-1-48G", "L4-2-24G", "H100-1-80G"]
    assert len({one.type.code for one in found}) == len(found)
    assert all(fit(LLAMA_8B, one.provider, one.type).verdict == "fits" for one in found)


def test_what_is_sold_out_is_not_suggested_and_an_unknown_price_comes_last() -> None:
    sold_out = Offered(provider="scaleway", zone="z", type=machine("L4-1-24G"), stock="out")
    dollars = Offered(provider="aws", zone="eu-west-3a", type=machine("g5.xlarge"))
    euros = Offered(provider="scaleway", zone="z", type=machine("H100-1-80G"))
    assert offers_that_fit([sold_out, dollars, euros], QWEN_7B) == [euros, dollars]


@for_all(
    gpus=st.sampled_from([1, 2, 4, 8]),
    vram_gb=st.integers(1, 400),
    more_gb=st.integers(0, 100),
    context=st.integers(1, 200_000),
    code=st.sampled_from(sorted(code for code, model in MODELS.items() if model.shape)),
)
def test_more_memory_never_fits_less(gpus: int, vram_gb: int, more_gb: int, context: int, code: str) -> None:
    model = replace(MODELS[code], context_length=context)
    small = replace(machine("L4-1-24G"), gpu_count=gpus, vram_per_gpu_gb=vram_gb)
    large = replace(small, vram_per_gpu_gb=vram_gb + more_gb)
    order = ["does_not_fit", "shorter_context", "fits"]
    less, more = fit(model, "scaleway", small), fit(model, "scaleway", large)
    assert order.index(less.verdict) <= order.index(more.verdict)
    assert (less.concurrent_sequences or 0) <= (more.concurrent_sequences or 0)
    assert (less.verdict == "fits") == bool(less.concurrent_sequences)


@for_all(gpus=st.sampled_from([1, 2, 4, 8]), vram_gb=st.integers(1, 400))
def test_what_fits_stays_within_the_usable_memory(gpus: int, vram_gb: int) -> None:
    small = replace(machine("L4-1-24G"), gpu_count=gpus, vram_per_gpu_gb=vram_gb)
    for model in MODELS.values():
        found = fit(model, "scaleway", small)
        if found.verdict == "fits" and found.kv_bytes_per_sequence and found.concurrent_sequences:
            used = found.weight_bytes + found.overhead_bytes + found.concurrent_sequences * found.kv_bytes_per_sequence
            assert used <= found.usable_bytes <= found.total_bytes


@pytest.mark.parametrize(
    ("changes", "provider_gb", "type_code", "wanted"),
    [
        ({"data_volume_gb": 300}, None, "H100-1-80G", 300),
        ({"data_volume_gb": 300}, 400, "H100-1-80G", 300),
        ({"data_volume_gb": 0}, 400, "H100-1-80G", 400),
        ({"data_volume_gb": 0}, None, "H100-1-80G", 100),
        ({"data_volume_gb": 50}, None, "L4-1-24G", LEAST_GROWN_DISK_GB),
        ({"data_volume_gb": 50}, None, "H100-1-80G", 50),
    ],
)
def test_the_disk_is_the_models_else_the_settings_else_the_names(
    changes: dict[str, int], provider_gb: int | None, type_code: str, wanted: int
) -> None:
    model = replace(QWEN_7B, **changes)
    assert wanted_disk_gb(model, "scaleway", machine(type_code), provider_gb=provider_gb) == wanted


def test_a_forced_disk_is_exactly_as_large_as_the_operator_said() -> None:
    for type_code in ("L4-1-24G", "H100-1-80G"):
        assert wanted_disk_gb(QWEN_7B, "scaleway", machine(type_code), provider_gb=500, forced_gb=90) == 90


def test_a_disk_that_nobody_sized_holds_the_weights_at_least() -> None:
    huge = replace(MODELS["mistralai/Mixtral-8x22B-Instruct-v0.1"], data_volume_gb=0)
    assert wanted_disk_gb(huge, "scaleway", machine("H100-SXM-8-80G"), provider_gb=None) == 282 + 60


@pytest.mark.parametrize("provider", ["local", "bare_metal"])
def test_machines_that_have_their_disks_get_none(provider: str) -> None:
    assert wanted_disk_gb(QWEN_7B, provider, machine("L4-1-24G"), provider_gb=500, forced_gb=90) == 0
