"""A worker dies under load while another lives: requests whose answers have not begun are asked there, unseen.

Heartbeats of the dead one go on, so that nothing but the gateway's own experience tells it. Control: with one worker
alone there is nobody else to ask, and clients must notice.
"""

import asyncio
from pathlib import Path

import aiohttp

from agent.simulated_engine import Behaviour
from tests.chaos.gateway.books import balance
from tests.chaos.gateway.clients import new_client, plain
from tests.chaos.gateway.load import Load
from tests.chaos.gateway.stage import Stage, stage

ENGINE = Behaviour(tokens_per_s=100.0, first_token_ms=100.0)
ANSWER_TOKENS = 10
"""In one piece after 200 ms: until then nothing of it has begun."""
CLIENTS = 24
ALIVE_S = 2.0
DEAD_S = 1.5


async def measure(folder: Path, *, kills: int = 6) -> dict[str, float | None]:
    async with stage(folder / "two", [ENGINE] * 2) as play:
        load = await _under_kills(play, kills)
        load.complain("dying workers")
        answered = [told.request_id for told in load.told if told.is_answered]
        records = await play.records(answered)
        books = balance(answered, records)
    async with stage(folder / "one", [ENGINE]) as play:
        control = await _under_kills(play, 1)
    return {
        "workers_killed": kills,
        "workers_requests": len(load.told),
        "workers_failed_requests": len(load.failed),
        "retried_ok": sum(record.attempts > 1 and record.outcome == "completed" for record in records),
        "workers_unbooked": books.unbooked,
        "workers_double_booked": books.double_booked,
        "workers_control_failed": len(control.failed),
    }


async def _under_kills(play: Stage, kills: int) -> Load:
    await play.start_gateway()
    load = Load()
    async with new_client() as client:
        asking = [asyncio.create_task(_ask(play, client, load)) for _ in range(CLIENTS)]
        for kill in range(kills):
            await asyncio.sleep(ALIVE_S)
            victim = play.engines[kill % len(play.engines)]
            await victim.kill()
            await asyncio.sleep(DEAD_S)
            await victim.start()
        await asyncio.sleep(ALIVE_S)
        load.ends.set()
        await asyncio.gather(*asking)
    print(f"dying workers: {kills} killed, {len(load.told)} requests, {len(load.failed)} failed", flush=True)
    return load


async def _ask(play: Stage, client: aiohttp.ClientSession, load: Load) -> None:
    while load.goes_on:
        await load.take(await plain(client, play, play.tenants[0], tokens=ANSWER_TOKENS))
