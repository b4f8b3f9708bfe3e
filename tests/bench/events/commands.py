"""A command on a cached aggregate, and loading aggregates of 10 to 10,000 events, beside the library on Postgres."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from nats.aio.client import Client

from domain.api_key import API_KEY, RenameApiKey
from infra.dispatch import SNAPSHOT_EVERY, Dispatcher
from infra.events.group_commit import GroupCommitLog
from infra.events.jetstream import JetStreamLog
from tests.bench.events import ground, library
from tests.bench.events.ground import Scale

COMMANDS = 300
"""Per contender and round."""
EVENTS_OF_CACHED = 10
SIZES = (10, 100, 1_000, 10_000)
"""Events of the aggregates that are loaded."""
LOADS = 5
CACHED = {"AGGREGATE_CACHE_MAXSIZE": "1000"}


async def measure(folder: Path, scale: Scale) -> dict[str, float]:
    """cached_command_p50_vs_library: p50 / p50 (lower is better); load_<n>_ms of both, without a cache."""
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(ground.postgres(folder / "postgres"))
        node = await stack.enter_async_context(ground.nats_node(folder / "node"))
        writer = await stack.enter_async_context(ground.writer_to(node.url))
        cached = library.settings(postgres.url) | CACHED
        fast_forward = stack.enter_context(library.Keys(cached))
        trusting = stack.enter_context(library.Keys(cached | {"AGGREGATE_CACHE_FASTFORWARD": "n"}))
        figures = await _cached(writer, {"": fast_forward, "_trusting": trusting}, scale)
        return figures | await _loads(writer, stack.enter_context(library.Keys(library.settings(postgres.url))))


async def _cached(writer: Client, apps: dict[str, library.Keys], scale: Scale) -> dict[str, float]:
    """The library's default looks for newer events at each get; `trusting` does not, like ours."""
    door = ground.dispatcher_of(GroupCommitLog(JetStreamLog(writer)), writer)
    await ground.load_keys(writer, keys=1, events_each=EVENTS_OF_CACHED)
    keys = {name: await asyncio.to_thread(library.new_key, app, EVENTS_OF_CACHED) for name, app in apps.items()}
    p50: dict[str, list[float]] = {}
    for number in range(scale.rounds + 1):
        found = {
            f"library_command{name}": median(await asyncio.to_thread(library.command_times, app, keys[name], COMMANDS))
            for name, app in apps.items()
        }
        found["cached_command"] = median(await rename_times(door, 0, f"round {number}", COMMANDS))
        if number:
            for name, value in found.items():
                p50.setdefault(name, []).append(value)

    def ratio(baseline: str) -> float:
        return median(ours / theirs for ours, theirs in zip(p50["cached_command"], p50[baseline], strict=True))

    return {
        "cached_command_p50_vs_library": ratio("library_command"),
        "cached_command_p50_vs_library_trusting": ratio("library_command_trusting"),
    } | {f"{name}_p50_ms": 1000 * median(values) for name, values in p50.items()}


async def rename_times(door: Dispatcher, key: int, label: str, commands: int) -> list[float]:
    async def rename(number: int) -> None:
        command = RenameApiKey(name=f"{label} {number}")
        await door(API_KEY, ground.ORGANIZATION, ground.key_id(key), command, ground.CONTEXT)

    return await ground.times_of(rename, commands)


async def _loads(writer: Client, app: library.Keys) -> dict[str, float]:
    figures: dict[str, float] = {}
    for number, events in enumerate(SIZES, start=1):
        await ground.load_keys(writer, keys=1, events_each=events, first=number)
        cold = [await _load_s(writer, number, snapshots=False) for _ in range(LOADS)]
        await rename_times(ground.dispatcher_of(JetStreamLog(writer), writer), number, "snapshot", SNAPSHOT_EVERY)
        snapped = [await _load_s(writer, number, snapshots=True) for _ in range(LOADS)]
        key = await asyncio.to_thread(library.new_key, app, events)
        theirs = await asyncio.to_thread(library.load_time_s, app, key, LOADS)
        figures[f"load_{events}_ms"] = 1000 * median(cold)
        figures[f"load_{events}_snapshot_ms"] = 1000 * median(snapped)
        figures[f"library_load_{events}_ms"] = 1000 * theirs
    return figures


async def _load_s(writer: Client, key: int, *, snapshots: bool) -> float:
    door = ground.dispatcher_of(JetStreamLog(writer), writer, snapshots=snapshots)

    async def load(_number: int) -> None:
        await door.load(API_KEY, ground.ORGANIZATION, ground.key_id(key))

    [took_s] = await ground.times_of(load, 1)
    return took_s
