"""Either store is wiped from its disk, and comes back from the other one: same bytes, same positions, same rows.

EVENTS, USAGE ──folded──> every read model          hashes of both are taken, then
  ^  store deleted: restore <── audit_log, usage_records            (a) NATS lost
  └─────────────── every read model from 0 <── empty server         (b) Postgres lost
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path

import msgspec
from nats.aio.client import Client

from domain.aggregates import AGGREGATES
from infra.embedded.nats import EmbeddedNats
from infra.embedded.postgres import EmbeddedPostgres
from infra.events.codec import Codec
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.streams import EVENTS, USAGE, ensure_streams
from infra.postgres import connect
from infra.projecting import Bystanders, EventSource, Projector, Source, UsageSource
from infra.replay.restore import plan_restore, restore
from infra.replay.tables import table_hashes
from projections.checkpoint import position_of
from projections.projection import Connection
from projections.registry import PROJECTIONS
from tests.chaos.kill import until
from tests.conftest import some_port, started
from tests.infra.replay.stores import a_story, messages_of, publish, stored, used, watch

LIVES = 1_000
"""Of each aggregate; 28 events together."""
USAGE_RECORDS = 2_000


async def measure(folder: Path, *, lives: int = LIVES, usage_records: int = USAGE_RECORDS) -> dict[str, int]:
    """wiped_events; restored_events_per_s, refolded_events_per_s; wipe_differences, and those of a doctored row."""
    server = await started(lambda: EmbeddedNats(folder / "nats", some_port()))
    database = await started(lambda: EmbeddedPostgres(folder / "postgres", some_port()))
    try:
        async with _administrator(server) as admin:
            await publish(admin, messages_of(a_story(lives)))
            await publish(admin, used(usage_records))
            streams = await _streams(admin)
        await _fold_all(server, database)
        tables = await _tables(database)
        restored_per_s = await _lose_nats(server, database)
        async with _administrator(server) as admin:
            differences = _count_differences(streams, await _streams(admin))
        await database.kill()  # for good: the next one is a server that knows nothing
        database = await started(lambda: EmbeddedPostgres(folder / "postgres-again", some_port()))
        refolded_per_s = await _refold(server, database)
        differences += _count_differences(tables, await _tables(database))
        events = await _doctor_a_row(database)
        control = _count_differences(tables, await _tables(database))
    finally:
        await server.stop()
        await database.stop()
    print(f"wipe: {events:,} events; restored {restored_per_s:,}/s, folded again {refolded_per_s:,}/s", flush=True)
    return {
        "wiped_events": events,
        "restored_events_per_s": restored_per_s,
        "refolded_events_per_s": refolded_per_s,
        "wipe_differences": differences,
        "wipe_control_differences": control,
    }


async def _lose_nats(server: EmbeddedNats, database: EmbeddedPostgres) -> int:
    """Returns the rate of the restore, in events a second."""
    await server.kill()
    await asyncio.to_thread(shutil.rmtree, server.store_dir)
    await server.start()
    async with _administrator(server) as admin:
        done = await restore(admin, database.url, await plan_restore(admin, database.url), watch=watch())
    print(f"wipe: NATS lost; {done.events_restored:,} events and {done.usage_restored:,} records restored", flush=True)
    return round(done.events_per_s)


async def _refold(server: EmbeddedNats, database: EmbeddedPostgres) -> int:
    """Returns the rate of folding all read models again, in events a second."""
    began = time.monotonic()
    events = await _fold_all(server, database)
    print(f"wipe: Postgres lost; every read model folded again from {events:,} events", flush=True)
    return round(events / (time.monotonic() - began))


async def _fold_all(server: EmbeddedNats, database: EmbeddedPostgres) -> int:
    """What the projections role does, until each read model is at the end of its stream; returns that of EVENTS."""
    reader = await connect_reader(server.url, "projections")
    log, bystanders = JetStreamLog(reader), Bystanders(database.url)
    sources: dict[str, Source] = {EVENTS: EventSource(log, Codec(AGGREGATES)), USAGE: UsageSource(reader)}
    ends = {EVENTS: await log.head(), USAGE: await JetStreamLog(reader, USAGE).head()}
    projectors = [Projector(each, sources[each.stream], database.url, bystanders) for each in PROJECTIONS]
    tasks = [asyncio.create_task(projector.run()) for projector in projectors]

    async def all_there() -> bool:
        if not all(projector.started.is_set() for projector in projectors):
            return False
        return [await position_of(connection, each) for each in PROJECTIONS] == [
            ends[each.stream] for each in PROJECTIONS
        ]

    try:
        async with _reading(database) as connection:
            await until(all_there, "the read models did not reach the end of their streams")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bystanders.close()
        await disconnect(reader)
    return ends[EVENTS]


async def _streams(admin: Client) -> dict[str, str]:
    """Position -> hash of subject, id and bytes; of USAGE, whose ids may change, without the id."""
    found = {}
    for stream in (EVENTS, USAGE):
        for message in await stored(admin, stream):
            kept = message if stream == EVENTS else msgspec.structs.replace(message, message_id="")
            found[f"{stream} {message.position}"] = sha256(msgspec.msgpack.encode(kept)).hexdigest()
    return found


async def _tables(database: EmbeddedPostgres) -> dict[str, str]:
    async with _reading(database) as connection:
        return {
            f"{projection.schema}.{table}": value
            for projection in PROJECTIONS
            for table, value in (await table_hashes(connection, projection)).items()
        }


def _count_differences(before: Mapping[str, str], after: Mapping[str, str]) -> int:
    return len(set(before.items()) ^ set(after.items()))


async def _doctor_a_row(database: EmbeddedPostgres) -> int:
    """The control: one row of the audit log is another one. Returns how many it has."""
    async with _reading(database) as connection:
        cursor = await connection.execute("SELECT count(*) FROM audit_log")
        row = await cursor.fetchone()
        await connection.execute("UPDATE audit_log SET version = version + 1 WHERE position = 1")
    return int(row[0]) if row else 0


@asynccontextmanager
async def _administrator(server: EmbeddedNats) -> AsyncIterator[Client]:
    admin = await connect_writer(server.admin_url, "chaos")
    try:
        await ensure_streams(admin)
        yield admin
    finally:
        await disconnect(admin)


@asynccontextmanager
async def _reading(database: EmbeddedPostgres) -> AsyncIterator[Connection]:
    path = ",".join(projection.schema for projection in PROJECTIONS)
    async with await connect(database.url, "chaos", autocommit=True, search_path=path) as connection:
        yield connection
