"""The gateway is replaced twice, under streams and new requests, and nobody notices.

    old process ──listening socket──> new one ──> newer one        50 streams, and requests on old and new connections

Control: the process is stopped, and then the next one started. Somebody must notice that.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import aiohttp

from agent.simulated_engine import Behaviour
from tests.chaos.gateway.books import balance, differences, total
from tests.chaos.gateway.clients import Told, new_client, plain, stream, until_told
from tests.chaos.gateway.load import Load
from tests.chaos.gateway.stage import Stage, stage

ENGINES = [Behaviour(tokens_per_s=20.0)] * 2
STREAM_TOKENS = 200
"""Ten seconds: longer than a hand-over, so that each stream lives through one."""
ANSWER_TOKENS = 2
AT_ONCE = 16
"""Clients that ask again once they are answered; every second one on a new connection each time."""
ENDS_WITHIN_S = 60.0
"""The old process, after its last stream."""
CONTROL_REQUESTS = 200


async def measure(folder: Path, *, streams: int = 50, requests: int = 5_000) -> dict[str, float | None]:
    async with stage(folder / "handed-over", ENGINES) as play:
        await play.start_gateway()
        load = Load(requests)
        figures = await _replaced(play, streams, load, _hand_over)
        load.complain("rolling")
    async with stage(folder / "stopped", ENGINES) as play:
        await play.start_gateway()
        control = await _replaced(play, 0, Load(CONTROL_REQUESTS), _stop_and_start)
    return {**figures, "rolling_control_failed": control["rolling_failed_requests"]}


async def _replaced(
    play: Stage, streams: int, load: Load, replace: Callable[[Stage], Awaitable[None]]
) -> dict[str, float | None]:
    async with new_client() as kept, new_client(keep_alive=False) as fresh:
        running = [Told() for _ in range(streams)]
        streaming = [
            asyncio.create_task(stream(fresh, play, play.tenants[0], told, tokens=STREAM_TOKENS)) for told in running
        ]
        await until_told(running)
        asking = [asyncio.create_task(_ask(play, (kept, fresh)[n % 2], load)) for n in range(AT_ONCE)]
        for share in (1, 2):
            await _until_asked(load, share * load.wanted // 3)
            await replace(play)
            print(f"rolling: replaced after {len(load.told)} requests, {len(load.failed)} failed", flush=True)
        load.ends.set()
        await asyncio.gather(*asking)
        await asyncio.gather(*streaming)
    for old in play.gateways[:-1]:
        assert await old.ended(ENDS_WITHIN_S), "the old process outlives its last stream"
    return await _judged(play, running, load)


async def _judged(play: Stage, running: Sequence[Told], load: Load) -> dict[str, float | None]:
    answered = [told for told in (*running, *load.told) if told.is_answered]
    request_ids = [told.request_id for told in answered]
    records = await play.records(request_ids)
    books = balance(request_ids, records)
    broken = [told for told in running if not told.is_answered]
    for told in broken:
        print(f"rolling: broken: {told}", flush=True)
    return {
        "rolling_requests": len(load.told),
        "rolling_streams": len(running),
        "rolling_failed_requests": len(load.failed),
        "rolling_broken_streams": len(broken),
        "rolling_unbooked": books.unbooked,
        "rolling_double_booked": books.double_booked,
        "rolling_token_difference": total(differences({t.request_id: t.tokens for t in answered}, records)),
    }


async def _ask(play: Stage, client: aiohttp.ClientSession, load: Load) -> None:
    while load.goes_on:
        await load.take(await plain(client, play, play.tenants[0], tokens=ANSWER_TOKENS))


async def _until_asked(load: Load, count: int) -> None:
    while len(load.told) < count:  # noqa: ASYNC110 - counted by other tasks, each request of which is bounded
        await asyncio.sleep(0.01)


async def _hand_over(play: Stage) -> None:
    await play.start_gateway()


async def _stop_and_start(play: Stage) -> None:
    await play.gateways[-1].stop()
    await play.start_gateway()
