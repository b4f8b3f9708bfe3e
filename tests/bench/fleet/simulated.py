"""A thousand instances in one process, in virtual time: what the control plane's own work costs."""

import asyncio
import random
import time

from tests.simulation import agents
from tests.simulation.chance import Chance
from tests.simulation.scene import Scene
from tests.simulation.virtual_time import run_virtually

PER_DEPLOYMENT = 50
READY_S, WINDOW_S = 300.0, 120.0
HEARTBEAT_S = 5.0


def cpu_share_of(instances: int) -> float:
    """Processor seconds per virtual second, all of them ready and reporting each HEARTBEAT_S."""
    random.seed(1)
    agents.HEARTBEAT_S = HEARTBEAT_S
    return run_virtually(_measure(instances))


async def _measure(instances: int) -> float:
    scene = Scene(Chance(1, calm=True))
    scene.control_plane.start()
    for number in range(instances // PER_DEPLOYMENT):
        await scene.deploy(number, PER_DEPLOYMENT)
    await asyncio.sleep(READY_S)
    before = time.process_time()
    await asyncio.sleep(WINDOW_S)
    share = (time.process_time() - before) / WINDOW_S
    ready = sum(state.status == "ready" for state in scene.stored.log.instances.values())
    scene.control_plane.kill()
    if ready < instances:
        raise RuntimeError(f"{instances - ready} of {instances} instances are not ready")
    return round(share, 3)
