"""Rebuilding a read model beside the living one: same rows, no reader sees half, and the living one goes on."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from psycopg.rows import scalar_row

import infra.following
import infra.projecting
import infra.replay.rebuild
from infra.embedded.child import wait_until
from infra.events.memory import MemoryLog
from infra.postgres import ReadModels, connect, ensure_schema
from infra.projecting import AnotherWriterError, EventSource, Projector
from infra.replay.rebuild import (
    REBUILD_LOCK,
    AheadOfStreamError,
    RebuildRunningError,
    SwapHeldUpError,
    compare,
    drop_schema,
    rebuild,
    table_hashes,
)
from infra.replay.superseded import find_leftovers
from projections.api_keys import API_KEYS, list_api_keys
from projections.checkpoint import Move, list_checkpoints, move
from projections.projection import BESIDE, EVERYTHING, NOBODY, Connection, Entry, Projection, Scope
from projections.registry import PROJECTIONS
from tests.infra.test_projecting import (
    COUNTED,
    bystanders,
    counted,
    events_of,
    kept,
    logged,
    reached,
    renames,
    stored,
)

PATIENCE_S = 60.0
ACME = Scope(organization="acme")


async def built(postgres_url: str, log: MemoryLog, *projections: Projection) -> None:
    """Built by their projectors, up to the log's end; nobody keeps them afterwards."""
    async with (
        bystanders(postgres_url) as others,
        kept(*(Projector(p, events_of(log), postgres_url, others) for p in projections)),
    ):
        await reached(postgres_url, await log.head(), *projections)


async def spoil(postgres_url: str, statement: str) -> None:
    async with await connect(postgres_url, "test") as connection:
        await connection.execute(statement)


async def schemas(postgres_url: str) -> dict[str, int]:
    """Of all checkpoints, with their positions."""
    async with await connect(postgres_url, "test") as connection:
        return {known.schema: known.position for known in await list_checkpoints(connection)}


async def hashes(postgres_url: str, projection: Projection) -> dict[str, str]:
    async with await connect(postgres_url, "test") as connection:
        return await table_hashes(connection, projection)


async def test_wrong_rows_are_replaced_by_what_the_log_says(postgres_url: str) -> None:
    log = await logged(30)
    await built(postgres_url, log, API_KEYS)
    right = await hashes(postgres_url, API_KEYS)
    await spoil(postgres_url, f"UPDATE {API_KEYS.schema}.api_keys SET name = 'wrong'")
    assert await hashes(postgres_url, API_KEYS) != right
    done = await rebuild(API_KEYS, events_of(log), postgres_url)
    assert (done.position, done.messages) == (30, 30)
    assert await hashes(postgres_url, API_KEYS) == right
    assert await schemas(postgres_url) == {API_KEYS.schema: 30}


async def test_the_living_projector_goes_on_across_the_swap(postgres_url: str) -> None:
    """Events keep coming before, during and after several swaps; each is counted once."""
    log, story = await logged(1), renames(400)

    async def write() -> None:
        for position in range(1, 400):
            await stored(log, story, start=position, end=position + 1)
            await asyncio.sleep(0)

    async with bystanders(postgres_url) as others, kept(Projector(COUNTED, events_of(log), postgres_url, others)):
        writing = asyncio.create_task(write())
        for _ in range(5):
            await rebuild(COUNTED, events_of(log), postgres_url)
        await writing
        await reached(postgres_url, 400, COUNTED)
    assert await counted(postgres_url) == 400


async def test_a_projector_that_was_behind_the_rebuilt_one_is_fenced(postgres_url: str) -> None:
    """It has read events 1 to 10, and is about to apply them, when rows of all 30 take the place of its own."""
    log = await logged(30)
    async with bystanders(postgres_url) as others:
        late = Projector(COUNTED, _AfterRebuild(events_of(log), postgres_url), postgres_url, others)
        with pytest.raises(AnotherWriterError, match="no longer at 0"):
            await late.keep()
        assert await counted(postgres_url) == 30
        async with kept(Projector(COUNTED, events_of(log), postgres_url, others)):
            await stored(log, renames(31), start=30)
            await reached(postgres_url, 31, COUNTED)
    assert await counted(postgres_url) == 31


class _AfterRebuild:
    """Gives its first batch only after a rebuild."""

    def __init__(self, source: EventSource, postgres_url: str) -> None:
        self._source = source
        self._postgres_url = postgres_url
        self.entries = source.entries
        self.head = source.head

    @asynccontextmanager
    async def follow(self, *, after: int) -> AsyncIterator[AsyncIterator[Sequence[Any]]]:
        await rebuild(COUNTED, self._source, self._postgres_url)
        async with self._source.follow(after=after) as batches:
            yield batches


class _HeadBehind:
    """Believes at first that the stream ends earlier, as it did when the rebuild began."""

    def __init__(self, source: EventSource, *heads: int) -> None:
        self._source = source
        self._heads = list(heads)
        self.entries = source.entries
        self.follow = source.follow

    async def head(self) -> int:
        return self._heads.pop(0) if self._heads else await self._source.head()


async def test_what_came_meanwhile_is_folded_while_the_living_one_waits(postgres_url: str) -> None:
    log = await logged(30)
    await built(postgres_url, log, COUNTED)
    done = await rebuild(COUNTED, _HeadBehind(events_of(log), 30, 20), postgres_url)
    assert (done.position, done.attempts) == (30, 1)
    assert await counted(postgres_url) == 30


async def test_if_too_much_came_it_is_folded_before_the_next_try(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(infra.replay.rebuild, "MOST_MISSING", 5)
    log = await logged(30)
    await built(postgres_url, log, COUNTED)
    done = await rebuild(COUNTED, _HeadBehind(events_of(log), 30, 20), postgres_url)
    assert (done.position, done.attempts) == (30, 2)
    assert await counted(postgres_url) == 30


async def test_a_reader_that_has_begun_holds_up_the_swap_and_sees_its_own_moment(postgres_url: str) -> None:
    log = await logged(30)
    await built(postgres_url, log, API_KEYS)
    async with ReadModels(postgres_url) as read:
        async with read("api_keys", scope=ACME) as connection:
            rebuilding = asyncio.create_task(rebuild(API_KEYS, events_of(log), postgres_url))

            async def tried() -> bool:
                return API_KEYS.beside.schema in await schemas(postgres_url)

            await wait_until(tried, "the rebuild has begun", PATIENCE_S)
            await asyncio.wait({rebuilding}, timeout=0.3)
            assert not rebuilding.done()
            assert len(await list_api_keys(connection, "acme")) == 1
        assert (await rebuilding).attempts > 1
        async with read("api_keys", scope=ACME) as connection:
            assert len(await list_api_keys(connection, "acme")) == 1


async def test_a_rebuilt_read_model_is_behind_the_same_wall(postgres_url: str) -> None:
    log = await logged(30)
    await built(postgres_url, log, API_KEYS)
    await rebuild(API_KEYS, events_of(log), postgres_url)
    async with ReadModels(postgres_url) as read:
        seen = [await keys_seen(read, scope) for scope in (NOBODY, Scope(organization="globex"), ACME, EVERYTHING)]
    assert seen == [0, 0, 1, 1]


async def keys_seen(read: ReadModels, scope: Scope) -> int:
    """By a query that names no tenant."""
    async with read("api_keys", scope=scope) as connection, connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT count(*) FROM api_keys")
        return int(await cursor.fetchone() or 0)


async def test_without_the_readers_lock_it_would_see_half(postgres_url: str) -> None:
    """The control of the test before: its moment is older than the new rows, and the old ones are gone."""
    log = await logged(30)
    await built(postgres_url, log, API_KEYS)
    async with await connect(postgres_url, "test", search_path=API_KEYS.schema) as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.execute("SELECT 1")
        assert (await rebuild(API_KEYS, events_of(log), postgres_url)).attempts == 1
        assert await list_api_keys(connection, "acme") == []


async def test_a_reader_that_does_not_end_is_not_driven_out(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(infra.replay.rebuild, "SWAP_ATTEMPTS", 2)
    log = await logged(30)
    await built(postgres_url, log, API_KEYS)
    await spoil(postgres_url, f"UPDATE {API_KEYS.schema}.api_keys SET name = 'as it was'")
    async with ReadModels(postgres_url) as read, read("api_keys", scope=ACME) as connection:
        with pytest.raises(SwapHeldUpError, match=f"{API_KEYS.schema} was in use at each of 2 attempts"):
            await rebuild(API_KEYS, events_of(log), postgres_url)
        assert [key.name for key in await list_api_keys(connection, "acme")] == ["as it was"]


async def _interrupted(postgres_url: str, log: MemoryLog, monkeypatch: pytest.MonkeyPatch) -> int:
    """A rebuild that ends in its middle; returns how far it came."""
    monkeypatch.setattr(infra.projecting, "READ_MESSAGES", 10)
    monkeypatch.setattr(infra.following, "TAKE_MESSAGES", 10)

    def stop(messages: int) -> None:
        if messages:
            raise InterruptedError("stopped in the middle")

    with pytest.raises(InterruptedError):
        await rebuild(COUNTED, events_of(log), postgres_url, advance=stop)
    return (await schemas(postgres_url))["counted_next_v1"]


async def test_a_rebuild_after_an_interrupted_one_starts_over(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await logged(30)
    await built(postgres_url, log, COUNTED)
    assert await _interrupted(postgres_url, log, monkeypatch) == 10
    assert await counted(postgres_url) == 30
    await spoil(postgres_url, "UPDATE counted_next_v1.counted SET events = 999")
    assert (await rebuild(COUNTED, events_of(log), postgres_url)).messages == 30
    assert await counted(postgres_url) == 30
    assert await schemas(postgres_url) == {"counted_v1": 30}


async def test_or_goes_on_with_it_if_so_told(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    log = await logged(30)
    await _interrupted(postgres_url, log, monkeypatch)
    assert (await rebuild(COUNTED, events_of(log), postgres_url, resume=True)).messages == 20
    assert await counted(postgres_url) == 30


async def test_one_read_model_has_one_rebuild_at_a_time(postgres_url: str) -> None:
    log = await logged(30)
    ends = await asyncio.gather(
        *(rebuild(COUNTED, events_of(log), postgres_url) for _ in range(2)), return_exceptions=True
    )
    assert [type(end) for end in ends if isinstance(end, Exception)] in ([], [RebuildRunningError])
    async with await connect(postgres_url, "test", autocommit=True) as connection:
        await connection.execute("SELECT pg_advisory_lock(%s, hashtext('counted_next_v1'))", (REBUILD_LOCK,))
        with pytest.raises(RebuildRunningError, match="counted is being rebuilt by somebody else"):
            await rebuild(COUNTED, events_of(log), postgres_url)
    assert await counted(postgres_url) == 30


async def test_rows_that_the_log_does_not_say_are_found_and_left_alone(postgres_url: str) -> None:
    log = await logged(30)
    async with bystanders(postgres_url) as others, kept(Projector(API_KEYS, events_of(log), postgres_url, others)):
        await reached(postgres_url, 30, API_KEYS)
        assert (await compare(API_KEYS, events_of(log), postgres_url)).differences == ()
        await spoil(postgres_url, f"UPDATE {API_KEYS.schema}.api_keys SET name = 'wrong'")
        found = await compare(API_KEYS, events_of(log), postgres_url)
    (difference,) = found.differences
    assert (difference.table, difference.only_living, difference.only_rebuilt) == ("api_keys", 1, 1)
    assert difference.keys == ("k-1",)
    assert await schemas(postgres_url) == {API_KEYS.schema: 30}


async def test_a_comparison_holds_while_events_keep_coming(postgres_url: str) -> None:
    log, story = await logged(1), renames(300)

    async def write() -> None:
        for position in range(1, 300):
            await stored(log, story, start=position, end=position + 1)
            await asyncio.sleep(0)

    async with bystanders(postgres_url) as others, kept(Projector(COUNTED, events_of(log), postgres_url, others)):
        await reached(postgres_url, 1, COUNTED)
        writing = asyncio.create_task(write())
        assert (await compare(COUNTED, events_of(log), postgres_url)).differences == ()
        await writing
        await reached(postgres_url, 300, COUNTED)
    assert await counted(postgres_url) == 300


async def test_a_read_model_ahead_of_its_stream_is_rebuilt_but_not_compared(postgres_url: str) -> None:
    """The log was restored, and is shorter than what was read from it."""
    await built(postgres_url, await logged(30), COUNTED)
    shorter = await logged(20)
    with pytest.raises(AheadOfStreamError, match="counted_v1 is at 30, but its stream ends at 20"):
        await compare(COUNTED, events_of(shorter), postgres_url)
    await rebuild(COUNTED, events_of(shorter), postgres_url)
    assert await counted(postgres_url) == 20
    assert await schemas(postgres_url) == {"counted_v1": 20}
    await reached(postgres_url, 20, COUNTED)


async def test_hashes_tell_rows_and_not_their_order(postgres_url: str) -> None:
    async def hashed(*rows: str) -> dict[str, str]:
        async with await connect(postgres_url, "test") as connection:
            await ensure_schema(connection, pairs)
            for row in rows:
                await connection.execute(f"INSERT INTO pairs_v1.pairs VALUES {row}")
            found = await table_hashes(connection, pairs)
            await connection.rollback()
            return found

    async def nothing(_entries: Sequence[Entry], _connection: Connection) -> None: ...

    tables = "CREATE TABLE pairs (a text, b bigint, at timestamptz, PRIMARY KEY (a, b))"
    pairs = Projection("pairs", 1, tables, nothing)
    one, other = "('B', 1, '2026-11-21T12:00:00Z')", "('a', 2, '2026-11-21T13:00:00+01')"
    assert await hashed(one, other) == await hashed(other, one)
    assert await hashed(one) != await hashed(other)


async def test_older_versions_go_when_their_successor_has_caught_up(postgres_url: str) -> None:
    older = replace(API_KEYS, version=API_KEYS.version - 1)
    async with await connect(postgres_url, "test") as connection:
        await ensure_schema(connection, older)
        await ensure_schema(connection, API_KEYS.beside)
        await ensure_schema(connection, API_KEYS, head=9)
        await move(connection, [Move(older, 0, 5), Move(API_KEYS, 0, 7)])
        left = await find_leftovers(connection)
        assert [c.schema for c in left.unfinished] == [API_KEYS.beside.schema]
        assert ([c.schema for c in left.droppable], [c.schema for c in left.needed]) == ([], [older.schema])
        await move(connection, [Move(API_KEYS, 7, 9)])
        left = await find_leftovers(connection)
        assert ([c.schema for c in left.droppable], left.needed) == ([older.schema], ())
        await drop_schema(connection, left.droppable[0])
    assert await schemas(postgres_url) == {API_KEYS.beside.schema: 0, API_KEYS.schema: 9}


def test_no_read_model_is_named_like_a_rebuild() -> None:
    assert not [projection.name for projection in PROJECTIONS if projection.name.endswith(BESIDE)]
