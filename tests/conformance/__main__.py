"""`just conformance-events`: the `eventsourcing` library's own test cases on our persistence module, 1 node and 3.

Then its recorders in memory as the oracle of ours: random operations, equal answers. Prints a line for each case, and
on the last line one JSON object. Exit code 1 when anything failed.
"""

import argparse
import contextlib
import io
import json
import logging
import sys
import time
import warnings

import structlog
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.conformance.cases import PLACE, bound_cases, failures_of, title
from tests.conformance.machine import RecorderMachine
from tests.conformance.servers import servers

PLACES = {1: "one_node", 3: "three_nodes"}
EXAMPLES = 100
STEPS_AN_EXAMPLE = 40


def main() -> int:
    parser = argparse.ArgumentParser(prog="just conformance-events", description=__doc__)
    parser.add_argument("--examples", type=int, default=EXAMPLES, help="histories that the oracle judges, per place")
    examples: int = parser.parse_args().examples
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    figures: dict[str, int] = {}
    agreed = True
    for nodes, place in PLACES.items():
        with servers(nodes) as url:
            PLACE.url, PLACE.replicas = url, nodes
            figures |= run_cases(place)
            agreed &= run_oracle(place, examples)
    figures["state_machine_steps"] = RecorderMachine.steps
    failed = not agreed or any(figures[f"passed_{place}"] < figures[f"cases_{place}"] for place in PLACES.values())
    print(json.dumps({**figures, "state_machine_agreed": agreed}))
    return 1 if failed else 0


def run_cases(place: str) -> dict[str, int]:
    cases = bound_cases()
    passed = 0
    for case in cases:
        began = time.monotonic()
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():  # the cases print and warn
            warnings.simplefilter("always")
            failures = failures_of(case)
        passed += not failures
        print(f"{place:12} {'FAILED' if failures else 'passed'} {time.monotonic() - began:6.2f} s  {title(case)}")
        for failure in failures:
            print(failure, file=sys.stderr)
    return {f"cases_{place}": len(cases), f"passed_{place}": passed}


def run_oracle(place: str, examples: int) -> bool:
    before, began = RecorderMachine.steps, time.monotonic()
    judged = settings(
        max_examples=examples,
        stateful_step_count=STEPS_AN_EXAMPLE,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    try:
        run_state_machine_as_test(RecorderMachine, settings=judged)
    except Exception as error:  # noqa: BLE001 - whatever it was, it is reported as a disagreement
        print(f"{place:12} FAILED  the oracle disagrees: {error!r}", file=sys.stderr)
        return False
    steps = RecorderMachine.steps - before
    print(f"{place:12} passed {time.monotonic() - began:6.2f} s  {steps} random steps answered as by the library")
    return True


if __name__ == "__main__":
    sys.exit(main())
