"""What the gateway promises when things break: `just chaos-gateway` (`--quick`: under four minutes).

    accounts     1,000 streams, cut by their clients, by kill -9 of the gateway, by kill -9 of the engines
    rolling      the gateway is replaced twice under streams and new requests
    outage       NATS and Postgres are frozen, killed and away for a minute under load
    workers      a worker dies under load while another lives
    revocation   keys are revoked under load
    fairness     one tenant floods
    slow_readers fifty clients read a byte a second

Each proof has a control that leaves out what it proves; a control that shows nothing fails the run like a promise that
is broken, since then the proof proves nothing.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import structlog

from tests.chaos.gateway import cuts, dying_workers, fairness, outage, revocation, rolling, slow_readers

Figures = Mapping[str, float | None]
Measure = Callable[[Path], Coroutine[Any, Any, Figures]]

PARTS: Mapping[str, tuple[Measure, Measure]] = {
    "accounts": (
        cuts.measure,
        lambda folder: cuts.measure(folder, leaving=60, gateway_groups=2, worker_groups=1, group=30),
    ),
    "rolling": (rolling.measure, lambda folder: rolling.measure(folder, streams=10, requests=500)),
    "outage": (outage.measure, lambda folder: outage.measure(folder, outage_s=8.0)),
    "workers": (dying_workers.measure, lambda folder: dying_workers.measure(folder, kills=2)),
    "revocation": (revocation.measure, lambda folder: revocation.measure(folder, keys=10)),
    "fairness": (fairness.measure, lambda folder: fairness.measure(folder, runs=1, run_s=10.0)),
    "slow_readers": (slow_readers.measure, lambda folder: slow_readers.measure(folder, runs=3, run_s=3.0)),
}
"""Part -> (whole, quick)."""

BROKEN_PROMISES = (
    "unbooked",
    "double_booked",
    "token_difference_client_left",
    "token_difference_gateway_killed",
    "tokens_booked_beyond_engine",
    "tokens_delivered_unbooked",
    "tolerance_exceeded",
    "failed_requests",
    "broken_streams",
    "lost_usage",
    "other_token_difference",
    "usage_table_difference",
)
"""Must be 0."""
LIMITS: Mapping[str, float] = {
    "fairness_p99_ratio": 1.5,
    "slow_readers_p99_ratio": 1.1,
    "slow_readers_mb": 50.0,
    "outage_caught_up_s": 30.0,
    "revocation_s": 1.0,
}
"""Must not be more."""
CONTROLS: Mapping[str, float] = {
    "accounts_control_unbooked": 0,
    "rolling_control_failed": 0,
    "outage_control_lost": 0,
    "workers_control_failed": 0,
    "fairness_control_ratio": 3.0,
    "slow_readers_control_mb": 50.0,
}
"""Must be more."""
SUMS: Mapping[str, tuple[str, ...]] = {
    "failed_requests": ("rolling_failed_requests", "outage_failed_requests", "workers_failed_requests"),
    "broken_streams": ("rolling_broken_streams", "revocation_failed_streams"),
    "unbooked": ("accounts_unbooked", "rolling_unbooked", "workers_unbooked"),
    "double_booked": (
        "accounts_double_booked",
        "rolling_double_booked",
        "outage_double_booked",
        "workers_double_booked",
    ),
    "other_token_difference": ("rolling_token_difference", "outage_token_difference"),
}
"""Figures of the whole run, each from those of several parts."""
ONLY_QUICK = frozenset({"slow_readers_p99_ratio"})
"""Of a few seconds; on a machine that others use too, a p99 of so few answers moves by more than its limit."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="just chaos-gateway", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer faults of each kind: under four minutes")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part alone; may be repeated")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    figures: dict[str, float | None] = {}
    for name in arguments.only or PARTS:
        figures |= _figures_of(name, quick=arguments.quick)
    figures = summed(figures)
    findings = verdict(figures, lenient=ONLY_QUICK if arguments.quick else frozenset())
    for finding in findings:
        print(finding, file=sys.stderr)
    print(json.dumps(figures))
    return 1 if findings else 0


def verdict(figures: Figures, *, lenient: frozenset[str] = frozenset()) -> list[str]:
    """What is wrong; a figure that is absent or None was not measured and says nothing.

    Args:
        figures: as `summed` gives them.
        lenient: names from LIMITS that are printed only.
    """
    measured = {name: value for name, value in figures.items() if value is not None}
    broken = [f"BROKEN: {name} = {measured[name]:g}" for name in BROKEN_PROMISES if measured.get(name)]
    broken += [
        f"BROKEN: {name} = {measured[name]:g}, more than {limit:g}"
        for name, limit in LIMITS.items()
        if name not in lenient and measured.get(name, 0) > limit
    ]
    blind = [
        f"BLIND: {name} = {measured[name]:g}, the control shows nothing"
        for name, least in CONTROLS.items()
        if name in measured and measured[name] <= least
    ]
    return broken + blind


def summed(figures: Figures) -> dict[str, float | None]:
    """With what follows from several parts, of those that were played."""
    derived = dict(figures)
    for name, parts in SUMS.items():
        values = [value for part in parts if (value := figures.get(part)) is not None]
        if values:
            derived[name] = sum(values)
    return derived


def _figures_of(name: str, *, quick: bool) -> Figures:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="inventiv-chaos-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # Postgres may run as another user and must be able to walk in
        place = Path(folder) / name
        place.mkdir()
        figures = asyncio.run(PARTS[name][1 if quick else 0](place))
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return figures


if __name__ == "__main__":
    sys.exit(main())
