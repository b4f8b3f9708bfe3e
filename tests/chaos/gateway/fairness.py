"""One tenant floods; how long do the others wait for a worker, compared with before?

    16 modest tenants, 2 clients each, with pauses ──┐
                                                     ├──> the gateway's queue ──> 4 places on one worker
    one tenant with 200 clients and no pause ────────┘

The figure is the p99 of `queue_ms` in the modest ones' accounts, the median of several runs with the flood over that of
several without. The modest ones alone fill the places to about 94 %, so that they wait for each other. Far below that a
ratio says little: where one waited for nobody, to wait for the next of four places to be free is already much more.

Control: a gateway that serves who came first.
"""

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import aiohttp

from agent.simulated_engine import Behaviour
from tests.chaos.gateway.books import percentile
from tests.chaos.gateway.clients import new_client, plain
from tests.chaos.gateway.load import Load
from tests.chaos.gateway.stage import SERVE, Stage, stage
from tests.chaos.gateway.variants import command

PLACES = 4
MODEST = 16
CLIENTS = 2
"""Of each modest tenant."""
FLOODERS = 200
FIRST_TOKEN_MS = 2.0
TOKEN_MS = 5.0
SHORTEST_TOKENS, LONGEST_TOKENS = 3, 9
SERVICE_S = (FIRST_TOKEN_MS + TOKEN_MS * (SHORTEST_TOKENS + LONGEST_TOKENS - 2) / 2) / 1000
PAUSE_S = MODEST * CLIENTS * SERVICE_S / PLACES - SERVICE_S
"""Of a modest client on average: with it, and if nobody waited, their requests would fill the places exactly."""
WARM_UP_S = 3.0


async def measure(folder: Path, *, runs: int = 3, run_s: float = 15.0) -> dict[str, float | None]:
    engine = Behaviour(tokens_per_s=1000 / TOKEN_MS, first_token_ms=FIRST_TOKEN_MS)
    async with stage(folder, [engine], tenants=MODEST + 1) as play:
        play.variables["INVENTIV_REQUESTS_PER_GPU"] = str(PLACES)
        alone: list[float] = []
        flooded: list[float] = []
        for run in range(runs):
            alone.append(await _waited(play, SERVE, run, run_s, flooders=0))
            flooded.append(await _waited(play, SERVE, run, run_s, flooders=FLOODERS))
            print(f"fairness: p99 {alone[-1]:.0f} ms alone, {flooded[-1]:.0f} ms with the flood", flush=True)
        control = await _waited(play, command("first_come"), 0, run_s, flooders=FLOODERS)
    return {
        "fairness_alone_p99_ms": round(median(alone), 1),
        "fairness_flooded_p99_ms": round(median(flooded), 1),
        "fairness_p99_ratio": round(median(flooded) / median(alone), 3),
        "fairness_control_ratio": round(control / median(alone), 3),
    }


async def _waited(play: Stage, serve: Sequence[str], run: int, run_s: float, *, flooders: int) -> float:
    """One run on a fresh gateway; p99 of the modest ones' queue time, milliseconds."""
    gateway = await play.start_gateway(serve)
    modest, flood = Load(), Load()
    async with new_client() as client:
        asking = [
            asyncio.create_task(_modest(play, client, modest, number, random.Random(1000 * run + 10 * number + n)))
            for number in range(1, MODEST + 1)
            for n in range(CLIENTS)
        ]
        asking += [asyncio.create_task(_flood(play, client, flood, random.Random(n))) for n in range(flooders)]
        await asyncio.sleep(WARM_UP_S)
        warm = {told.request_id for told in modest.told}
        await asyncio.sleep(run_s)
        modest.ends.set()
        flood.ends.set()
        await asyncio.gather(*asking)
    await gateway.stop()
    modest.complain("fairness")
    asked = {told.request_id for told in modest.told if told.is_answered} - warm
    records = await play.records(asked)
    return percentile([record.queue_ms for record in records if record.request_id in asked], 99)


async def _modest(play: Stage, client: aiohttp.ClientSession, load: Load, number: int, draw: random.Random) -> None:
    while load.goes_on:
        await asyncio.sleep(draw.expovariate(1 / PAUSE_S))
        await load.take(await plain(client, play, play.tenants[number], tokens=_length(draw)))


async def _flood(play: Stage, client: aiohttp.ClientSession, load: Load, draw: random.Random) -> None:
    while load.goes_on:
        await load.take(await plain(client, play, play.tenants[0], tokens=_length(draw)))


def _length(draw: random.Random) -> int:
    return draw.randint(SHORTEST_TOKENS, LONGEST_TOKENS)
