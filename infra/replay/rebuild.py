"""Builds a read model anew from its stream, beside the living one, and swaps it in; or compares the two.

    stream from 0 ──> <name>_next_v1, with a checkpoint of its own ──> as far as the living one
      rebuild:  one transaction: lock the living checkpoint, fold what is missing, rename the schemas, drop the old
      compare:  hold both at one position, hash every table of both, drop the new one

The living projector goes on meanwhile. During the swap it waits at its checkpoint's row, and afterwards finds the
position that it expected, or is fenced and starts again from the one it finds. A reader that has begun holds up the
swap, and one that comes during it waits and sees the new tables. The surprising rule: the swap never waits long for its
locks, since whoever waits for a lock makes all later readers wait as well; it gives way, and tries again.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import scalar_row

from infra.postgres import ensure_schema
from infra.projecting import Source, connect_projector
from infra.replay.tables import Difference, differences, table_hashes
from projections.checkpoint import Checkpoint, Move, move, position_of
from projections.projection import Connection, Projection

__all__ = ["Rebuilt", "compare", "drop_schema", "rebuild", "table_hashes"]

SWAP_LOCK_TIMEOUT_MS = 250
"""How long readers may be held up by a swap that waits for one of them."""
SWAP_ATTEMPTS = 40
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
"""40 attempts are about 80 s: longer than any statement of a reader may take."""
MOST_MISSING = 2_000
"""Events that may be folded while the living projector waits: a tenth of a second."""
SILENCE_S = 60.0
"""A stream that has more to give and says nothing for so long is not answering."""
REBUILD_LOCK = 0x1A6E
"""Advisory lock of a rebuild, together with the hash of the schema that it builds."""

Advance = Callable[[int], None]


class RebuildRunningError(RuntimeError):
    """Somebody else rebuilds this read model now."""


class SwapHeldUpError(RuntimeError):
    """Readers or the living projector did not let go of the tables; nothing was changed."""


class AheadOfStreamError(RuntimeError):
    """The living read model has read further than its stream goes: there is nothing to compare it with."""


class _NotThereYetError(Exception):
    """The living one has moved on too far to fold the rest while it waits."""


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """What was done.

    Attributes:
        position: of the stream, up to where the rows are complete.
        messages: how many were read for it.
        attempts: how often the swap was tried.
        differences: of a comparison: the tables that are not the same.
    """

    projection: str
    position: int
    messages: int
    took_s: float
    attempts: int = 1
    differences: tuple[Difference, ...] = ()


async def rebuild(
    projection: Projection,
    source: Source,
    postgres_url: str,
    *,
    resume: bool = False,
    advance: Advance = lambda _n: None,
) -> Rebuilt:
    """Replaces the living read model by one that was folded from the whole stream.

    Args:
        projection: which one.
        source: its stream.
        postgres_url: where the living one is.
        resume: go on with what an interrupted rebuild of the same version left, instead of starting over.
        advance: told how many messages were read, again and again.

    Raises:
        RebuildRunningError, SwapHeldUpError: see the classes; the living one is as it was.
        LogDamagedError, GapError: the log has a hole or was altered.
        OSError, psycopg.OperationalError: a server is away; what was built stays, for a resumption.
    """
    began = time.monotonic()
    async with _building(projection, source, postgres_url, resume=resume, advance=advance) as build:
        await build.fold_to(await source.head())
        attempts = await _try_until_unlocked(build, build.swap)
        return build.result(began, attempts=attempts)


async def compare(
    projection: Projection, source: Source, postgres_url: str, *, advance: Advance = lambda _n: None
) -> Rebuilt:
    """Folds the whole stream beside the living read model and says where the rows differ; changes nothing.

    Raises:
        AheadOfStreamError: see the class.
        RebuildRunningError, SwapHeldUpError, LogDamagedError, GapError, OSError, psycopg.OperationalError: see rebuild.
    """
    began = time.monotonic()
    async with _building(projection, source, postgres_url, resume=False, advance=advance) as build:
        await build.fold_to(await build.target())
        async with await connect_projector(postgres_url, projection, statement_timeout_s=0) as reading:
            attempts = await _try_until_unlocked(build, lambda: build.freeze(reading))
            found = await differences(reading, projection, projection.beside)
        await build.drop()
        return build.result(began, attempts=attempts, differences=found)


async def _try_until_unlocked(build: "_Build", act: Callable[[], Any]) -> int:
    """Returns the number of attempts that it took."""
    pause_s = FIRST_PAUSE_S
    for attempt in range(1, SWAP_ATTEMPTS + 1):
        try:
            await act()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected, _NotThereYetError):
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            await build.fold_to(await build.target())
        else:
            return attempt
    raise SwapHeldUpError(f"{build.living.schema} was in use at each of {SWAP_ATTEMPTS} attempts; it is as it was")


@asynccontextmanager
async def _building(
    projection: Projection, source: Source, postgres_url: str, *, resume: bool, advance: Advance
) -> AsyncIterator["_Build"]:
    following = projection.beside
    async with (
        await connect_projector(postgres_url, projection) as living,
        await connect_projector(postgres_url, following) as connection,
    ):
        if not await _locked(connection, following):
            raise RebuildRunningError(f"{projection.name} is being rebuilt by somebody else")
        await ensure_schema(living, projection, head=await source.head())
        if not resume:
            await drop_schema(connection, following)
        position = await ensure_schema(connection, following)
        yield _Build(projection, source, living, connection, position, advance)


async def _locked(connection: Connection, projection: Projection) -> bool:
    """Takes the rebuild's lock for as long as the connection lives."""
    async with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT pg_try_advisory_lock(%s, hashtext(%s))", (REBUILD_LOCK, projection.schema))
        return bool(await cursor.fetchone())


async def drop_schema(connection: Connection, of: Projection | Checkpoint) -> None:
    """The tables and the checkpoint, if they are there."""
    async with connection.transaction():
        await connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(of.schema)))
        await connection.execute(
            "DELETE FROM platform.checkpoints WHERE name = %s AND version = %s", (of.name, of.version)
        )


class _Build:
    """A read model on its way, on two connections: one for the rows, one that holds the living checkpoint.

    Attributes:
        position: up to where its rows are complete.
    """

    def __init__(
        self,
        living: Projection,
        source: Source,
        living_connection: Connection,
        connection: Connection,
        position: int,
        advance: Advance,
    ) -> None:
        self.living = living
        self.position = position
        self._next = living.beside
        self._source = source
        self._living_connection = living_connection
        self._connection = connection
        self._first = position
        self._advance = advance
        advance(position)

    def result(self, began: float, **found: Any) -> Rebuilt:
        return Rebuilt(
            projection=self.living.name,
            position=self.position,
            messages=self.position - self._first,
            took_s=time.monotonic() - began,
            **found,
        )

    async def target(self) -> int:
        """Where the living one is; as far as the stream goes, should it believe to be further."""
        async with self._living_connection.transaction():
            living = await position_of(self._living_connection, self.living)
        return min(living, await self._source.head())

    async def fold_to(self, target: int) -> None:
        """Reads up to a position that the stream holds, and no further; each batch is a transaction."""
        if self.position >= target:
            return
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(SILENCE_S) as patience, self._source.follow(after=self.position) as batches:
            async for batch in batches:
                messages = [message for message in batch if message.position <= target]
                await self._apply(messages)
                patience.reschedule(loop.time() + SILENCE_S)
                if self.position >= target:
                    return

    async def swap(self) -> None:
        """Raises psycopg.errors.LockNotAvailable, _NotThereYetError: nothing was changed; try again."""
        position = self.position
        try:
            async with self._connection.transaction():
                living = await _hold(self._connection, self.living)
                await self._close_up(min(living, await self._source.head()))
                await self._rename()
                await _announce(self._connection, self.living, self.position)
        except BaseException:
            self.position = position  # what was folded within the transaction is gone with it
            raise

    async def freeze(self, reading: Connection) -> None:
        """Begins a transaction on `reading` that sees the living rows and the new ones at the same position.

        Raises:
            psycopg.errors.LockNotAvailable, _NotThereYetError: try again.
        """
        async with self._living_connection.transaction():
            living = await _hold(self._living_connection, self.living)
            head = await self._source.head()  # only now: the living one may have been ahead of what was known before
            if living > head:
                raise AheadOfStreamError(f"{self.living.schema} is at {living}, but its stream ends at {head}")
            await self._close_up(living)
            await reading.rollback()
            await reading.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            await reading.execute("SELECT 1")

    async def drop(self) -> None:
        await drop_schema(self._connection, self._next)

    async def _close_up(self, living: int) -> None:
        if living - self.position > MOST_MISSING:
            raise _NotThereYetError(f"{living - self.position} events behind")
        await self.fold_to(living)

    async def _apply(self, messages: list[Any]) -> None:
        """As a projector does it; see projecting.py."""
        step = Move(self._next, previous=self.position, position=messages[-1].position)
        entries = self._source.entries(self._next, messages)
        async with self._connection.transaction():
            if not await move(self._connection, [step]):
                raise RebuildRunningError(f"{self._next.schema} was moved by somebody else")
            if entries:
                await self._next.apply(entries, self._connection)
        self._advance(step.position - step.previous)
        self.position = step.position

    async def _rename(self) -> None:
        """In the order in which a projector takes its locks: the checkpoint (before), then the tables."""
        tables = sql.SQL(", ").join(sql.Identifier(self.living.schema, table) for table in self.living.table_names)
        names = {
            "old": sql.Identifier(f"{self.living.name}_old_v{self.living.version}"),
            "living": sql.Identifier(self.living.schema),
            "next": sql.Identifier(self._next.schema),
        }
        await self._connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(tables))
        await self._connection.execute(sql.SQL("ALTER SCHEMA {living} RENAME TO {old}").format(**names))
        await self._connection.execute(sql.SQL("ALTER SCHEMA {next} RENAME TO {living}").format(**names))
        await self._connection.execute(sql.SQL("DROP SCHEMA {old} CASCADE").format(**names))
        await self._connection.execute(
            "DELETE FROM platform.checkpoints WHERE name = %s AND version = %s", (self._next.name, self._next.version)
        )


async def _hold(connection: Connection, projection: Projection) -> int:
    """Stops the living projector at its next step, until the end of this transaction; returns where it is.

    Raises:
        psycopg.errors.LockNotAvailable: it is in the middle of a step.
    """
    await connection.execute(f"SET LOCAL lock_timeout = {SWAP_LOCK_TIMEOUT_MS}")
    async with connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute(
            "SELECT position FROM platform.checkpoints WHERE name = %s AND version = %s FOR UPDATE",
            (projection.name, projection.version),
        )
        return int(await cursor.fetchone() or 0)


async def _announce(connection: Connection, projection: Projection, position: int) -> None:
    """Sets the living checkpoint to where the new rows are; most often it is there already."""
    here = await position_of(connection, projection)
    if not await move(connection, [Move(projection, previous=here, position=position)]):
        raise _NotThereYetError(f"{projection.schema} has no checkpoint")
    await connection.execute(
        "UPDATE platform.checkpoints SET shown_from = least(shown_from, position) WHERE name = %s AND version = %s",
        (projection.name, projection.version),
    )
