"""`just bench`: prints each figure with its goal, and all of them as one JSON object on the last line.

Ratios are against a baseline of the same run. Seconds depend on the machine: the goals are for two cores. Nothing is
asserted here; a figure that misses its goal says so.
"""

import argparse
import asyncio
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import structlog

from tests.bench import append, journeys

GOALS: Mapping[str, tuple[str, float]] = {
    "append_vs_publish": (">=", 0.9),
    "cached_command_vs_publish": ("<=", 3.0),
    "warm_up_s": ("<=", 5.0),
    "deploy_to_first_token_s": ("<=", 10.0),
    "visible_p95_ms": ("<=", 20.0),
    "clone_to_card_s": ("<=", 30.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="just bench", description=__doc__)
    parser.add_argument("--offline", action="store_true", help="leave out clone_to_card_s, which downloads packages")
    offline: bool = parser.parse_args().offline
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="inventiv-bench-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # Postgres may run as another user and must be able to walk in
        figures |= asyncio.run(append.measure(folder / "nats"))
        figures |= journeys.warm(folder / "warm")
        if not offline:
            (folder / "cold").mkdir()
            figures["clone_to_card_s"] = journeys.cold_clone(folder / "cold")
    for figure, value in figures.items():
        print(_line(figure, value))
    print(json.dumps({figure: round(value, 3) for figure, value in figures.items()}))


def _line(figure: str, value: float) -> str:
    if figure not in GOALS:
        return f"{figure:28} {value:9.3f}"
    sign, goal = GOALS[figure]
    met = value >= goal if sign == ">=" else value <= goal
    return f"{figure:28} {value:9.3f}   goal {sign} {goal:g}   {'met' if met else 'MISSED'}"


if __name__ == "__main__":
    main()
