"""Workers are killed -9 while they act on the world: no deed is doubled, out of order or missing.

    writer ──> EVENTS ──> three workers on one durable consumer ──> witness (takes everything, as often as it is told)
                              ^ kill -9, restart

Three runs of the same events: guarded (gate and ledger), and two controls that must show violations: `no_ledger` (the
gate alone) doubles what a killed look had done, and `naive` (neither) loses the order as well.
"""

import asyncio
import contextlib
import json
import logging
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nats
import psycopg
import structlog
from nats.aio.client import Client

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, RenameApiKey
from domain.ids import OrganizationId
from domain.message import Context
from infra.embedded.nats import EmbeddedNats
from infra.embedded.postgres import EmbeddedPostgres
from infra.events.connection import connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.streams import EVENTS, ensure_streams
from tests.chaos.acting_worker import NAME, TABLE, Mode
from tests.conftest import some_port, started
from tests.examples import key_to_issue
from tests.infra.reacting_doors import doors_on

ROOT = Path(__file__).parents[2]
WORKERS = 3
EVENTS_WANTED = 3_000
AGGREGATES_WANTED = 120
KILLS = 20
CONTROL_SHARE = 4
"""A control has a quarter of the events and kills: it need only show that the proof bites."""
PROGRESS_WAIT_S = 30.0
FINISH_WAIT_S = 60.0
LOOK_EVERY_S = 0.05
ACME = OrganizationId("acme")
ALICE = Context(actor="user:alice", correlation="chaos")


@dataclass(frozen=True)
class Told:
    """What the witness has to say, against what it should have been told."""

    effects: int
    duplicated: int
    out_of_order: int
    missing: int

    @property
    def violations(self) -> int:
        return self.duplicated + self.out_of_order + self.missing


def judge(rows: Sequence[tuple[str, int]], wanted: dict[str, int]) -> Told:
    """Pure.

    Args:
        rows: (aggregate, version) as the witness was told, in that order.
        wanted: newest version of each aggregate; each from 1 on was to be told.
    """
    newest: dict[str, int] = {}
    seen: set[tuple[str, int]] = set()
    duplicated = out_of_order = 0
    for row in rows:
        key, version = row
        if row in seen:
            duplicated += 1
            continue
        seen.add(row)
        out_of_order += version < newest.get(key, 0)
        newest[key] = max(version, newest.get(key, 0))
    missing = sum((key, version) not in seen for key, last in wanted.items() for version in range(1, last + 1))
    return Told(len(rows), duplicated, out_of_order, missing)


async def measure(
    folder: Path,
    *,
    events: int = EVENTS_WANTED,
    aggregates: int = AGGREGATES_WANTED,
    kills: int = KILLS,
) -> dict[str, int]:
    """Runs all three at once, each on servers of its own under `folder`, which the servers' account may walk through.

    Returns:
        workers_killed, effects, effects_duplicated, effects_out_of_order, effects_missing: of the guarded run;
        control_violations: duplicates, out of order and missing of the naive run;
        control_without_ledger: of the run with the gate alone (chance decides how many; with few kills perhaps none).
    """
    share = {"events": events // CONTROL_SHARE, "aggregates": aggregates // CONTROL_SHARE}
    share["kills"] = -(-kills // CONTROL_SHARE)
    guarded, naive, no_ledger = await asyncio.gather(
        run(folder / "guarded", "guarded", events=events, aggregates=aggregates, kills=kills),
        run(folder / "naive", "naive", **share),
        run(folder / "no_ledger", "no_ledger", **share),
    )
    return {
        "workers_killed": kills,
        "effects": guarded.effects,
        "effects_duplicated": guarded.duplicated,
        "effects_out_of_order": guarded.out_of_order,
        "effects_missing": guarded.missing,
        "control_violations": naive.violations,
        "control_without_ledger": no_ledger.violations,
    }


async def run(folder: Path, mode: Mode, *, events: int, aggregates: int, kills: int) -> Told:
    """One run: rounds of one event for each aggregate; between them, kills in the middle of the work."""
    keys = [f"key-{n}" for n in range(aggregates)]
    rounds = max(1, events // aggregates)
    async with _house(folder, mode) as house:
        for number in range(rounds):
            before = await house.told()
            await house.change(keys, number)
            for _ in range(kills * number // rounds, kills * (number + 1) // rounds):
                await house.wait_for(before + random.randint(1, aggregates))
                await house.kill_one_at_work()
        wanted = dict.fromkeys(keys, rounds)
        await house.finish(rounds * aggregates)
        return judge(await house.rows(), wanted)


def _make_walkable(folder: Path) -> None:
    folder.mkdir(parents=True)
    folder.chmod(0o711)


@contextlib.asynccontextmanager
async def _house(folder: Path, mode: Mode) -> AsyncIterator["_House"]:
    await asyncio.to_thread(_make_walkable, folder)
    log = await started(lambda: EmbeddedNats(folder / "nats", some_port()))
    tables = await started(lambda: EmbeddedPostgres(folder / "postgres", some_port()))
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(tables.stop)
        stack.push_async_callback(log.stop)
        admin = await nats.connect(log.admin_url)
        await ensure_streams(admin)
        stack.push_async_callback(admin.close)
        witness = await psycopg.AsyncConnection.connect(tables.url, autocommit=True)
        stack.push_async_callback(witness.close)
        await witness.execute(TABLE)
        writer = await connect_writer(log.url, "chaos-writer")
        stack.push_async_callback(disconnect, writer)
        house = _House(log, tables, mode, admin, witness, JetStreamLog(writer), folder / "workers.log")
        stack.push_async_callback(house.end_workers)
        for _ in range(WORKERS):
            await house.start_worker()
        yield house


@dataclass
class _House:
    """The servers, the workers, and the witness of one run."""

    log: EmbeddedNats
    tables: EmbeddedPostgres
    mode: Mode
    admin: Client
    witness: psycopg.AsyncConnection
    events: JetStreamLog
    worker_log: Path
    workers: list[asyncio.subprocess.Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dispatch = doors_on(self.events, AGGREGATES).dispatch

    async def start_worker(self) -> None:
        with self.worker_log.open("ab") as log:
            arguments = [sys.executable, "-m", "tests.chaos.acting_worker", self.log.url, self.tables.url, self.mode]
            self.workers.append(await asyncio.create_subprocess_exec(*arguments, cwd=ROOT, stdout=log, stderr=log))

    async def end_workers(self) -> None:
        for worker in self.workers:
            with contextlib.suppress(ProcessLookupError):
                worker.kill()
            await worker.wait()

    async def kill_one_at_work(self) -> None:
        """Kills the process that told the witness last, and starts another."""
        cursor = await self.witness.execute(
            "SELECT pid FROM witness WHERE pid = ANY(%s) ORDER BY n DESC LIMIT 1", ([w.pid for w in self.workers],)
        )
        found = await cursor.fetchone()
        assert found is not None, "nobody works"
        victim = next(worker for worker in self.workers if worker.pid == found[0])
        victim.send_signal(signal.SIGKILL)
        assert await victim.wait() == -signal.SIGKILL
        self.workers.remove(victim)
        await self.start_worker()

    async def change(self, keys: Sequence[str], number: int) -> None:
        issue = key_to_issue("0")
        command = RenameApiKey(name=str(number)) if number else issue
        await asyncio.gather(*(self._dispatch(API_KEY, ACME, key, command, ALICE) for key in keys))

    async def told(self) -> int:
        cursor = await self.witness.execute("SELECT count(DISTINCT (id, version)) FROM witness")
        found = await cursor.fetchone()
        assert found is not None
        return int(found[0])

    async def rows(self) -> list[tuple[str, int]]:
        cursor = await self.witness.execute("SELECT id, version FROM witness ORDER BY n")
        return [(key, version) for key, version in await cursor.fetchall()]

    async def wait_for(self, told: int) -> None:
        """Until the witness knows so much: the workers are in the middle of it.

        Raises:
            AssertionError: they make no progress.
        """

        async def is_told() -> bool:
            return await self.told() >= told

        assert await _until(is_told, PROGRESS_WAIT_S), "the workers make no progress"

    async def finish(self, wanted: int) -> None:
        """Until everything was told and no message is in any worker's hands; what is missing then stays missing."""

        async def is_finished() -> bool:
            if await self.told() < wanted:
                return False
            consumer = await self.admin.jetstream().consumer_info(EVENTS, NAME)
            return not consumer.num_pending and not consumer.num_ack_pending

        await _until(is_finished, FINISH_WAIT_S)


async def _until(holds: Callable[[], Awaitable[bool]], wait_s: float) -> bool:
    """Whether it held within the time."""
    deadline = asyncio.get_running_loop().time() + wait_s
    while not await holds():
        if asyncio.get_running_loop().time() > deadline:
            return False
        await asyncio.sleep(LOOK_EVERY_S)
    return True


def main() -> None:
    """`python -m tests.chaos.workers [EVENTS AGGREGATES KILLS]`: the figures as one JSON object, last."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    given = dict(zip(("events", "aggregates", "kills"), map(int, sys.argv[1:]), strict=False))
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="inventiv-") as folder:
        Path(folder).chmod(0o711)
        figures = asyncio.run(measure(Path(folder), **given))
    print(f"took {time.monotonic() - began:.0f} s")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
