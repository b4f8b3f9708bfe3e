"""Postgres as the home of the read models: connections, schemas, and the door through which the other rooms read.

    ReadModels(url)  read("instances", position=n) ──wait until it is there──> a connection on one moment of all tables

Each read model has a schema of its own, `<name>_v<version>`; the search path of a reader holds those that this release
knows. The surprising rule: nothing here is precious. A schema can be dropped at any time and is built again from the
log, so its writer does not wait for the disk.
"""

import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from hashlib import sha256
from types import TracebackType
from typing import Any, Self

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import scalar_row
from psycopg.types.string import StrDumper
from psycopg_pool import AsyncConnectionPool

from infra.positions import Positions
from infra.row_security import ensure_roles, protect, taking
from projections import checkpoint
from projections.projection import NOBODY, Connection, NotYetVisibleError, Projection, Scope
from projections.registry import PROJECTIONS

Pool = AsyncConnectionPool[Connection]

WAIT_S = 5.0
"""The longest that a query waits for its read model to catch up; a caller who waits longer has a fault to look into."""
CONNECT_TIMEOUT_S = 5
POOL_WAIT_S = 2.0
POOL_CONNECTIONS = 8
POOL_RECONNECT_S = 2.0
"""The pool doubles its pauses between tries without a limit: let it try briefly, and the next reader start anew."""
STATEMENT_TIMEOUT_S = 10
KEEPALIVE_IDLE_S = 10
KEEPALIVE_INTERVAL_S = 5
KEEPALIVE_PROBES = 3
UNANSWERED_S = 20
"""A peer that does not acknowledge what we send for so long is gone; the kernel alone would wait for minutes."""
SCHEMA_LOCK = 0x1A6E_0002
"""Advisory lock under which schemas are created, so that two processes starting together do it once."""
BUILT_PERCENT = 100
CREATE_ATTEMPTS = 3
"""Another room creates the schema `platform` too, under its own lock: the second one fails, and finds it next time."""


_NOT_THERE = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
_NOT_OPEN_YET = (
    psycopg.errors.InvalidParameterValue,  # the reader's role: it is made with the first schema
    psycopg.errors.InsufficientPrivilege,  # tables of an older release: their projector makes the policies at its start
)


class ReadModelUnavailableError(OSError):
    """Postgres does not answer, or the read model is not built yet; try again in a moment."""


class SchemaDriftError(RuntimeError):
    """A projection's tables are not those that its version was built with."""


class _TextDumper(StrDumper):
    """Text for Postgres, which cannot hold U+0000; a name or a provider's words may, and must not stop a projection."""

    def dump(self, obj: str) -> Any:
        return super().dump(obj.replace("\0", "\ufffd") if "\0" in obj else obj)


def connection_string(postgres_url: str, name: str, **settings: object) -> str:
    """The URL with our name, time limits, and Postgres settings (a space in a value has a backslash before it)."""
    given = str(conninfo_to_dict(postgres_url).get("options") or "")
    options = " ".join([given, *(f"-c {setting}={value}" for setting, value in settings.items())])
    return make_conninfo(
        postgres_url,
        application_name=f"inventiv-{name}",
        connect_timeout=CONNECT_TIMEOUT_S,
        keepalives_idle=KEEPALIVE_IDLE_S,
        keepalives_interval=KEEPALIVE_INTERVAL_S,
        keepalives_count=KEEPALIVE_PROBES,
        tcp_user_timeout=UNANSWERED_S * 1000,
        options=options.strip(),
    )


async def connect(postgres_url: str, name: str, *, autocommit: bool = False, **settings: object) -> Connection:
    """One connection of our own, outside any pool.

    Raises:
        psycopg.OperationalError: Postgres does not answer within CONNECT_TIMEOUT_S.
    """
    connection: Connection = await psycopg.AsyncConnection.connect(
        connection_string(postgres_url, name, **settings), autocommit=autocommit
    )
    await _configure(connection)
    return connection


def new_pool(
    postgres_url: str,
    name: str,
    *,
    max_size: int = POOL_CONNECTIONS,
    checked: bool = True,
    autocommit: bool = False,
    **settings: object,
) -> Pool:
    """A pool to be opened with `async with`; it survives a restart of Postgres, whenever that comes back.

    Args:
        postgres_url: with its password.
        name: ours, as the server's list of sessions shows it.
        max_size: of connections.
        checked: ask each connection whether it lives before lending it; who does not, has to deal with dead ones.
        autocommit: the borrower says BEGIN.
        **settings: of Postgres, see connection_string.
    """
    return AsyncConnectionPool(
        connection_string(postgres_url, name, **settings),
        min_size=1,
        max_size=max_size,
        timeout=POOL_WAIT_S,
        reconnect_timeout=POOL_RECONNECT_S,
        open=False,
        configure=_configure,
        check=AsyncConnectionPool.check_connection if checked else None,
        kwargs={"autocommit": autocommit},
    )


async def _configure(connection: Connection) -> None:
    connection.adapters.register_dumper(str, _TextDumper)


async def ensure_schema(connection: Connection, projection: Projection, *, head: int = 0) -> int:
    """Creates the projection's schema and checkpoint when they are missing; returns the checkpoint's position.

    Args:
        connection: of a writer.
        projection: whose tables.
        head: position up to which new tables are not shown to readers, because they are still being built.

    Raises:
        SchemaDriftError: this version exists with other tables.
        RolesMissingError: see row_security.py.
    """
    for _ in range(CREATE_ATTEMPTS - 1):
        with contextlib.suppress(psycopg.errors.UniqueViolation, psycopg.errors.DuplicateObject):
            return await _ensure_schema(connection, projection, head)
    return await _ensure_schema(connection, projection, head)


async def _ensure_schema(connection: Connection, projection: Projection, head: int) -> int:
    tables_sha256 = sha256(projection.tables.encode()).hexdigest()
    async with connection.transaction(), connection.cursor(row_factory=scalar_row) as cursor:
        await cursor.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
        await checkpoint.create_table(connection)
        await cursor.execute(
            "SELECT tables_sha256 FROM platform.checkpoints WHERE name = %s AND version = %s",
            (projection.name, projection.version),
        )
        built_with = await cursor.fetchone()
        if built_with is None:
            await _create_tables(connection, projection, tables_sha256, head)
        elif built_with != tables_sha256:
            raise SchemaDriftError(
                f"the tables of {projection.schema} have changed: raise the version of projection {projection.name}"
            )
        await protect(connection, projection)
        return await checkpoint.position_of(connection, projection)


async def _create_tables(connection: Connection, projection: Projection, tables_sha256: str, head: int) -> None:
    schema = sql.Identifier(projection.schema)
    await connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(schema))
    await connection.execute(sql.SQL("CREATE SCHEMA {}").format(schema))
    await connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(schema))
    await connection.execute(projection.tables)
    await connection.execute(
        "INSERT INTO platform.checkpoints (name, version, tables_sha256, shown_from) VALUES (%s, %s, %s, %s)",
        (projection.name, projection.version, tables_sha256, head),
    )


async def require_reader_roles(postgres_url: str) -> None:
    """For the start of a process, so that a login with too few rights is told at once. A Postgres that is away is no
    fault here: whoever needs it waits for it.

    Raises:
        RolesMissingError: see row_security.py.
    """
    with contextlib.suppress(psycopg.OperationalError, psycopg.errors.UniqueViolation):
        async with await connect(postgres_url, "roles") as connection:
            await connection.execute("SELECT pg_advisory_xact_lock(%s)", (SCHEMA_LOCK,))
            await ensure_roles(connection)


def search_path(projections: Iterable[Projection]) -> str:
    return ",".join(projection.schema for projection in projections)


def _beginning(projections: Sequence[Projection], scope: Scope) -> sql.Composed:
    """One message, one round trip. The lock comes before the first query, which decides the moment that is seen."""
    begin = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}").format(taking(scope))
    if not projections:
        return begin
    tables = [sql.Identifier(projection.schema, projection.table_names[0]) for projection in projections]
    return sql.SQL("{}; LOCK TABLE {} IN ACCESS SHARE MODE").format(begin, sql.SQL(", ").join(tables))


class ReadModels:
    """Implements projections.projection.Read; open it with `async with`.

    A connection that it lends sees one moment of all read models, cannot write, and must not be kept. Its first
    statement locks the asked read models against being swapped for rebuilt ones (replay/rebuild.py): whoever has begun
    to read holds up the swap, and whoever comes during the swap sees the new tables, complete.

    Args:
        postgres_url: with its password.
        projections: that may be asked for.
        wait_s: the longest wait for a position.
        scope: of a read that names none. Processes that work for all tenants say EVERYTHING.
    """

    def __init__(
        self,
        postgres_url: str,
        *,
        projections: Iterable[Projection] = PROJECTIONS,
        wait_s: float = WAIT_S,
        scope: Scope = NOBODY,
    ) -> None:
        self._projections = {projection.name: projection for projection in projections}
        self._built: set[str] = set()
        self._wait_s = wait_s
        self._scope = scope
        self._positions = Positions(lambda: connect(postgres_url, "positions", autocommit=True))
        self._pool = new_pool(
            postgres_url,
            "reader",
            checked=False,
            autocommit=True,
            search_path=search_path(self._projections.values()),
            default_transaction_read_only="on",
            statement_timeout=f"{STATEMENT_TIMEOUT_S}s",
        )

    async def __aenter__(self) -> Self:
        await self._pool.open()
        self._positions.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._positions.stop()
        await self._pool.close()

    @contextlib.asynccontextmanager
    async def __call__(
        self,
        *projections: str,
        position: int = 0,
        scope: Scope | None = None,
    ) -> AsyncIterator[Connection]:
        """See the port. A projection of another stream than EVENTS is not waited for: it has other positions.

        Raises:
            NotYetVisibleError: a read model did not reach the position within the wait.
            ReadModelUnavailableError: Postgres does not answer, or a read model does not exist yet or is being built.
        """
        asked = [self._projections[name] for name in projections]
        await self._wait(asked, position)
        async with self._lent(asked, self._scope if scope is None else scope) as connection:
            if not self._built.issuperset(projections):
                await self._see_whether_built(connection, asked)
            yield connection

    @contextlib.asynccontextmanager
    async def _lent(self, asked: Sequence[Projection], scope: Scope) -> AsyncIterator[Connection]:
        try:
            connection = await self._begun(_beginning(asked, scope))
            try:
                yield connection
            finally:
                await self._give_back(connection)
        except (psycopg.OperationalError, psycopg.InterfaceError, *_NOT_THERE) as error:
            self._built.clear()
            names = ", ".join(projection.name for projection in asked)
            raise ReadModelUnavailableError(f"cannot read {names}: {error}") from error

    async def _begun(self, beginning: sql.Composed) -> Connection:
        """A connection in a new transaction. That it lives is seen by using it: to ask first would cost a round trip.

        Each connection of the pool may have died with the server that it was connected to.
        """
        tries = POOL_CONNECTIONS
        while True:
            tries -= 1
            connection = await self._pool.getconn()
            try:
                await connection.execute(beginning, prepare=False)
            except BaseException as error:
                await self._give_back(connection)
                if isinstance(error, _NOT_OPEN_YET):
                    raise ReadModelUnavailableError(f"cannot read yet: {error}") from error
                was_lost = isinstance(error, psycopg.OperationalError) and connection.closed
                if not was_lost or not tries:
                    raise
            else:
                return connection

    async def _give_back(self, connection: Connection) -> None:
        """The pool ends a transaction that is still open, and replaces a connection that is lost."""
        try:
            if not connection.closed:
                await connection.rollback()
        finally:
            await self._pool.putconn(connection)

    async def _see_whether_built(self, connection: Connection, asked: Sequence[Projection]) -> None:
        """Asked once for each read model: what was complete stays complete, for it is swapped as a whole."""
        checkpoints = {known.schema: known for known in await checkpoint.list_checkpoints(connection)}
        for projection in asked:
            known = checkpoints.get(projection.schema)
            percent = known.built_percent if known else 0
            if percent < BUILT_PERCENT:
                raise ReadModelUnavailableError(f"{projection.schema} is being built: {percent} %")
            self._built.add(projection.name)

    async def _wait(self, asked: Sequence[Projection], position: int) -> None:
        schemas = [projection.schema for projection in asked if projection.stream == "EVENTS"]
        if self._positions.have_reached(schemas, position):
            return
        try:
            await self._positions.wait(schemas, position, timeout_s=self._wait_s)
        except TimeoutError:
            if not self._positions.known:
                raise ReadModelUnavailableError("cannot learn how far the read models are: no Postgres") from None
            async with self._lent(asked, NOBODY) as connection:
                await self._see_whether_built(connection, asked)
            late = self._positions.late(schemas, position)
            raise NotYetVisibleError(f"not at position {position} after {self._wait_s} s: {late}") from None
