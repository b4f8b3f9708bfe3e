"""A sample of the kill matrix with a real `kill -9`: real processes, real NATS and Postgres, a cloud over real HTTP.

    count the calls, in every lane ──> kills spread over them ──> one case after the other, in LANES lanes ──> figures
                                                                  last: the control, in which nobody starts it again

The simulated Scaleway is SPEED times as fast as the real one; everything else takes its own time. The surprising rule:
only calls that every counting run made are killed at, so that in each case the kill does happen.
"""

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.simulated_clouds.scaleway.running import SimulatedScaleway, simulated_scaleway
from tests.simulation.boundaries import When
from tests.simulation.real_case import RealCase, play
from tests.simulation.real_platform import Lane, running_lane
from tests.simulation.real_worker import Kill

SPEED = 60.0
LIST_LAG_S = 3.0
"""Of the simulated Scaleway's time."""
LANES = 4
"""Cases at once: each waits most of its time."""
CASES, QUICK_CASES = 12, 4
SIDES: tuple[When, When] = ("before", "after")
CONTROL = Kill("cloud.create_server", 1, "after")
"""Nobody starts the handlers again, so this server is billed for ever."""


@dataclass(frozen=True)
class Stage:
    """Where cases are played: lanes, and the cloud that they share."""

    scaleway: SimulatedScaleway
    lanes: Sequence[Lane]


@asynccontextmanager
async def running_stage(lanes: int) -> AsyncIterator[Stage]:
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_folder())
        scaleway = await stack.enter_async_context(simulated_scaleway(speed=SPEED))
        scaleway.cloud.list_lag_s = LIST_LAG_S
        opening = [running_lane(folder / f"lane{number}", scaleway.url) for number in range(lanes)]
        yield Stage(scaleway, [await stack.enter_async_context(lane) for lane in opening])


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="inventiv-") as folder:
        Path(folder).chmod(0o711)  # Postgres's own account walks through it
        yield Path(folder)


def sample_of(counted: Iterable[Sequence[str]], cases: int, seed: int) -> list[Kill]:
    """Kills spread evenly over the calls of a run, in turns before and after them.

    Args:
        counted: calls of the counting runs; only those that all of them made count.
    """
    runs = list(counted)
    common = Counter(runs[0])
    for run in runs[1:]:
        common &= Counter(run)
    made: Counter[str] = Counter()
    calls: list[tuple[str, int]] = []
    for name in runs[0]:
        made[name] += 1
        if made[name] <= common[name]:
            calls.append((name, made[name]))
    chance = random.Random(seed)
    picked = [calls[int(len(calls) * (part + chance.random()) / cases)] for part in range(cases)]
    return [Kill(*call, SIDES[part % 2]) for part, call in enumerate(picked)]


@dataclass
class Sample:
    """What the cases came to; `boundaries` is how many calls they were chosen from."""

    cases: list[RealCase]
    control: RealCase
    boundaries: int
    seconds: float

    def figures(self) -> dict[str, int | float]:
        return {
            "real_cases": len(self.cases),
            "real_kills": sum(case.killed for case in self.cases),
            "real_boundaries": self.boundaries,
            "real_orphans": sum(len(case.left) for case in self.cases),
            "real_wrong_deletes": sum(len(case.wrong_deletes) for case in self.cases),
            "real_stuck": sum(bool(case.stuck) for case in self.cases),
            "real_faults": sum(len(case.faults) for case in self.cases),
            "real_servers_per_intent_max": max(case.servers_per_intent for case in self.cases),
            "real_seconds": self.seconds,
            "real_control_left": len(self.control.left),
        }

    @property
    def is_good(self) -> bool:
        return not any(case.violations for case in self.cases) and self.is_proof

    @property
    def is_proof(self) -> bool:
        """Every kill happened, every case had its server, and the control left one."""
        return all(case.killed and case.servers_per_intent for case in self.cases) and bool(self.control.left)


async def play_sample(cases: int, seed: int, say: Callable[[list[str]], None], lanes: int = LANES) -> Sample:
    """Counts, plays and judges; `say` hears of each case when it is over."""
    began = time.monotonic()
    async with running_stage(lanes) as stage:
        counted = await _counted(stage)
        waiting = iter(sample_of(counted, cases, seed))  # the first ones last longest: a cut creation has to settle
        played: list[RealCase] = []

        async def work_off(lane: Lane) -> None:
            for kill in waiting:
                case_began = time.monotonic()
                case = await play(lane, stage.scaleway, kill)
                played.append(case)
                took_s = time.monotonic() - case_began
                say([f"kill -9 {kill.when} {kill.name} no. {kill.nth}: {_told(case)} ({took_s:.0f} s)"])

        async with asyncio.TaskGroup() as group:
            for lane in stage.lanes:
                group.create_task(work_off(lane))
        control = await play(stage.lanes[0], stage.scaleway, CONTROL, stops="killed", restarts=False)
    boundaries = min(len(calls) for calls in counted)
    return Sample(played, control, boundaries, round(time.monotonic() - began, 1))


async def _counted(stage: Stage) -> list[list[str]]:
    """The calls of one run in each lane. Raises RuntimeError: a case without a kill went wrong."""
    async with asyncio.TaskGroup() as group:
        runs = [group.create_task(play(lane, stage.scaleway, None)) for lane in stage.lanes]
    for case in (run.result() for run in runs):
        if case.violations:
            raise RuntimeError(f"nobody was killed, and yet: {case.violations}")
    return [run.result().calls for run in runs]


def _told(case: RealCase) -> str:
    servers = f"with {case.servers} servers" if case.servers > 1 else "with its server"
    return "; ".join(case.violations) or (f"survived {servers}" if case.killed else "was not killed")
