"""The role `handlers`, whole and as it is, with its calls numbered: the process that real_kills.py ends for real.

    python -m tests.simulation.real_worker CALLS [NAME NTH before|after]

    role's own doors, parking place, timers ──> Boundaries ──> a line in the file CALLS; at the NTH call NAME: SIGKILL

The surprising rule: a call is named by its name and how often it was made, not by its number alone. In real time duties
fall between other calls each time anew, and the fifth `cloud.find_server` is met again where the 57th call is not.
"""

import argparse
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args
from unittest.mock import patch

import uvloop

from handlers.ports import Doors
from infra.doors import doors_of
from infra.environment import read_environment
from infra.events.timers import Timers
from infra.parking import Parking
from infra.processes import handlers as role
from infra.telemetry import configure_logging
from tests.simulation.boundaries import Boundaries, Counted, When
from tests.simulation.control_plane import CountedClouds


class Kill(NamedTuple):
    """Before or after the `nth` call of that name, counted from 1."""

    name: str
    nth: int
    when: When


def numbered(calls: Path, kill: Kill | None) -> Boundaries:
    """Boundaries that write each call's name to a file, which outlives the process, and end it at `kill`."""
    boundaries = Boundaries(on_kill=lambda: os.kill(os.getpid(), signal.SIGKILL))
    made: Counter[str] = Counter()
    file = os.open(calls, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def hear(name: str) -> None:
        os.write(file, f"{name}\n".encode())
        made[name] += 1
        if kill is not None and (name, made[name]) == kill[:2]:
            boundaries.kill_at = (len(boundaries.names), kill.when)

    boundaries.on_call = hear
    return boundaries


def run(boundaries: Boundaries) -> None:
    """What `inventiv serve handlers` runs; only what it builds its ports with is wrapped."""
    environment = read_environment()
    configure_logging(role.ROLE, environment.log_format)

    def counted_doors(*args: Any) -> Doors:
        doors = doors_of(*args)
        return replace(
            doors,
            dispatch=Counted(doors.dispatch, "dispatch", boundaries),
            clouds=CountedClouds(doors.clouds, boundaries),
            shell=Counted(doors.shell, "shell", boundaries),
        )

    def counted(make: Callable[..., object], name: str) -> Callable[..., Counted]:
        return lambda *args: Counted(make(*args), name, boundaries)

    parking, timers = counted(Parking, "parking"), counted(Timers, "timers")
    with patch.multiple(role, doors_of=counted_doors, Parking=parking, Timers=timers):
        uvloop.run(role.run(environment))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("calls", type=Path)
    parser.add_argument("name", nargs="?")
    parser.add_argument("nth", nargs="?", type=int)
    parser.add_argument("when", nargs="?", choices=get_args(When))
    asked = parser.parse_args()
    run(numbered(asked.calls, Kill(asked.name, asked.nth, asked.when) if asked.name else None))


if __name__ == "__main__":
    main()
