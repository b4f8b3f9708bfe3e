"""Every fault that we can produce: `just chaos-events` (`--quick`: under four minutes). One JSON object comes last.

    kill       the leader of EVENTS is killed -9 under sixteen writers
    workers    handlers are killed -9 while they act on the world
    power      the power of all servers is cut (needs root and a loop device)
    wipe       either store is deleted, and rebuilt from the other
    mutations  rows of the audit log are altered

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
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import structlog

from tests.chaos import kill, mutations, power_cut, wipe, workers

Figures = Mapping[str, int | None]

PARTS: Mapping[str, tuple[Callable[[Path], Awaitable[Figures]], Callable[[Path], Awaitable[Figures]]]] = {
    "kill": (kill.measure, lambda folder: kill.measure(folder, kills=3, control_kills=1, acked_between=400)),
    "workers": (workers.measure, lambda folder: workers.measure(folder, events=600, aggregates=60, kills=4)),
    "power": (power_cut.measure, lambda folder: power_cut.measure(folder, cuts=2, cluster_cuts=1, control_cuts=1)),
    "wipe": (wipe.measure, lambda folder: wipe.measure(folder, lives=50, usage_records=200)),
    "mutations": (mutations.measure, lambda folder: mutations.measure(folder, mutations=100, rows=500)),
}
"""Part -> (whole, quick)."""

BROKEN_PROMISES = (
    "lost",
    "duplicated",
    "out_of_order",
    "effects_duplicated",
    "effects_out_of_order",
    "effects_missing",
    "power_cut_lost",
    "power_cut_duplicated",
    "power_cut_out_of_order",
    "wipe_differences",
    "mutations_missed",
    "mutations_false_alarms",
    "mutations_control_detected",
)
"""Must be 0."""
CONTROLS = (
    "kill_control_violations",
    "worker_control_violations",
    "power_cut_control_lost",
    "wipe_control_differences",
)
"""Must not be 0."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="just chaos-events", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer faults of each kind: under four minutes")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part alone; may be repeated")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    figures: dict[str, int | None] = {}
    for name in arguments.only or PARTS:
        figures |= _figures_of(name, quick=arguments.quick)
    figures = summed(figures)
    findings = verdict(figures)
    for finding in findings:
        print(finding, file=sys.stderr)
    print(json.dumps(figures))
    return 1 if findings else 0


def verdict(figures: Figures) -> list[str]:
    """What is wrong; a figure that is absent or None was not measured and says nothing."""
    broken = [f"BROKEN: {name} = {figures[name]}" for name in BROKEN_PROMISES if figures.get(name)]
    blind = [f"BLIND: {name} = 0, the control shows nothing" for name in CONTROLS if figures.get(name) == 0]
    return broken + blind


def summed(figures: Figures) -> dict[str, int | None]:
    """With what follows from several: both controls together, and the mutations that nobody noticed."""
    derived = dict(figures)
    violations = [derived[name] or 0 for name in CONTROLS[:2] if name in derived]
    if violations:
        derived["control_violations"] = sum(violations)
    if "mutations" in derived:
        derived["mutations_missed"] = (derived["mutations"] or 0) - (derived.get("mutations_detected") or 0)
    return derived


def _figures_of(name: str, *, quick: bool) -> dict[str, int | None]:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="inventiv-chaos-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # Postgres may run as another user and must be able to walk in
        place = Path(folder) / name
        place.mkdir()
        measured = asyncio.run(_measured(PARTS[name][1 if quick else 0](place)))
    print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    figures = dict(measured)
    if name == "workers":  # its control is one of two
        figures["worker_control_violations"] = figures.pop("control_violations")
    return figures


async def _measured(part: Awaitable[Figures]) -> Figures:
    return await part


if __name__ == "__main__":
    sys.exit(main())
