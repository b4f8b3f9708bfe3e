"""From what was counted to what is told: costs, medians, ratios and their goals. Pure.

    Outcome of a run ──cost_us──> us of CPU per request or token ──median of the repeats──> ratio ──> figure, goal, row

The surprising rule: a contender that failed has no cost. One error, one stream that was cut, and its figure is null
with the reason beside it, for an answer that is wrong costs nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

import msgspec

Per = Literal["request", "token"]


class Outcome(msgspec.Struct, frozen=True):
    """What load.c counted; names as it prints them. `answered`, `errors` and `unfinished` are of the whole run."""

    answered: int
    errors: int
    unfinished: int
    tokens: int
    usage_shown: int
    window_ns: int
    window_requests: int
    window_tokens: int
    cpu_ns: int
    first_byte_us_p50: float
    first_byte_us_p99: float
    latency_us_p50: float
    latency_us_p99: float
    transit_us_p50: float
    transit_us_p99: float
    first_error: str


GOALS: Mapping[str, float] = {
    "plain_c64_vs_vllm_router": 0.5,
    "plain_c64_vs_nginx": 3.0,
    "plain_c64_vs_litellm": 1 / 200,
    "stream_64_vs_vllm_router": 1.0,
    "stream_256_vs_vllm_router": 1.0,
    "flood_vs_vllm_router": 0.5,
    "ttfb_added_p50_ms": 0.3,
    "ttfb_added_p99_ms": 2.0,
    "rest_mb": 60.0,
    "kb_per_stream": 20.0,
    "choice_1000_us": 50.0,
}
"""Issue 5; each is met at or below."""
RATIOS: Mapping[str, tuple[str, str]] = {
    "plain_c64_vs_vllm_router": ("plain_c64", "vllm-router"),
    "plain_c64_vs_nginx": ("plain_c64", "nginx"),
    "plain_c64_vs_litellm": ("plain_c64", "litellm"),
    "stream_64_vs_vllm_router": ("stream_64", "vllm-router"),
    "stream_256_vs_vllm_router": ("stream_256", "vllm-router"),
    "flood_vs_vllm_router": ("flood", "vllm-router"),
}
"""Figure -> the scenario and whom our cost is divided by."""
OURS = "ours"
CONTROL: tuple[str, str, str] = ("plain_c64", "nginx-again", "nginx")


def failure_of(outcome: Outcome) -> str:
    """Why this run proves nothing; "" when every request was answered, whole."""
    if outcome.errors or outcome.unfinished:
        bad = outcome.errors + outcome.unfinished
        return f"{bad} of {outcome.answered + bad} requests failed: {outcome.first_error or 'unfinished'}"
    if not outcome.window_requests and not outcome.window_tokens:
        return "nothing was answered within the window"
    if not outcome.cpu_ns:
        return "its processes ended while they were measured"
    return ""


def cost_us(outcome: Outcome, per: Per) -> float:
    """CPU time of the gateway for one request, or one token of a stream."""
    return outcome.cpu_ns / 1000 / (outcome.window_requests if per == "request" else outcome.window_tokens)


@dataclass
class Measured:
    """All that was measured, as it comes in.

    Attributes:
        costs: (scenario, contender) -> us per request or token, one for each repeat.
        transits: likewise, median microseconds that a token was on its way.
        rates: likewise, requests or tokens a second.
        missing: contender -> why there are no figures of it.
        others: figures that are no ratio, one for each repeat.
    """

    costs: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    transits: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    rates: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    others: dict[str, list[float]] = field(default_factory=dict)

    def add(self, scenario: str, contender: str, per: Per, outcome: Outcome, us: float | None = None) -> None:
        """One run; `us` is its cost when that is known better than from the outcome."""
        place = scenario, contender
        answered = outcome.window_requests if per == "request" else outcome.window_tokens
        self.costs.setdefault(place, []).append(cost_us(outcome, per) if us is None else us)
        self.rates.setdefault(place, []).append(answered / (outcome.window_ns / 1e9))
        self.transits.setdefault(place, []).append(outcome.transit_us_p50 if per == "token" else 0.0)

    def note(self, figure: str, value: float) -> None:
        self.others.setdefault(figure, []).append(value)

    def fail(self, contender: str, reason: str) -> None:
        """Nothing of it counts from now on; the first reason stays."""
        self.missing.setdefault(contender, reason)

    def cost(self, scenario: str, contender: str) -> float | None:
        """Median of the repeats; None without one."""
        found = self.costs.get((scenario, contender))
        return median(found) if found and contender not in self.missing else None

    def ratio(self, scenario: str, one: str, other: str) -> float | None:
        """Of the medians; None unless both were measured."""
        above, below = self.cost(scenario, one), self.cost(scenario, other)
        return above / below if above is not None and below else None


def figures_of(measured: Measured) -> dict[str, float | None]:
    """Every figure by its name; None for what could not be measured."""
    scenario, one, other = CONTROL
    medians = {name: median(values) for name, values in measured.others.items()}
    found: dict[str, float | None] = {
        **{name: measured.ratio(scenario, OURS, other) for name, (scenario, other) in RATIOS.items()},
        **{name: medians.get(name) for name in GOALS if name not in RATIOS},
        "control_nginx_vs_nginx": measured.ratio(scenario, one, other),
        **medians,
    }
    ours_to_litellm = found["plain_c64_vs_litellm"]
    found["litellm_vs_plain_c64"] = 1 / ours_to_litellm if ours_to_litellm else None
    return found


def verdict(figure: str, value: float | None) -> str:
    """For a reader: met, MISSED or not measured, and the goal; "" for a figure without one."""
    if figure not in GOALS:
        return "" if value is not None else "not measured"
    goal = f"goal <= {GOALS[figure]:g}"
    if value is None:
        return f"{goal}   not measured"
    return f"{goal}   {'met' if value <= GOALS[figure] else 'MISSED'}"


def table(measured: Measured, units: Mapping[str, Per], contenders: Sequence[str]) -> list[str]:
    """One row for each contender in each scenario: its cost, the ratio to ours, and how much it did."""
    rows = [
        f"{'scenario':12} {'contender':14} {'CPU us':>10} {'ours / it':>10} {'per second':>12} {'transit p50 us':>15}"
    ]
    for scenario, per in units.items():
        for contender in contenders:
            cost = measured.cost(scenario, contender)
            if cost is None:
                continue
            place = scenario, contender
            ratio = measured.ratio(scenario, OURS, contender)
            told = f"{ratio:10.4f}" if ratio is not None else f"{'-':>10}"
            transit = f"{median(measured.transits[place]):15.0f}" if per == "token" else f"{'-':>15}"
            rows.append(
                f"{scenario:12} {contender:14} {cost:10.2f} {told} {median(measured.rates[place]):10.0f}/s {transit}"
            )
    return rows
