"""A host's figures: whatever it claims, what is kept is physically possible."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from web.samples import MAX_GPUS, clamped, clamped_percent

numbers = st.one_of(st.none(), st.floats(allow_nan=False), st.integers(-(2**63), 2**63))
gpus = st.fixed_dictionaries(
    dict.fromkeys(("index", "gpu_utilization", "gpu_mem_used_mb", "gpu_mem_total_mb", "gpu_temp_c"), numbers)
)
samples = st.fixed_dictionaries(
    {
        "gpu_temp_c": numbers,
        "gpu_power_w": numbers,
        "gpus": st.lists(gpus, max_size=70),
        "system": st.fixed_dictionaries(dict.fromkeys(("cpu_usage_pct", "mem_used_bytes", "mem_total_bytes"), numbers)),
    }
)


@given(samples)
def test_every_figure_is_possible(claimed: dict[str, Any]) -> None:
    kept = clamped(claimed)
    assert kept.keys() == claimed.keys()
    assert len(kept["gpus"]) <= MAX_GPUS
    for sample in (kept, kept["system"], *kept["gpus"]):
        for name, value in sample.items():
            if isinstance(value, int | float):
                low = -50 if name == "gpu_temp_c" else 0
                high = {"gpu_temp_c": 150, "gpu_utilization": 100, "cpu_usage_pct": 100}.get(name, float("inf"))
                assert low <= value <= high
    for sample, used, total in (
        (kept["system"], "mem_used_bytes", "mem_total_bytes"),
        *((gpu, "gpu_mem_used_mb", "gpu_mem_total_mb") for gpu in kept["gpus"]),
    ):
        assert sample[used] is None or sample[total] is None or sample[used] <= sample[total]


@given(samples)
def test_what_is_possible_stays_as_it_is(claimed: dict[str, Any]) -> None:
    kept = clamped(claimed)
    assert clamped(kept) == kept


def test_a_missing_percentage_stays_missing() -> None:
    assert (clamped_percent(None), clamped_percent(-1), clamped_percent(50.5), clamped_percent(101)) == (
        None,
        0,
        50.5,
        100,
    )
