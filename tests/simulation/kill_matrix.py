"""Ends the control plane before and after every call of a port, in every flow of a machine's life.

    count the calls of a flow ──> for each: kill before, kill after ──> restart ──> run to rest ──> check

A case is one kill in one flow. The flows cover what a provider may have done when its answer did not come: nothing,
everything, or everything ten minutes later.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from tests.simulation.boundaries import Boundaries, When
from tests.simulation.chance import Chance, Fate
from tests.simulation.scene import TYPE, ZONES, Ending, Scene
from tests.simulation.virtual_time import run_virtually

DOWN_S = 1.0
STEP_TIMEOUT_S = 3000.0
Act = Callable[[Scene], Awaitable[None]]


@dataclass(frozen=True)
class Flow:
    """A story with one machine: what the provider does to it, and what people do after it was asked for."""

    name: str
    act: Act
    fated: tuple[tuple[str, Fate], ...] = ()
    sold_out: tuple[str, ...] = ()
    seed: int = 1


async def _until(scene: Scene, *statuses: str) -> None:
    deadline = asyncio.get_running_loop().time() + STEP_TIMEOUT_S
    while asyncio.get_running_loop().time() < deadline:
        states = scene.stored.log.instances.values()
        if all(state.status in statuses for state in states):
            return
        await asyncio.sleep(1.0)


async def _ready_then_ended(scene: Scene) -> None:
    await _until(scene, "ready")
    await _end_all(scene)


async def _end_all(scene: Scene) -> None:
    for instance_id in sorted(scene.wanted):
        await scene.end(instance_id, at_once=False)
    await _until(scene, "terminated")


async def _ended_while_made(scene: Scene) -> None:
    await asyncio.sleep(4.0)
    await _end_all(scene)


async def _lost_then_ended(scene: Scene) -> None:
    """The machine goes silent for good; another takes its place."""
    await _until(scene, "ready")
    for machine in scene.provider.truth.living():
        scene.agents.deleting(machine)
    await asyncio.sleep(60.0)
    await _until(scene, "ready")
    await _end_all(scene)


async def _deleted_by_hand(scene: Scene) -> None:
    await _until(scene, "ready")
    for machine in scene.provider.truth.living():
        if machine.request.tags:
            scene.checks.by_hand(machine)
    await _until(scene, "terminated")


FLOWS: tuple[Flow, ...] = (
    Flow("lives and ends", _ready_then_ended),
    Flow("ends while it is made", _ended_while_made),
    Flow("is sold out in the first zone", _ready_then_ended, sold_out=ZONES[:1]),
    Flow("is lost and replaced", _lost_then_ended),
    Flow("is deleted by hand", _deleted_by_hand),
    Flow("create: nothing done", _ready_then_ended, (("create_server", "fails_before"),)),
    Flow("create: done, no answer", _ready_then_ended, (("create_server", "fails_after"),)),
    Flow("create: done later", _ready_then_ended, (("create_server", "late"),)),
    Flow("create: no answer, ends", _ended_while_made, (("create_server", "fails_after"),)),
    Flow("create: done later, ends", _ended_while_made, (("create_server", "late"),)),
    Flow("delete: nothing done", _ready_then_ended, (("delete_server", "fails_before"),)),
    Flow("delete: done later", _ready_then_ended, (("delete_server", "late"),)),
    Flow("volume: delete done later", _ready_then_ended, (("delete_volume", "late"),)),
)


async def _play(flow: Flow, kill_at: tuple[int, When] | None) -> Ending:
    scene = Scene(Chance(flow.seed, calm=True))
    scene.provider.fated.update(flow.fated)
    scene.provider.truth.sold_out |= {(zone, TYPE) for zone in flow.sold_out}
    boundaries = Boundaries(kill_at)
    scene.control_plane.start(boundaries)
    background = [asyncio.create_task(scene.checks.watch()), asyncio.create_task(_restart(scene, boundaries))]
    await scene.deploy(1, 1)
    await flow.act(scene)
    await scene.settle()
    for task in background:
        task.cancel()
    ending = scene.ending(flow.seed)
    ending.calls = boundaries.names
    scene.control_plane.kill()
    return ending


async def _restart(scene: Scene, boundaries: Boundaries) -> None:
    """A supervisor: what died is started again."""
    while boundaries.alive:  # noqa: ASYNC110 - as a supervisor looks
        await asyncio.sleep(0.5)
    await asyncio.sleep(DOWN_S)
    scene.control_plane.start()


def play_flow(flow: Flow, kill_at: tuple[int, When] | None = None) -> Ending:
    random.seed(flow.seed)
    return run_virtually(_play(flow, kill_at))


def cases(flow: Flow) -> Iterator[tuple[int, When]]:
    """Every kill of a flow; sweeps that find nothing to do are the same each time, so only their first calls count."""
    calls = play_flow(flow).calls
    seen: dict[str, int] = {}
    for number, name in enumerate(calls, start=1):
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= SAME_CALLS:
            yield number, "before"
            yield number, "after"


SAME_CALLS = 25
"""Calls of one name that are tried in one flow; a listing every 20 s for an hour would otherwise be most cases."""
