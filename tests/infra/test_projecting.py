"""Keeping read models: each event exactly once, whoever dies, and never by two writers."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from structlog.testing import capture_logs

import infra.projecting
from domain.aggregates import AGGREGATES
from domain.api_key import ApiKeyIssued, ApiKeyRenamed
from domain.message import Recorded
from domain.usage import usage_subject
from infra.embedded.child import spawn, wait_until
from infra.embedded.nats import EmbeddedNats
from infra.embedded.postgres import EmbeddedPostgres
from infra.events.codec import Codec
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.memory import MemoryLog
from infra.events.port import EventLog, GapError
from infra.postgres import ReadModels, ReadModelUnavailableError, connect, ensure_schema
from infra.projecting import AnotherWriterError, Bystanders, EventSource, Projector, UsageSource
from projections.api_keys import API_KEYS
from projections.audit_log import AUDIT_LOG, EventFilter, list_events
from projections.checkpoint import Move, begin, move, position_of
from projections.models import MODELS
from projections.projection import EVERYTHING, Connection, Entry, Projection
from projections.registry import PROJECTIONS
from projections.usage import USAGE, list_requests
from tests.conftest import some_port, started
from tests.examples import example
from tests.projections.examples import usage_record
from tests.projections.grammar import Story

PATIENCE_S = 60.0
KILLS = 3


async def _count(entries: Sequence[Entry], connection: Connection) -> None:
    """Not idempotent on purpose: an event that is applied twice is counted twice."""
    await connection.execute("UPDATE counted SET events = events + %s", (len(entries),))


COUNTED = Projection(
    "counted",
    1,
    "CREATE TABLE counted (events bigint NOT NULL); INSERT INTO counted VALUES (0)",
    _count,
    aggregates=frozenset({"api_key"}),
)


def renames(count: int) -> Story:
    """One key, renamed again and again."""
    names = [ApiKeyRenamed(name=f"name {n}") for n in range(count - 1)]
    return Story().happened("acme", "k-1", example(ApiKeyIssued), *names)


async def stored(log: EventLog, story: Story, *, start: int = 0, end: int | None = None) -> None:
    for append in story.appends()[start:end]:
        await log.append([append])


async def logged(count: int) -> MemoryLog:
    log = MemoryLog()
    await stored(log, renames(count))
    return log


def events_of(log: EventLog) -> EventSource:
    return EventSource(log, Codec(AGGREGATES))


@asynccontextmanager
async def kept(*projectors: Projector) -> AsyncIterator[None]:
    """They run meanwhile."""
    tasks = [asyncio.create_task(projector.run()) for projector in projectors]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def bystanders(postgres_url: str) -> AsyncIterator[Bystanders]:
    together = Bystanders(postgres_url)
    yield together
    await together.close()


async def counted(postgres_url: str) -> int:
    async with await connect(postgres_url, "test") as connection:
        (row,) = await (await connection.execute("SELECT events FROM counted_v1.counted")).fetchall()
        return int(row[0])


def reader(postgres_url: str, *projections: Projection) -> ReadModels:
    return ReadModels(postgres_url, projections=projections, wait_s=PATIENCE_S, scope=EVERYTHING)


async def reached(postgres_url: str, position: int, *projections: Projection) -> None:
    """Bounded by the reader's own patience."""
    async with reader(postgres_url, *projections) as read, read(*(p.name for p in projections), position=position):
        pass


async def test_events_become_rows(postgres_url: str) -> None:
    log = await logged(3)
    async with bystanders(postgres_url) as others, kept(Projector(COUNTED, events_of(log), postgres_url, others)):
        await reached(postgres_url, 3, COUNTED)
    assert await counted(postgres_url) == 3


async def test_a_commit_that_a_crash_took_back_is_made_again_without_waiting_for_an_event(postgres_url: str) -> None:
    """What a crashed Postgres leaves: the connection is gone, and so are the last transaction's rows and checkpoint."""
    log = await logged(3)
    async with bystanders(postgres_url) as others, kept(Projector(COUNTED, events_of(log), postgres_url, others)):
        await reached(postgres_url, 3, COUNTED)
        async with await connect(postgres_url, "crash") as crash:
            await crash.execute("UPDATE counted_v1.counted SET events = 0")
            await crash.execute("UPDATE platform.checkpoints SET position = 0 WHERE name = 'counted'")
            await crash.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'inventiv-projection-counted' AND datname = current_database()"
            )

        async def made_again() -> bool:
            return await counted(postgres_url) == 3

        await wait_until(made_again, "the rows are back", PATIENCE_S)


async def test_a_second_writer_stops_before_it_writes(postgres_url: str) -> None:
    """Both believe that they are at the beginning, and the first has moved on."""
    log = await logged(3)
    async with bystanders(postgres_url) as others:
        second = Projector(COUNTED, _HeldBack(events_of(log), postgres_url), postgres_url, others)
        with pytest.raises(AnotherWriterError, match="another writer keeps counted_v1"):
            await second.keep()
    assert await counted(postgres_url) == 3


async def test_without_the_fence_a_second_writer_would_count_double(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test before: the same race, and a checkpoint that moves from anywhere."""
    log = await logged(3)

    async def begin_from_anywhere(connection: Connection, wanted: Move) -> bool:
        here = await position_of(connection, wanted.projection)
        return await begin(connection, msgspec.structs.replace(wanted, previous=here))

    monkeypatch.setattr(infra.projecting, "begin", begin_from_anywhere)
    async with bystanders(postgres_url) as others:
        second = Projector(COUNTED, _HeldBack(events_of(log), postgres_url), postgres_url, others)
        async with kept(second):
            await wait_until(lambda: _has_counted(postgres_url, 6), "the double count", PATIENCE_S)
    assert await counted(postgres_url) == 6


async def _has_counted(postgres_url: str, events: int) -> bool:
    try:
        return await counted(postgres_url) >= events
    except psycopg.errors.UndefinedTable:
        return False


async def test_a_new_version_is_shown_when_it_has_caught_up(postgres_url: str) -> None:
    log = await logged(30)
    may_go_on = asyncio.Event()

    async def wait_then_count(entries: Sequence[Entry], connection: Connection) -> None:
        await may_go_on.wait()
        await _count(entries, connection)

    slow = replace(COUNTED, version=2, apply=wait_then_count)
    async with bystanders(postgres_url) as others, reader(postgres_url, slow) as read:
        projector = Projector(slow, events_of(log), postgres_url, others)
        async with kept(projector):
            await projector.started.wait()
            with pytest.raises(ReadModelUnavailableError, match="counted_v2 is being built: 0 %"):
                await read("counted").__aenter__()
            assert not projector.built.is_set()
            may_go_on.set()
            await projector.built.wait()
            async with read("counted") as connection:
                assert await position_of(connection, slow) == 30


async def test_projections_that_are_near_share_one_reading(postgres_url: str) -> None:
    log = _Watched(await logged(30))
    source = EventSource(log, Codec(AGGREGATES))
    several = [replace(COUNTED, name=f"counted_{n}") for n in range(4)]
    async with (
        bystanders(postgres_url) as others,
        kept(*(Projector(p, source, postgres_url, others) for p in several)),
    ):
        await reached(postgres_url, 30, *several)
    assert log.followed == [0]


class _Watched(MemoryLog):
    """Remembers from where it was followed."""

    def __init__(self, log: MemoryLog) -> None:
        super().__init__()
        self.__dict__.update(log.__dict__)
        self.followed: list[int] = []

    @asynccontextmanager
    async def follow(
        self, *, after: int, subjects: Sequence[str] = (), batch: int = 500
    ) -> AsyncIterator[AsyncIterator[Sequence[Recorded]]]:
        self.followed.append(after)
        async with super().follow(after=after, subjects=subjects, batch=batch) as batches:
            yield batches


async def test_two_writers_at_once_count_each_event_once(postgres_url: str) -> None:
    log = await logged(1)
    async with bystanders(postgres_url) as others:
        pair = [Projector(COUNTED, events_of(log), postgres_url, others) for _ in range(2)]
        with capture_logs():
            async with kept(*pair):
                await stored(log, renames(100), start=1)
                await reached(postgres_url, 100, COUNTED)
    assert await counted(postgres_url) == 100


class _HeldBack:
    """Gives its first batch only after another writer has applied it."""

    def __init__(self, source: EventSource, postgres_url: str) -> None:
        self._source = source
        self._postgres_url = postgres_url
        self.entries = source.entries
        self.head = source.head

    @asynccontextmanager
    async def follow(self, *, after: int) -> AsyncIterator[AsyncIterator[Sequence[Any]]]:
        async with (
            bystanders(self._postgres_url) as others,
            kept(Projector(COUNTED, self._source, self._postgres_url, others)),
        ):
            await reached(self._postgres_url, 3, COUNTED)
        async with self._source.follow(after=after) as batches:
            yield batches


async def test_a_crash_in_the_middle_of_a_batch_leaves_nothing_of_it(postgres_url: str) -> None:
    log = await logged(3)
    crashes = iter([True, False])

    async def count_then_crash(entries: Sequence[Entry], connection: Connection) -> None:
        await _count(entries, connection)
        if next(crashes):
            raise RuntimeError("the second half of the batch fails")

    fragile = replace(COUNTED, apply=count_then_crash)
    async with bystanders(postgres_url) as others:
        with capture_logs() as lines:
            async with kept(Projector(fragile, events_of(log), postgres_url, others)):
                await reached(postgres_url, 3, fragile)
    assert await counted(postgres_url) == 3
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["projection_failed"]


async def test_one_that_fails_does_not_touch_the_others(postgres_url: str) -> None:
    log = await logged(3)

    async def fail(_entries: Sequence[Entry], _connection: Connection) -> None:
        raise RuntimeError("a bug")

    broken = replace(COUNTED, name="broken", apply=fail)
    async with bystanders(postgres_url) as others, reader(postgres_url, API_KEYS, broken) as read:
        source = events_of(log)
        with capture_logs():
            async with kept(
                Projector(broken, source, postgres_url, others), Projector(API_KEYS, source, postgres_url, others)
            ):
                await reached(postgres_url, 3, API_KEYS)
        async with read("api_keys") as connection:
            assert await position_of(connection, broken) == 0
            assert await position_of(connection, API_KEYS) == 3


async def test_those_without_an_interest_move_along(postgres_url: str) -> None:
    log = await logged(1)
    idle = [replace(COUNTED, name=f"idle_{n}", aggregates=frozenset({"model"})) for n in range(4)]
    async with (
        bystanders(postgres_url) as others,
        kept(*(Projector(p, events_of(log), postgres_url, others) for p in idle)),
    ):
        await reached(postgres_url, 1, *idle)
        await stored(log, renames(5), start=1)
        await reached(postgres_url, 5, *idle)


async def test_a_bystander_with_another_writer_stops_alone(postgres_url: str) -> None:
    mine, theirs = (replace(COUNTED, name=name) for name in ("mine", "theirs"))
    async with await connect(postgres_url, "test") as connection:
        for projection in (mine, theirs):
            await ensure_schema(connection, projection)
        await move(connection, [Move(theirs, 0, 5)])
    async with bystanders(postgres_url) as others:
        ends = await asyncio.gather(
            others.move(Move(mine, 0, 1)), others.move(Move(theirs, 0, 1)), return_exceptions=True
        )
    assert ends[0] is None
    assert isinstance(ends[1], AnotherWriterError)


async def test_a_log_that_is_shorter_than_the_checkpoint_stops_the_projection(postgres_url: str) -> None:
    """The log was replaced; to go on would mix two histories."""
    async with await connect(postgres_url, "test") as connection:
        await ensure_schema(connection, COUNTED)
        await move(connection, [Move(COUNTED, 0, 9)])
    async with bystanders(postgres_url) as others:
        projector = Projector(COUNTED, events_of(await logged(3)), postgres_url, others)
        with pytest.raises(GapError, match="ends at 3, but position 9 has been seen"):
            await projector.keep()


async def test_a_damaged_log_is_said_aloud(postgres_url: str) -> None:
    story = renames(3)
    hole = story.appends()
    log = MemoryLog()
    await log.append([hole[0]])
    await log.append([msgspec.structs.replace(hole[2], expected=1)])
    async with bystanders(postgres_url) as others:
        with capture_logs() as lines:
            async with kept(Projector(AUDIT_LOG, events_of(log), postgres_url, others)):

                async def said() -> bool:
                    return any(line["event"] == "log_damaged" for line in lines)

                await wait_until(said, "the alarm", PATIENCE_S)
    (line,) = [line for line in lines if line["event"] == "log_damaged"]
    assert "log damaged at position 2" in line["reason"]
    assert line["log_level"] == "critical"


async def test_usage_is_read_from_its_own_stream(postgres_url: str, nats_server: EmbeddedNats) -> None:
    nc = await connect_writer(nats_server.url, "test")
    for request in ("r-1", "r-2", "r-1"):
        record = usage_record(request)
        subject = usage_subject(record.organization_id, record.deployment_id)
        await nc.request(subject, msgspec.json.encode(record))
    async with (
        bystanders(postgres_url) as others,
        reader(postgres_url, USAGE) as read,
        kept(Projector(USAGE, UsageSource(nc), postgres_url, others)),
    ):
        await wait_until(lambda: _has_requests(read, {"r-1", "r-2"}), "the usage", PATIENCE_S)
    await disconnect(nc)


async def test_a_lost_stream_of_usage_is_said_aloud_rather_than_counted_as_nothing(
    postgres_url: str, nats_server: EmbeddedNats
) -> None:
    """Else new records would take the positions of lost ones, and pass uncounted."""
    async with await connect(postgres_url, "test") as connection:
        await ensure_schema(connection, USAGE)
        await move(connection, [Move(USAGE, 0, 1_000_000)])
    nc = await connect_writer(nats_server.url, "test")
    async with bystanders(postgres_url) as others:
        projector = Projector(USAGE, UsageSource(nc), postgres_url, others)
        with capture_logs() as lines:
            async with kept(projector):

                async def said() -> bool:
                    return any(line["event"] == "log_damaged" for line in lines)

                await wait_until(said, "the alarm", PATIENCE_S)
    (line,) = [line for line in lines if line["event"] == "log_damaged"]
    assert "but position 1000000 has been seen" in line["reason"]
    assert line["log_level"] == "critical"
    await disconnect(nc)


async def _has_requests(read: ReadModels, wanted: set[str]) -> bool:
    try:
        async with read("usage") as connection:
            return {row.request_id for row in await list_requests(connection, "org-1")} == wanted
    except ReadModelUnavailableError:
        return False


async def test_it_goes_on_after_nats_and_postgres_were_killed(server_dir: Path, nats_server: EmbeddedNats) -> None:
    story = renames(60)
    postgres = await started(lambda: EmbeddedPostgres(server_dir / "postgres", some_port()))
    nc = await connect_reader(nats_server.url, "test")
    log = JetStreamLog(nc)
    try:
        async with bystanders(postgres.url) as others:
            projectors = [Projector(p, events_of(log), postgres.url, others) for p in (COUNTED, MODELS)]
            with capture_logs():
                async with kept(*projectors):
                    await stored(log, story, start=0, end=20)
                    await reached(postgres.url, 20, COUNTED, MODELS)
                    await nats_server.kill()
                    await nats_server.start()
                    await stored(log, story, start=20, end=40)
                    await postgres.kill()
                    await stored(log, story, start=40, end=60)
                    await postgres.start()
                    await reached(postgres.url, 60, COUNTED, MODELS)
        assert await counted(postgres.url) == 60
    finally:
        await disconnect(nc)
        await postgres.stop()


PROCESS = """
import asyncio
from infra.environment import read_environment
from infra.processes.projections import run
asyncio.run(run(read_environment()))
"""


async def test_the_process_may_be_killed_at_any_moment(
    server_dir: Path, postgres_url: str, nats_server: EmbeddedNats
) -> None:
    """Every envelope is a row once, and what was counted from them is right, after several kill -9."""
    story = renames(200)
    nc = await connect_writer(nats_server.url, "test")
    log = JetStreamLog(nc)
    settings = {
        "INVENTIV_DATA_DIR": str(server_dir),
        "INVENTIV_NATS_URL": nats_server.url,
        "INVENTIV_NATS_MONITOR_URL": nats_server.monitor_url,
        "INVENTIV_POSTGRES_URL": postgres_url,
    }

    async def start() -> asyncio.subprocess.Process:
        return await spawn([sys.executable, "-c", PROCESS], env=settings, log_path=server_dir / "process.log")

    step = len(story.entries) // (KILLS + 1)
    for kill in range(KILLS):
        process = await start()
        writing = asyncio.create_task(stored(log, story, start=kill * step, end=(kill + 1) * step))
        await reached(postgres_url, kill * step + step // 2, AUDIT_LOG)
        process.kill()
        await process.wait()
        await writing
    process = await start()
    await stored(log, story, start=KILLS * step)
    await reached(postgres_url, len(story.entries), *(p for p in PROJECTIONS if p.stream == "EVENTS"))
    process.terminate()
    assert await process.wait() == 0, (server_dir / "process.log").read_text()
    async with reader(postgres_url, *PROJECTIONS) as read, read("audit_log") as connection:
        events = await list_events(connection, EventFilter(), limit=500)
    assert [event.payload for event in events] == [entry.payload for entry in story.entries]
    await disconnect(nc)
