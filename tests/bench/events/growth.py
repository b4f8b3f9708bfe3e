"""What an append and a cached command cost in a log of a thousand, a hundred thousand and a million aggregates.

The logs stand side by side and take turns, so that what is compared was measured in the same second.
"""

import time
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from nats.aio.client import Client

from infra.dispatch import Dispatcher
from infra.events.jetstream import JetStreamLog
from tests.bench.events import ground
from tests.bench.events.commands import rename_times
from tests.bench.events.ground import Scale

APPENDS = 250
COMMANDS = 250
"""Each per log and round."""
ROUNDS_EXTRA = 2
"""A ratio near 1 wants a steadier median than one near 10."""


async def measure(folder: Path, scale: Scale) -> dict[str, float]:
    """growth_1k_to_1m: the worse of append and command, p50 in the largest log / p50 in the smallest."""
    async with AsyncExitStack() as stack:
        logs: dict[int, tuple[Client, Dispatcher]] = {}
        figures: dict[str, float] = {}
        for aggregates in scale.aggregates:
            node = await stack.enter_async_context(ground.nats_node(folder / str(aggregates)))
            writer = await stack.enter_async_context(ground.writer_to(node.url))
            began = time.perf_counter()
            await ground.load_keys(writer, keys=aggregates, events_each=1)
            figures[f"load_{aggregates}_aggregates_s"] = time.perf_counter() - began
            logs[aggregates] = writer, ground.dispatcher_of(JetStreamLog(writer), writer)
        appends, commands = await _rounds(logs, scale.rounds + ROUNDS_EXTRA)
    smallest = scale.aggregates[0]
    for aggregates in scale.aggregates:
        figures[f"append_at_{aggregates}_ms"] = 1000 * median(appends[aggregates])
        figures[f"command_at_{aggregates}_ms"] = 1000 * median(commands[aggregates])
        figures[f"append_growth_to_{aggregates}"] = _growth(appends, smallest, aggregates)
        figures[f"command_growth_to_{aggregates}"] = _growth(commands, smallest, aggregates)
    largest = scale.aggregates[-1]
    worse = max(figures[f"append_growth_to_{largest}"], figures[f"command_growth_to_{largest}"])
    return {"growth_1k_to_1m": worse, "largest_log_aggregates": float(largest)} | figures


async def _rounds(
    logs: dict[int, tuple[Client, Dispatcher]], rounds: int
) -> tuple[dict[int, list[float]], dict[int, list[float]]]:
    """p50 of append and of command in each round, by size of the log."""
    appends: dict[int, list[float]] = {size: [] for size in logs}
    commands: dict[int, list[float]] = {size: [] for size in logs}
    for number in range(rounds + 1):
        for aggregates, (writer, door) in logs.items():
            times = await ground.append_times(JetStreamLog(writer), APPENDS)
            renames = await rename_times(door, aggregates // 2, f"round {number}", COMMANDS)
            if number:  # the first round warms up
                appends[aggregates].append(median(times))
                commands[aggregates].append(median(renames))
    return appends, commands


def _growth(p50: dict[int, list[float]], smallest: int, aggregates: int) -> float:
    return median(large / small for large, small in zip(p50[aggregates], p50[smallest], strict=True))
