"""One log written by three releases, read by the fourth reader in every way that the platform reads."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from uuid_utils import uuid7

from domain.ids import OrganizationId
from domain.message import Context
from infra.dispatch import Dispatcher
from infra.events.codec import Codec, UnknownEventError
from infra.events.memory import MemoryLog
from infra.postgres import connect
from infra.projecting import EventSource
from projections.audit_log import AUDIT_LOG, EventFilter, list_events
from projections.projection import Connection, Entry, Projection
from tests.histories.parcel import FIRST, SECOND, THIRD, UPCASTS_OF_PARCEL, WORD, Sent, parcels
from tests.projections.grammar import build

ACME = OrganizationId("acme")
ALICE = Context(actor="user:alice", correlation="intent")
TODAY = parcels(THIRD)


async def _carry(entries: Sequence[Entry], connection: Connection) -> None:
    rows = [(entry.position, entry.event.weight_kg, entry.event.carrier) for entry in entries]
    async with connection.cursor() as cursor:
        await cursor.executemany("INSERT INTO parcels VALUES (%s, %s, %s)", rows)


PARCELS = Projection(
    "parcels",
    1,
    "CREATE TABLE parcels (position bigint PRIMARY KEY, weight_kg float NOT NULL, carrier text NOT NULL)",
    _carry,
    aggregates=frozenset({WORD}),
)


def dispatcher_of(log: MemoryLog, event: type[Any]) -> Dispatcher:
    codec = Codec([parcels(event)], upcasts=UPCASTS_OF_PARCEL)
    return Dispatcher(log, codec, lambda: datetime(2026, 11, 21, tzinfo=UTC), lambda: str(uuid7()))


@pytest.fixture
async def log() -> MemoryLog:
    """Two parcels of the first release, one of the second."""
    old = MemoryLog()
    for event in (FIRST(2500), FIRST(500), SECOND(1.5)):
        await dispatcher_of(old, type(event))(parcels(type(event)), ACME, "p-1", event, ALICE)
    return old


async def told(log: MemoryLog, projection: Projection) -> Sequence[Entry]:
    """What this read model is given of the log."""
    source = EventSource(log, Codec([TODAY], upcasts=UPCASTS_OF_PARCEL))
    async with source.follow(after=0) as batches:
        return source.entries(projection, await anext(aiter(batches)))


async def test_a_command_decides_on_what_old_releases_stored_and_goes_on_from_there(log: MemoryLog) -> None:
    dispatch = dispatcher_of(log, THIRD)
    receipt = await dispatch(TODAY, ACME, "p-1", THIRD(1.0, "post"), ALICE)
    loaded = await dispatch.load(TODAY, ACME, "p-1")
    assert receipt.version == loaded.version == 4
    assert loaded.state == Sent(kg=5.5, carriers=("unknown", "unknown", "unknown", "post"))


async def test_a_read_model_sees_todays_fields_alone(log: MemoryLog, postgres_url: str) -> None:
    await dispatcher_of(log, THIRD)(TODAY, ACME, "p-1", THIRD(1.0, "post"), ALICE)
    entries = await told(log, PARCELS)
    async with await connect(postgres_url, "test") as connection:
        await build(connection, PARCELS, entries)
        rows = await (await connection.execute("SELECT * FROM parcels ORDER BY position")).fetchall()
        await connection.rollback()
    assert rows == [(1, 2.5, "unknown"), (2, 0.5, "unknown"), (3, 1.5, "unknown"), (4, 1.0, "post")]


async def test_the_audit_log_keeps_the_bytes_of_each_release(log: MemoryLog, postgres_url: str) -> None:
    stored = await log.read("evt.acme.parcel.p-1")
    async with await connect(postgres_url, "test") as connection:
        await build(connection, AUDIT_LOG, await told(log, AUDIT_LOG))
        listed = await list_events(connection, EventFilter(type="ParcelSent"))
        await connection.rollback()
    assert [found.payload for found in listed] == [message.payload for message in stored]
    assert [found.envelope.schema for found in listed] == [1, 1, 2]


async def test_a_release_that_is_rolled_back_stops_at_what_the_newer_one_stored(log: MemoryLog) -> None:
    with pytest.raises(UnknownEventError, match=r"schema 2 .* is newer than this release"):
        await dispatcher_of(log, FIRST)(parcels(FIRST), ACME, "p-1", FIRST(1), ALICE)
    assert await log.head() == 3
