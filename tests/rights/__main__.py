"""`just rights-matrix`: the matrix with both walls, with each of them alone, and, as the control, with none.

The last line is one JSON object. It ends with 1 if anything leaks behind a wall, if an answer is not what the table of
permissions says, if a route has no example, or if the control finds nothing: then the matrix would not see a leak.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import structlog

from infra.embedded.postgres import EmbeddedPostgres
from tests.conftest import some_port, started
from tests.rights.examples import without_example
from tests.rights.matrix import Verdict, run
from tests.rights.plant import plant
from tests.rights.slice import SLICE
from tests.rights.walls import Walls
from tests.web.world import World, a_world
from web.declared import api_routes

SHOWN_FINDINGS = 40
RUNS = (Walls(), Walls(code=False), Walls(rows=False), Walls(code=False, rows=False))


@asynccontextmanager
async def a_world_of_our_own() -> AsyncIterator[World]:
    with tempfile.TemporaryDirectory(prefix="inventiv-rights-") as name:
        folder = _walkable(Path(name))
        server = await started(lambda: EmbeddedPostgres(folder / "postgres", some_port()))
        try:
            async with a_world(server.url, folder) as world:
                yield world
        finally:
            await server.stop()


def _walkable(folder: Path) -> Path:
    """Postgres's unprivileged account walks through it."""
    folder.chmod(0o711)
    return folder


async def measure(*, quick: bool) -> dict[str, int]:
    async with a_world_of_our_own() as world:
        if missing := without_example(api_routes(world.app)):
            sys.exit("tests/rights/examples.py has no example for: " + ", ".join(missing))
        planted = await plant(world)
        verdicts = []
        for walls in RUNS:
            began = time.monotonic()
            verdict = await run(world, planted, walls, routes=SLICE if quick else ())
            _tell(verdict, time.monotonic() - began)
            verdicts.append(verdict)
    both, rows, code, none = verdicts
    return {
        "cells": both.cells,
        "leaks": len(both.leaks),
        "leaks_rls_only": len(rows.leaks),
        "leaks_code_only": len(code.leaks),
        "leaks_no_walls": len(none.leaks),
        "wrong_answers": len(both.wrong) + len(code.wrong),
    }


def _tell(verdict: Verdict, took_s: float) -> None:
    wrong = verdict.wrong if verdict.walls.code else []  # without the code's conditions, rows of colleagues mix
    print(
        f"{verdict.walls.name}: {verdict.cells} cells, {len(verdict.leaks)} leaks, {len(wrong)} wrong, {took_s:.0f} s"
    )
    if verdict.walls.code or verdict.walls.rows:
        for finding in [*wrong, *verdict.leaks][:SHOWN_FINDINGS]:
            print(f"  {finding}")
    else:
        print(f"  the control: without walls, {len(verdict.leaking_routes)} routes leak")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.rights", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a slice of the routes, every principal")
    asked = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    figures = asyncio.run(measure(quick=asked.quick))
    print(json.dumps(figures))
    bad = figures["leaks"] + figures["leaks_rls_only"] + figures["leaks_code_only"] + figures["wrong_answers"]
    return 0 if not bad and figures["leaks_no_walls"] else 1


if __name__ == "__main__":
    sys.exit(main())
