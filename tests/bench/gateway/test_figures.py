"""From counts to figures: medians, ratios, what a failure does to them."""

import pytest
from msgspec.structs import replace

from tests.bench.gateway.figures import OURS, Measured, Outcome, cost_us, failure_of, figures_of, table, verdict

WELL = Outcome(
    answered=1100,
    errors=0,
    unfinished=0,
    tokens=110_000,
    usage_shown=0,
    window_ns=1_000_000_000,
    window_requests=1000,
    window_tokens=100_000,
    cpu_ns=20_000_000,
    first_byte_us_p50=200,
    first_byte_us_p99=400,
    latency_us_p50=300,
    latency_us_p99=500,
    transit_us_p50=60,
    transit_us_p99=90,
    first_error="",
)


def costing(us: float) -> Outcome:
    return replace(WELL, cpu_ns=int(us * 1000 * WELL.window_requests))


def test_a_request_costs_the_time_on_a_processor_of_the_window_by_its_requests() -> None:
    assert cost_us(WELL, "request") == 20.0


def test_a_token_costs_the_same_time_by_its_tokens() -> None:
    assert cost_us(WELL, "token") == 0.2


@pytest.mark.parametrize(
    "trouble", [{"errors": 1}, {"unfinished": 1}, {"window_requests": 0, "window_tokens": 0}, {"cpu_ns": 0}]
)
def test_a_run_with_any_failure_proves_nothing(trouble: dict[str, int]) -> None:
    assert failure_of(replace(WELL, **trouble))
    assert not failure_of(WELL)


def test_the_first_error_is_told() -> None:
    assert "status 503" in failure_of(replace(WELL, errors=2, first_error="status 503: none ready"))


def test_a_ratio_is_of_the_medians_of_the_repeats() -> None:
    measured = Measured()
    for us in (10.0, 90.0, 20.0):
        measured.add("plain_c64", OURS, "request", costing(us))
    for us in (50.0, 40.0, 1.0):
        measured.add("plain_c64", "vllm-router", "request", costing(us))
    assert figures_of(measured)["plain_c64_vs_vllm_router"] == pytest.approx(20 / 40)


def test_what_is_put_off_is_paid_for_when_the_whole_run_was_dearer() -> None:
    measured = Measured()
    measured.add("plain_c64", OURS, "request", costing(10.0), us=15.0)
    assert measured.cost("plain_c64", OURS) == 15.0


def test_litellm_is_also_told_the_other_way_round() -> None:
    measured = Measured()
    measured.add("plain_c64", OURS, "request", costing(20.0))
    measured.add("plain_c64", "litellm", "request", costing(8000.0))
    figures = figures_of(measured)
    assert figures["plain_c64_vs_litellm"] == pytest.approx(1 / 400)
    assert figures["litellm_vs_plain_c64"] == pytest.approx(400)


def test_a_contender_that_failed_once_has_no_figure_and_the_first_reason_stays() -> None:
    measured = Measured()
    for name in (OURS, "nginx"):
        measured.add("plain_c64", name, "request", costing(20.0))
    measured.fail("nginx", "one stream was cut")
    measured.fail("nginx", "something later")
    assert figures_of(measured)["plain_c64_vs_nginx"] is None
    assert measured.missing == {"nginx": "one stream was cut"}


def test_the_control_is_the_same_contender_against_itself() -> None:
    measured = Measured()
    for name, us in (("nginx", 10.0), ("nginx-again", 10.5)):
        measured.add("plain_c64", name, "request", costing(us))
    assert figures_of(measured)["control_nginx_vs_nginx"] == pytest.approx(1.05)


def test_nothing_measured_is_null_everywhere_and_never_zero() -> None:
    assert set(figures_of(Measured()).values()) == {None}


def test_a_figure_that_was_not_measured_has_not_met_its_goal() -> None:
    assert verdict("rest_mb", 59.0).endswith("met")
    assert verdict("rest_mb", 61.0).endswith("MISSED")
    assert verdict("rest_mb", None).endswith("not measured")


def test_the_table_leaves_out_who_has_no_figures() -> None:
    measured = Measured()
    for name in (OURS, "nginx", "litellm"):
        measured.add("plain_c64", name, "request", costing(20.0))
    measured.fail("litellm", "not to be had")
    rows = table(measured, {"plain_c64": "request"}, (OURS, "nginx", "litellm"))
    assert [row.split()[:2] for row in rows[1:]] == [["plain_c64", OURS], ["plain_c64", "nginx"]]
