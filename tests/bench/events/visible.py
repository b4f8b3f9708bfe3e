"""Read your writes: from an append's reply until a query sees it, at a steady rate, beside the library's wait().

Ours waits as the API does, in ReadModels, while one process keeps three read models; events come on the clock, whether
or not earlier ones are visible yet. The library waits as its documentation says, one save after the other.
"""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from domain.api_key import API_KEY, RenameApiKey
from infra.dispatch import Dispatcher
from infra.events.group_commit import GroupCommitLog
from infra.events.jetstream import JetStreamLog
from infra.postgres import ReadModels, ReadModelUnavailableError
from projections.api_keys import API_KEYS
from projections.audit_log import AUDIT_LOG
from projections.organizations import ORGANIZATIONS
from tests.bench.events import ground, library
from tests.bench.events.ground import Scale
from tests.bench.events.projecting import projecting

EVENTS_PER_S = 100
WARM_UP_EVENTS = 100
LIBRARY_SHARE = 20
BUILT_S = 30.0


async def measure(folder: Path, scale: Scale) -> dict[str, float]:
    """ryw_p95_ms of ours; ryw_vs_library: the library's p95 / ours (higher is better)."""
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(ground.postgres(folder / "postgres"))
        node = await stack.enter_async_context(ground.nats_node(folder / "node"))
        writer = await stack.enter_async_context(ground.writer_to(node.url))
        reader = await stack.enter_async_context(ground.reader_of(node.url))
        await ground.load_keys(writer, keys=1, events_each=1)
        await stack.enter_async_context(projecting(reader, postgres.url, API_KEYS, ORGANIZATIONS, AUDIT_LOG))
        read = await stack.enter_async_context(ReadModels(postgres.url))
        await _until_built(read)
        door = ground.dispatcher_of(GroupCommitLog(JetStreamLog(writer)), writer)
        ours = await _on_the_clock(door, read, scale.waits)
        theirs = await asyncio.to_thread(library.waits, library.settings(postgres.url), scale.waits // LIBRARY_SHARE)
    return {
        "ryw_p95_ms": 1000 * ground.p95(ours),
        "ryw_vs_library": ground.p95(theirs) / ground.p95(ours),
        "ryw_p50_ms": 1000 * median(ours),
        "library_wait_p95_ms": 1000 * ground.p95(theirs),
    }


async def _until_built(read: ReadModels) -> None:
    async with asyncio.timeout(BUILT_S):
        while True:
            try:
                async with read("api_keys", position=1):
                    return
            except ReadModelUnavailableError:
                await asyncio.sleep(0.01)


async def _on_the_clock(door: Dispatcher, read: ReadModels, events: int) -> list[float]:
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        waits = []
        for number in range(WARM_UP_EVENTS + events):
            await asyncio.sleep(max(0.0, began + number / EVENTS_PER_S - time.perf_counter()))
            command = RenameApiKey(name=f"name {number}")
            receipt = await door(API_KEY, ground.ORGANIZATION, ground.key_id(0), command, ground.CONTEXT)
            waits.append(group.create_task(_visible_s(read, receipt.position, time.perf_counter())))
    return [wait.result() for wait in waits[WARM_UP_EVENTS:]]


async def _visible_s(read: ReadModels, position: int, appended: float) -> float:
    async with read("api_keys", position=position):
        return time.perf_counter() - appended
