"""Kills the control plane at every boundary: `just kill-matrix`; the last line is one JSON object.

First in virtual time, every case of every flow; then a sample of them for real, with `kill -9` (real_kills.py).
"""

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.__main__ import quiet, say
from tests.simulation.boundaries import When
from tests.simulation.kill_matrix import FLOWS, cases, play_flow
from tests.simulation.real_kills import CASES, QUICK_CASES, play_sample
from tests.simulation.scene import Ending

CHUNK = 10
QUICK_EVERY = 7
"""--quick plays every n-th case; n shares no factor with the pair (before, after)."""


def play_case(case: tuple[int, tuple[int, When]]) -> tuple[int, tuple[int, When], Ending]:
    flow, kill_at = case
    return flow, kill_at, play_flow(FLOWS[flow], kill_at)


def play_matrix(*, quick: bool) -> tuple[dict[str, int | float], bool]:
    """In virtual time, on every processor.

    Returns:
        (figures, whether nothing was wrong)
    """
    began = time.monotonic()
    todo = [(number, kill_at) for number, flow in enumerate(FLOWS) for kill_at in cases(flow)]
    if quick:
        todo = todo[::QUICK_EVERY]
    rules: Counter[str] = Counter()
    oldest_s, most = 0.0, 0
    with ProcessPoolExecutor(initializer=quiet) as pool:
        for flow, (number, when), ending in pool.map(play_case, todo, chunksize=CHUNK):
            oldest_s, most = max(oldest_s, ending.oldest_orphan_s), max(most, ending.servers_per_intent_max)
            rules.update(violation.rule for violation in ending.violations)
            for violation in ending.violations:
                name = ending.calls[number - 1] if number <= len(ending.calls) else "?"
                say([f"{FLOWS[flow].name}, killed {when} call {number} {name}: {violation.rule}: {violation.words}"])
    is_good = not rules and most <= 1
    figures: dict[str, int | float] = {
        "cases": len(todo),
        "flows": len(FLOWS),
        "orphans": rules.pop("orphans", 0) + rules.pop("leftover_volumes", 0),
        "wrong_deletes": rules.pop("wrong_deletes", 0),
        "stuck": rules.pop("stuck", 0),
        "servers_per_intent_max": most,
        "other_violations": rules.total(),
        "oldest_orphan_s": oldest_s,
        "seconds": round(time.monotonic() - began, 1),
    }
    return figures, is_good


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help=f"every {QUICK_EVERY}th case, and {QUICK_CASES} for real")
    parser.add_argument("--no-real", action="store_true", help="leave the real kills out")
    parser.add_argument("--seed", type=int, default=1, help="chooses the real kills")
    asked = parser.parse_args()
    quiet()
    figures, is_good = play_matrix(quick=asked.quick)
    if not asked.no_real:
        sample = asyncio.run(play_sample(QUICK_CASES if asked.quick else CASES, asked.seed, say))
        figures |= sample.figures()
        is_good = is_good and sample.is_good
    print(json.dumps(figures))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
