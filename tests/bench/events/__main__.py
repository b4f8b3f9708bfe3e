"""`just bench-events`: the event log beside the `eventsourcing` library on Postgres, both on disks that are waited for.

Prints each figure with its goal, and all of them as one JSON object on the last line. Ratios are against a baseline of
the same run; nothing is asserted here, a figure that misses its goal says so. `--quick` is bounded for CI: a hundred
thousand events instead of a million.
"""

import argparse
import asyncio
import json
import logging
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import structlog
import uvloop

from tests.bench.events import appends, commands, growth, projecting, visible
from tests.bench.events.ground import FULL, QUICK, Scale

GOALS: Mapping[str, tuple[str, float]] = {
    "append_1_vs_library": (">=", 2.0),
    "append_64_vs_library": (">=", 1.2),
    "append_64_r3_vs_library": (">=", 5.0),
    "cached_command_p50_vs_library": ("<=", 0.5),
    "projection_vs_library": (">=", 15.0),
    "rebuild_events_per_s": (">=", 50_000.0),
    "ryw_p95_ms": ("<=", 5.0),
    "ryw_vs_library": (">=", 20.0),
    "growth_1k_to_1m": ("<=", 1.3),
}
PART_S = 600
PARTS: Mapping[str, Callable[[Path, Scale], Awaitable[dict[str, float]]]] = {
    "append": appends.measure,
    "command": commands.measure,
    "projection": projecting.measure,
    "visible": visible.measure,
    "growth": growth.measure,
    "rebuild": projecting.measure_rebuild,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="just bench-events", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the events, fewer rounds")
    parser.add_argument("--only", choices=tuple(PARTS), action="append", help="one part; may be repeated")
    arguments = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    figures = uvloop.run(_measure(arguments.only or tuple(PARTS), QUICK if arguments.quick else FULL))
    shown = {name: round(value, 3) for name, value in figures.items()}
    print(json.dumps({"quick": arguments.quick, **shown}))


async def _measure(parts: Sequence[str], scale: Scale) -> dict[str, float]:
    figures: dict[str, float] = {}
    for part in parts:
        began = time.perf_counter()
        with tempfile.TemporaryDirectory(prefix="inventiv-bench-", ignore_cleanup_errors=True) as name:
            async with asyncio.timeout(PART_S):
                found = await PARTS[part](_walkable(name), scale)
        _show(part, found, time.perf_counter() - began)
        figures |= found
    return figures


def _walkable(name: str) -> Path:
    """Postgres may run as another user and must be able to walk in."""
    folder = Path(name)
    folder.chmod(0o755)
    return folder


def _show(part: str, figures: Mapping[str, float], took_s: float) -> None:
    print(f"--- {part} ({took_s:.0f} s)", file=sys.stderr)
    for figure, value in figures.items():
        print(_line(figure, value), flush=True)


def _line(figure: str, value: float) -> str:
    if figure not in GOALS:
        return f"{figure:44} {value:12.3f}"
    sign, goal = GOALS[figure]
    met = value >= goal if sign == ">=" else value <= goal
    return f"{figure:44} {value:12.3f}   goal {sign} {goal:g}   {'met' if met else 'MISSED'}"


if __name__ == "__main__":
    main()
