"""How long an event takes from its append to a read model that a query can see, at a steady 100 events a second.

It runs against a living platform: its projections process folds every read model, this process appends and waits as the
API does. Events are appended on the clock, whether or not earlier ones are visible yet.
"""

import asyncio
import time
from datetime import UTC, datetime
from statistics import quantiles

from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, IssueApiKey, RenameApiKey
from domain.message import Context
from infra.dispatch import Dispatcher
from infra.events.codec import Codec
from infra.events.connection import connect_writer
from infra.events.jetstream import JetStreamLog
from infra.postgres import ReadModels
from tests.examples import example

EVENTS_PER_S = 100
EVENTS = 1_000
WARM_UP_EVENTS = 100


async def measure(nats_url: str, postgres_url: str) -> dict[str, float]:
    """visible_p50_ms and visible_p95_ms, over EVENTS events."""
    writer = await connect_writer(nats_url, "bench")
    dispatcher = Dispatcher(JetStreamLog(writer), Codec(AGGREGATES), lambda: datetime.now(UTC), lambda: str(uuid7()))
    try:
        async with ReadModels(postgres_url) as read, asyncio.TaskGroup() as group:
            waits = await _append_on_the_clock(dispatcher, read, group)
        times = sorted(wait.result() for wait in waits[WARM_UP_EVENTS:])
    finally:
        await writer.close()
    cuts = quantiles(times, n=100)
    return {"visible_p50_ms": cuts[49] * 1000, "visible_p95_ms": cuts[94] * 1000}


async def _append_on_the_clock(
    dispatcher: Dispatcher, read: ReadModels, group: asyncio.TaskGroup
) -> list[asyncio.Task[float]]:
    context = Context(actor="system:bench", correlation="bench")
    key = str(uuid7())
    await dispatcher(API_KEY, "bench", key, example(IssueApiKey), context)
    began = time.perf_counter()
    waits = []
    for number in range(WARM_UP_EVENTS + EVENTS):
        await asyncio.sleep(max(0.0, began + number / EVENTS_PER_S - time.perf_counter()))
        receipt = await dispatcher(API_KEY, "bench", key, RenameApiKey(name=f"name {number}"), context)
        waits.append(group.create_task(_visible(read, receipt.position, time.perf_counter())))
    return waits


async def _visible(read: ReadModels, position: int, appended: float) -> float:
    async with read("api_keys", position=position):
        return time.perf_counter() - appended
