"""Folding stored events into Postgres: our projector beside the library's ProjectionRunner, and rebuilding a million.

Both count events by kind, beside their tracking; the library commits each event, the projector each batch. Both times
begin with nothing running, and end when the last event is visible.
"""

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median

import psutil
import psycopg
from nats.aio.client import Client
from psycopg.rows import scalar_row

from domain.aggregates import AGGREGATES
from infra.events.codec import Codec
from infra.events.jetstream import JetStreamLog
from infra.projecting import Bystanders, EventSource, Projector
from infra.replay.rebuild import rebuild
from projections.api_keys import API_KEYS
from projections.audit_log import AUDIT_LOG
from projections.projection import Projection
from tests.bench.events import ground, library
from tests.bench.events.counting import COUNTS
from tests.bench.events.ground import Scale

EVENTS_EACH = 10
KEYS_IN_USE = 1_000
"""In the million, each key's events stand this far apart; then the next thousand keys have theirs."""
POLL_S = 0.002
CATCH_UP_S = 300.0
MEMORY_SAMPLE_S = 0.1
MEGABYTE = 1_000_000
MICROSECONDS = 1_000_000


async def measure(folder: Path, scale: Scale) -> dict[str, float]:
    """projection_vs_library: rate / rate, with the rates of our own read models beside."""
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(ground.postgres(folder / "postgres"))
        node = await stack.enter_async_context(ground.nats_node(folder / "node"))
        writer = await stack.enter_async_context(ground.writer_to(node.url))
        reader = await stack.enter_async_context(ground.reader_of(node.url))
        await ground.load_keys(writer, keys=scale.projected // EVENTS_EACH, events_each=EVENTS_EACH)
        env = library.settings(postgres.url)
        with library.Keys(env) as app:
            for _ in range(scale.projected // EVENTS_EACH):
                await asyncio.to_thread(library.new_key, app, EVENTS_EACH)
        rates: dict[str, list[float]] = {}
        for _ in range(scale.rounds):
            await _drop_library_view(postgres.url)
            found = {"library_projected": await asyncio.to_thread(library.projected_per_s, env, scale.projected)}
            for projection in (COUNTS, API_KEYS, AUDIT_LOG):
                found[f"projected_{projection.name}"] = await _projected_per_s(reader, postgres.url, projection, scale)
            for name, rate in found.items():
                rates.setdefault(name, []).append(rate)
    pairs = zip(rates[f"projected_{COUNTS.name}"], rates["library_projected"], strict=True)
    ratio = median(ours / theirs for ours, theirs in pairs)
    return {"projection_vs_library": ratio} | {f"{name}_per_s": median(values) for name, values in rates.items()}


async def _drop_library_view(postgres_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute(f"DROP TABLE IF EXISTS {', '.join(library.VIEW_TABLES)}".encode())


async def _projected_per_s(reader: Client, postgres_url: str, projection: Projection, scale: Scale) -> float:
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as watching:
        await watching.execute("DROP SCHEMA IF EXISTS platform CASCADE")
        began = time.perf_counter()
        async with projecting(reader, postgres_url, projection):
            await _until(watching, projection, scale.projected)
            return scale.projected / (time.perf_counter() - began)


@asynccontextmanager
async def projecting(reader: Client, postgres_url: str, *projections: Projection) -> AsyncIterator[None]:
    """The read models are kept by this process until the end of the block."""
    source, bystanders = EventSource(JetStreamLog(reader), Codec(AGGREGATES)), Bystanders(postgres_url)
    tasks = [
        asyncio.create_task(Projector(projection, source, postgres_url, bystanders).run()) for projection in projections
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bystanders.close()


async def _until(watching: psycopg.AsyncConnection, projection: Projection, position: int) -> None:
    query = "SELECT position FROM platform.checkpoints WHERE name = %s"
    async with asyncio.timeout(CATCH_UP_S), watching.cursor(row_factory=scalar_row) as cursor:
        while True:
            try:
                await cursor.execute(query, (projection.name,))
                if (await cursor.fetchone() or 0) >= position:
                    return
            except psycopg.errors.UndefinedTable:
                pass
            await asyncio.sleep(POLL_S)


async def measure_rebuild(folder: Path, scale: Scale) -> dict[str, float]:
    """rebuild_events_per_s: the read model api_keys, blue/green, swap included; and how memory moved meanwhile."""
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(ground.postgres(folder / "postgres"))
        node = await stack.enter_async_context(ground.nats_node(folder / "node"))
        writer = await stack.enter_async_context(ground.writer_to(node.url))
        reader = await stack.enter_async_context(ground.reader_of(node.url))
        for first in range(0, scale.events // EVENTS_EACH, KEYS_IN_USE):
            await ground.load_keys(writer, keys=KEYS_IN_USE, events_each=EVENTS_EACH, first=first)
        gc.collect()
        figures = {"rebuild_events": float(scale.events)}
        log = JetStreamLog(reader)
        followed = await _memory_during(lambda: _follow(log, scale.events))
        figures["follow_events_per_s"] = scale.events / followed[0]
        for projection in (API_KEYS, COUNTS, AUDIT_LOG):
            source = EventSource(log, Codec(AGGREGATES))
            cpu_s = time.process_time()
            took_s, before_mb, middle_mb, peak_mb = await _memory_during(
                lambda of=projection, source=source: rebuild(of, source, postgres.url)  # type: ignore[misc] # mypy and lambda defaults
            )
            name = "rebuild" if projection is API_KEYS else f"rebuild_{projection.name}"
            figures[f"{name}_events_per_s"] = scale.events / took_s
            figures[f"{name}_cpu_us_per_event"] = MICROSECONDS * (time.process_time() - cpu_s) / scale.events
            figures[f"{name}_memory_before_mb"] = before_mb
            figures[f"{name}_memory_half_way_mb"] = middle_mb
            figures[f"{name}_memory_peak_mb"] = peak_mb
    return figures


async def _follow(log: JetStreamLog, events: int) -> None:
    async with log.follow(after=0, batch=2_000) as batches:
        async for batch in batches:
            if batch[-1].position >= events:
                return


async def _memory_during(work: Callable[[], Awaitable[object]]) -> tuple[float, float, float, float]:
    """(seconds, resident memory in MB before, half way, and at its peak)."""
    process = psutil.Process()
    before = process.memory_info().rss
    samples = [before]

    async def sample() -> None:
        while True:  # until cancelled, when the work is done
            samples.append(process.memory_info().rss)
            await asyncio.sleep(MEMORY_SAMPLE_S)

    sampling = asyncio.create_task(sample())
    began = time.perf_counter()
    async with asyncio.timeout(CATCH_UP_S):
        await work()
    took_s = time.perf_counter() - began
    sampling.cancel()
    return took_s, before / MEGABYTE, samples[len(samples) // 2] / MEGABYTE, max(samples) / MEGABYTE
