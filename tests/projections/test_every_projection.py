"""Laws of all read models at once: however the same events are cut, live or rebuilt, the same rows come out."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import msgspec
import nats
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from nats.aio.client import Client

import projections.table
from domain.aggregates import AGGREGATES
from domain.usage import usage_subject
from infra.embedded.child import wait_until
from infra.embedded.nats import EmbeddedNats
from infra.events.codec import Codec
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.streams import ensure_streams
from infra.postgres import connect, ensure_schema
from infra.projecting import Bystanders, EventSource, Projector, Source, UsageSource
from infra.replay.rebuild import rebuild, table_hashes
from projections.checkpoint import position_of
from projections.projection import Projection, UsageEntry
from projections.registry import PROJECTIONS
from tests.conftest import some_port, started
from tests.examples import COMMAND_EXAMPLES
from tests.given import COMMANDS, NOON
from tests.projections.examples import usage_record
from tests.projections.grammar import Story, all_rows, build

PATIENCE_S = 60.0
ORGANIZATIONS = ("org-1", "org-2")
WAITS_S = (0, 3, 4000)
"""Nothing; past a drain's grace and a second sighting; past every deadline."""

_commands = st.tuples(
    st.sampled_from(ORGANIZATIONS), st.integers(1, 2), st.sampled_from(COMMAND_EXAMPLES), st.sampled_from(WAITS_S)
)
_requests = st.tuples(st.sampled_from("abcdef"), st.sampled_from(ORGANIZATIONS), st.integers(1, 2), st.integers(0, 90))


def _aggregate_id(organization: str, command: object, number: int) -> str:
    return f"{organization}-{COMMANDS[type(command)].aggregate}-{number}"


@st.composite
def histories(draw: st.DrawFn) -> "History":
    """First every command in good order, then any commands in any order."""
    story = Story()
    for command in COMMAND_EXAMPLES:
        story.asked("org-1", _aggregate_id("org-1", command, 1), command)
    for organization, number, command, seconds in draw(st.lists(_commands, max_size=40)):
        story.later(seconds).asked(organization, _aggregate_id(organization, command, number), command)
    usage = [
        UsageEntry(
            position,
            usage_record(
                request, at=NOON + timedelta(seconds=s), organization_id=organization, instance_id=f"instance-{number}"
            ),
        )
        for position, (request, organization, number, s) in enumerate(draw(st.lists(_requests, max_size=12)), start=1)
    ]
    return History(story, usage)


class History(NamedTuple):
    """What happened, on both streams."""

    story: Story
    usage: Sequence[UsageEntry]

    def of(self, projection: Projection) -> Sequence[Any]:
        """The entries that a projection is given."""
        return self.usage if projection.stream == "USAGE" else self.story.of(projection)


async def _rows(postgres_url: str, projection: Projection, entries: Sequence[Any], batches: Sequence[int]) -> Any:
    async with await connect(postgres_url, "test") as connection:
        await build(connection, projection, entries, batches=batches)
        rows = await all_rows(connection, projection)
        await connection.rollback()
    return rows


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda p: p.name)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), cuts=st.lists(st.integers(0, 100), max_size=6))
async def test_old_rows_and_new_events_make_the_rebuilt_rows(
    postgres_url: str, projection: Projection, history: History, cuts: list[int]
) -> None:
    entries = history.of(projection)
    rebuilt = await _rows(postgres_url, projection, entries, [])
    assert any(rebuilt.values()) == bool(entries)
    assert await _rows(postgres_url, projection, entries, [min(cut, len(entries)) for cut in cuts]) == rebuilt
    assert await _rows(postgres_url, projection, entries, range(len(entries))) == rebuilt
    with patch.object(projections.table, "MANY_ROWS", 1):  # by COPY, as a long replay writes them
        assert await _rows(postgres_url, projection, entries, [min(cut, len(entries)) for cut in cuts]) == rebuilt


@settings(
    max_examples=1, phases=[Phase.generate], deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(history=histories())
async def test_rebuilt_beside_the_living_ones_and_swapped_in_the_middle_the_rows_are_the_same(
    postgres_url: str, server_dir: Path, history: History
) -> None:
    """Twice: while the second half of the history is being appended, and once more when all is there."""
    async with _platform(server_dir, postgres_url) as (writer, sources):
        await _append(writer, history, part=0)
        await _visible(postgres_url, sources)
        appending = asyncio.create_task(_append(writer, history, part=1))
        await _rebuild_all(postgres_url, sources)
        await appending
        await _visible(postgres_url, sources)
        live = await _hashes(postgres_url)
        await _rebuild_all(postgres_url, sources)
        assert await _hashes(postgres_url) == live
    for projection in PROJECTIONS:
        async with await connect(postgres_url, "test", search_path=projection.schema) as connection:
            kept = await all_rows(connection, projection)
            await connection.execute(f"DROP SCHEMA {projection.schema} CASCADE")
            await connection.execute("DELETE FROM platform.checkpoints")
            await build(connection, projection, history.of(projection))
            assert kept == await all_rows(connection, projection)
            await connection.rollback()


@asynccontextmanager
async def _platform(server_dir: Path, postgres_url: str) -> AsyncIterator[tuple[Client, Mapping[str, Source]]]:
    """On an empty log and an empty Postgres; every read model is kept by a projector of its own meanwhile."""
    async with await connect(postgres_url, "test") as connection:
        for schema in ["platform", *(projection.schema for projection in PROJECTIONS)]:
            await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    async with _nats(server_dir / secrets.token_hex(4)) as nats_server, _kept(nats_server, postgres_url) as platform:
        yield platform


@asynccontextmanager
async def _nats(folder: Path) -> AsyncIterator[EmbeddedNats]:
    server = await started(lambda: EmbeddedNats(folder, some_port()))
    try:
        admin = await nats.connect(server.admin_url)
        await ensure_streams(admin)
        await admin.close()
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def _kept(nats_server: EmbeddedNats, postgres_url: str) -> AsyncIterator[tuple[Client, Mapping[str, Source]]]:
    writer, reader = await connect_writer(nats_server.url, "test"), await connect_reader(nats_server.url, "test")
    events = EventSource(JetStreamLog(reader), Codec(AGGREGATES))
    sources: dict[str, Source] = {"EVENTS": events, "USAGE": UsageSource(reader)}
    bystanders = Bystanders(postgres_url)
    projectors = [Projector(p, sources[p.stream], postgres_url, bystanders) for p in PROJECTIONS]
    tasks = [asyncio.create_task(projector.run()) for projector in projectors]
    try:
        for projector in projectors:
            await projector.started.wait()
        yield writer, sources
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bystanders.close()
        await disconnect(writer)
        await disconnect(reader)


async def _append(writer: Client, history: History, *, part: int) -> None:
    """One half of the history; the platform is at work while the second comes, event by event."""
    appends, usage = history.story.appends(), history.usage
    log, middle, between = JetStreamLog(writer), len(appends) // 2, len(usage) // 2
    for append in appends[middle:] if part else appends[:middle]:
        await log.append([append])
    for entry in usage[between:] if part else usage[:between]:
        subject = usage_subject(entry.record.organization_id, entry.record.deployment_id)
        await writer.request(subject, msgspec.json.encode(entry.record))


async def _visible(postgres_url: str, sources: Mapping[str, Source]) -> None:
    heads = {stream: await source.head() for stream, source in sources.items()}

    async def at_the_heads() -> bool:
        async with await connect(postgres_url, "test") as connection:
            return all([await position_of(connection, p) == heads[p.stream] for p in PROJECTIONS])

    await wait_until(at_the_heads, "every read model at its stream's end", PATIENCE_S)


async def _rebuild_all(postgres_url: str, sources: Mapping[str, Source]) -> None:
    await asyncio.gather(*(rebuild(p, sources[p.stream], postgres_url) for p in PROJECTIONS))


async def _hashes(postgres_url: str) -> dict[str, dict[str, str]]:
    async with await connect(postgres_url, "test") as connection:
        return {projection.name: await table_hashes(connection, projection) for projection in PROJECTIONS}


def test_every_table_name_belongs_to_one_projection() -> None:
    """Readers find all tables on one search path."""
    tables = [table for projection in PROJECTIONS for table in projection.table_names]
    assert len(set(tables)) == len(tables)


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda p: p.name)
async def test_the_tables_of_a_projection_are_read_from_its_ddl(postgres_url: str, projection: Projection) -> None:
    """Readers lock the first of them, a swap locks all, a comparison hashes all: none may be missing."""
    async with await connect(postgres_url, "test", search_path=projection.schema) as connection:
        await ensure_schema(connection, projection)
        assert sorted(projection.table_names) == sorted(await all_rows(connection, projection))


def test_every_projection_has_a_name_of_its_own() -> None:
    assert len({projection.name for projection in PROJECTIONS}) == len(PROJECTIONS)
