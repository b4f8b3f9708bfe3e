"""`just bench-gateway`: what our gateway costs beside vllm-router, nginx and LiteLLM, measured in the same run.

CPU time for each request and each streamed token, our cost divided by theirs; time to first byte added; memory. The
gateway under measurement has one core, load and fake engine another. Prints progress, a table, every figure with its
goal, and all of them as one JSON object on the last line. A figure that cannot be measured is null, with the reason in
`missing`. Exit code 1 when our own gateway failed, 2 when the harness cannot run here.
"""

import argparse
import asyncio
import json
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from tests.bench.gateway.contenders import LAUNCHES
from tests.bench.gateway.figures import OURS, Measured, figures_of, table, verdict
from tests.bench.gateway.measuring import PARTS, Plan, measure, profiled, quick
from tests.bench.gateway.processes import alone
from tests.bench.gateway.scenarios import COSTS
from tests.bench.gateway.toolbox import ROOT, MissingError, make_folder

ALL_PARTS = (*PARTS, "choice")
HARNESS_UNFIT = 2


class Words:
    """Reads `one,two`; each must be known. The empty word means none."""

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def __call__(self, text: str) -> Sequence[str]:
        words = [word for word in text.split(",") if word]
        for word in words:
            if word not in self._known:
                raise argparse.ArgumentTypeError(f"{word!r} is none of {', '.join(self._known)}")
        return words


def main() -> int:
    arguments = _arguments()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    plan = Plan(
        contenders=arguments.contenders,
        costs={name: COSTS[name] for name in arguments.scenarios},
        parts=arguments.parts,
        variables={"PYTHONPATH": str(Path(arguments.source).resolve())},
        python=Path(arguments.python) if arguments.python else None,
    )
    if arguments.quick:
        plan = quick(plan)
    if arguments.profile:
        plan = profiled(plan, Path(arguments.profile).resolve())
    began_s = time.monotonic()
    try:
        with alone(make_folder() / "lock", _say):
            measured = asyncio.run(measure(plan, _say))
    except (MissingError, RuntimeError) as error:
        _say(f"✗ {error}")
        return HARNESS_UNFIT
    _say(f"took {time.monotonic() - began_s:.0f} s")
    _print(measured, plan, as_json=arguments.json)
    return 1 if any(name.startswith(OURS) for name in measured.missing) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="just bench-gateway", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one repeat, shorter windows, LiteLLM only if prepared")
    parser.add_argument("--json", action="store_true", help="nothing on standard output but the JSON object")
    parser.add_argument("--contenders", type=Words(tuple(LAUNCHES)), default=tuple(LAUNCHES), help="besides ours")
    parser.add_argument("--scenarios", type=Words(tuple(COSTS)), default=tuple(COSTS))
    parser.add_argument("--parts", type=Words(ALL_PARTS), default=ALL_PARTS)
    parser.add_argument("--profile", metavar="FILE", help="ours alone; which of its functions took the time")
    parser.add_argument("--source", default=ROOT, help="another checkout, whose gateway is measured instead")
    parser.add_argument("--python", help="an interpreter for our gateway, e.g. an optimised build: /usr/bin/python3")
    return parser.parse_args()


def _print(measured: Measured, plan: Plan, *, as_json: bool) -> None:
    figures = figures_of(measured)
    if not as_json:
        units = {name: scenario.per for name, scenario in plan.costs.items()}
        print("\n".join(table(measured, units, [OURS, *plan.contenders])), end="\n\n")
        for name, value in figures.items():
            shown = f"{value:12.4f}" if value is not None else f"{'-':>12}"
            print(f"{name:28} {shown}   {verdict(name, value)}".rstrip())
        for name, reason in measured.missing.items():
            print(f"\n✗ {name} was not measured: {reason}")
    rounded = {name: value if value is None else round(value, 5) for name, value in figures.items()}
    print(json.dumps({**rounded, "repeats": plan.repeats, "missing": measured.missing}), flush=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
