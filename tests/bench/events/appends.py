"""Appends a second: one writer, 64 writers on one node and on three replicas, beside the library on Postgres."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from statistics import median

from uuid_utils import uuid7

from infra.events.group_commit import GroupCommitLog
from infra.events.jetstream import JetStreamLog
from infra.events.port import Append, Conflict, EventLog
from tests.bench.events import ground, library
from tests.bench.events.ground import Scale
from tests.infra.events.envelopes import payload as envelope_of

WRITERS = 64
MAX_LOST_RACES = 100
ONE_WRITER_SHARE = 4
"""One writer does a quarter of the appends: it is about as much slower."""


async def measure(folder: Path, scale: Scale) -> dict[str, float]:
    """append_1_vs_library, append_64_vs_library, append_64_r3_vs_library: rate / rate; and the rates.

    append_contended_vs_ungrouped: what grouping costs (below 1) where most groups are doomed.
    """
    rates: dict[str, list[float]] = {}
    async with AsyncExitStack() as stack:
        postgres = await stack.enter_async_context(ground.postgres(folder / "postgres"))
        node = await stack.enter_async_context(ground.nats_node(folder / "node"))
        cluster = await stack.enter_async_context(ground.nats_cluster(folder / "cluster"))
        single = JetStreamLog(await stack.enter_async_context(ground.writer_to(node.url)))
        rival = JetStreamLog(await stack.enter_async_context(ground.writer_to(node.url)))
        triple = JetStreamLog(await stack.enter_async_context(ground.writer_to(cluster.url)))
        plain = stack.enter_context(library.Keys(library.settings(postgres.url)))
        tuned = {
            threads: stack.enter_context(
                library.Keys(library.settings(postgres.url, tuned=True, pool=min(threads, 32)))
            )
            for threads in library.THREADS
        }
        alone = scale.appends // ONE_WRITER_SHARE
        for number in range(scale.rounds + 1):
            found = {
                "library_append_1": await asyncio.to_thread(library.appends_per_s, plain, 1, alone),
                "append_1": await ground.appends_per_s(GroupCommitLog(single), 1, alone, "one"),
            }
            for threads, app in tuned.items():
                found[f"library_append_{threads}_threads"] = await asyncio.to_thread(
                    library.appends_per_s, app, threads, scale.appends
                )
            found["append_64_ungrouped"] = await ground.appends_per_s(single, WRITERS, scale.appends, "many")
            found["append_64"] = await ground.appends_per_s(GroupCommitLog(single), WRITERS, scale.appends, "many")
            found["append_64_r3_ungrouped"] = await ground.appends_per_s(triple, WRITERS, scale.appends, "many")
            found["append_64_r3"] = await ground.appends_per_s(GroupCommitLog(triple), WRITERS, scale.appends, "many")
            found["append_contended_ungrouped"] = await _contended_per_s((single, rival), scale.appends)
            groups = GroupCommitLog(single), GroupCommitLog(rival)
            found["append_contended"] = await _contended_per_s(groups, scale.appends)
            if number:  # the first round warms up
                for name, rate in found.items():
                    rates.setdefault(name, []).append(rate)
    return _ratios(rates) | {f"{name}_per_s": median(values) for name, values in rates.items()}


def _ratios(rates: dict[str, list[float]]) -> dict[str, float]:
    """Each round against the library's best of that round."""
    contenders = [rates[f"library_append_{threads}_threads"] for threads in library.THREADS]
    best = [max(of_round) for of_round in zip(*contenders, strict=True)]

    def ratio(name: str, baseline: list[float]) -> float:
        return median(ours / theirs for ours, theirs in zip(rates[name], baseline, strict=True))

    return {
        "append_1_vs_library": ratio("append_1", rates["library_append_1"]),
        "append_64_vs_library": ratio("append_64", best),
        "append_64_r3_vs_library": ratio("append_64_r3", best),
        "append_contended_vs_ungrouped": ratio("append_contended", rates["append_contended_ungrouped"]),
    }


async def _contended_per_s(logs: Sequence[EventLog], appends: int) -> float:
    """Two logs, each with 64 writers, fight over the same 64 aggregates; who loses a race looks and tries again."""
    subjects = [f"evt.bench.fight.{uuid7()}" for _ in range(WRITERS)]

    async def write(log: EventLog, subject: str) -> None:
        expected = 0
        for _ in range(appends // WRITERS // len(logs)):
            event_id = str(uuid7())
            for _attempt in range(MAX_LOST_RACES):
                try:
                    expected = await log.append([Append(subject, expected, ((event_id, envelope_of(event_id)),))])
                    break
                except Conflict:
                    last = await log.last(subject)
                    expected = last.position if last else 0

    began = time.perf_counter()
    await asyncio.gather(*(write(log, subject) for log in logs for subject in subjects))
    return appends / (time.perf_counter() - began)
