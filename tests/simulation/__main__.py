"""Simulates the control plane: `just simulate [SEEDS]`; the last line is one JSON object.

python -m tests.simulation 10000            seeds 1 to 10,000, then every planted bug
python -m tests.simulation 1 --from 4711    one seed again
"""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

import structlog

from tests.simulation.planted import BUGS, seeds_until_found
from tests.simulation.scene import Ending, play

SEEDS = 1_000
CHUNK = 10
SAID_EVERY = 500


def quiet() -> None:
    """The simulated control plane logs as the real one does; a thousand of them would drown the result."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def simulate(first: int, seeds: int) -> tuple[int, float, int]:
    """Plays them on every processor.

    Returns:
        (violations, age of the oldest orphan in seconds, most servers that one intent got)
    """
    violations, oldest_s, most = 0, 0.0, 0
    with ProcessPoolExecutor(initializer=quiet) as pool:
        for done, ending in enumerate(pool.map(play, range(first, first + seeds), chunksize=CHUNK), start=1):
            oldest_s = max(oldest_s, ending.oldest_orphan_s)
            most = max(most, ending.servers_per_intent_max)
            violations += len(ending.violations)
            if ending.violations:
                say(told(ending))
            if done % SAID_EVERY == 0:
                say([f"{done} of {seeds} seeds, {violations} violations"])
    return violations, oldest_s, most


def told(ending: Ending) -> Iterable[str]:
    yield f"seed {ending.seed}: again by `just simulate 1 --from {ending.seed}`"
    for violation in ending.violations:
        yield f"  {violation.rule}: {violation.words}"


def find_planted() -> list[str]:
    """Names of the planted bugs that the simulation finds."""
    found = []
    with ProcessPoolExecutor(initializer=quiet) as pool:
        for bug, seeds in zip(BUGS, pool.map(seeds_until_found, [bug.name for bug in BUGS]), strict=True):
            say([f"planted: {bug.name}: " + (f"found in seed {seeds}" if seeds else "NOT FOUND")])
            if seeds:
                found.append(bug.name)
    return found


def say(lines: Iterable[str]) -> None:
    for line in lines:
        print(line, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="?", type=int, default=SEEDS, help="how many worlds")
    parser.add_argument("--from", dest="first", type=int, default=1, help="the first seed")
    parser.add_argument("--no-planted", action="store_true", help="leave the planted bugs out")
    asked = parser.parse_args()
    quiet()
    began = time.monotonic()
    violations, oldest_s, most = simulate(asked.first, asked.seeds)
    elapsed_s = time.monotonic() - began
    looks_for_planted = not asked.no_planted and asked.seeds > 1
    found = find_planted() if looks_for_planted else []
    figures = {
        "seeds": asked.seeds,
        "violations": violations,
        "oldest_orphan_s": oldest_s,
        "servers_per_intent_max": most,
        "planted": len(BUGS),
        "planted_found": len(found),
        "seconds_per_1000": round(elapsed_s / asked.seeds * 1000, 1),
        "processors": os.cpu_count(),
    }
    print(json.dumps(figures))
    return 1 if violations or (looks_for_planted and len(found) < len(BUGS)) else 0


if __name__ == "__main__":
    sys.exit(main())
