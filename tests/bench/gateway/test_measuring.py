"""What a plan measures of whom, and how long it says that it will take."""

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

from tests.bench.gateway import measuring
from tests.bench.gateway.__main__ import Words
from tests.bench.gateway.measuring import LITELLM, Plan, Progress, profiled, quick
from tests.bench.gateway.scenarios import COSTS, shortened

PLAN = Plan(contenders=("vllm-router", "nginx", "nginx-again", "litellm"), costs=COSTS)


def test_the_control_and_litellm_are_measured_with_plain_requests_alone() -> None:
    assert list(PLAN.costs_of("nginx-again")) == ["plain_c64"]
    assert PLAN.costs_of("litellm") == {"plain_c64": LITELLM}
    assert PLAN.costs_of("vllm-router") == COSTS == PLAN.costs_of("ours")


@pytest.mark.parametrize("prepared", [True, False])
def test_a_quick_run_downloads_no_litellm(prepared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "is_prepared", lambda _: prepared)
    assert ("litellm" in quick(PLAN).contenders) == prepared
    assert (quick(PLAN).repeats, quick(PLAN).share) == (1, 0.5)


def test_a_profile_looks_at_ours_alone() -> None:
    plan = profiled(PLAN, Path("out"))
    assert (plan.contenders, plan.parts, plan.repeats) == ((), ("costs",), 1)
    assert plan.arguments[-1] == "out"


def test_a_shorter_run_has_a_shorter_window_and_the_same_warm_up() -> None:
    stream = COSTS["stream_256"]
    half = shortened(stream, 0.5)
    assert (half.window_ms, half.warm_ms, half.ramp_ms) == (2000, stream.warm_ms, stream.ramp_ms)


def test_a_stream_takes_its_own_length_beyond_the_window() -> None:
    stream = COSTS["stream_256"]
    assert stream.takes_s == pytest.approx(4.2 + 4.0 + 2.02)


def test_progress_tells_what_is_left_and_never_less_than_the_step() -> None:
    said: list[str] = []
    progress = Progress(said.append, 30.0)
    for takes_s in (20.0, 20.0):
        progress.step("ours: plain_c64", takes_s)
    assert [line.split()[-3] for line in said] == ["30", "20"]


def test_words_are_read_and_strangers_refused() -> None:
    words = Words(("costs", "memory"))
    assert (words("memory,costs"), words("")) == (["memory", "costs"], [])
    with pytest.raises(ArgumentTypeError, match="'choices' is none of costs, memory"):
        words("choices")
