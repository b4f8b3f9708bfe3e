"""Changing the key that wraps the vault, while everybody works: `inventiv vault rotate`.

    key file made ──> named the newest in Postgres ──> rows wrapped anew, batch by batch ──> unused keys removed

Killed anywhere, the next run goes on: a key file that Postgres does not know yet is the one that was begun with, and
rows of older keys are what is left to do. The surprising rule: writers share a lock that naming the newest key waits
for. So once it is named, nobody can still write under an older one, and "no row uses it" stays true.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import datetime

import msgspec
from cryptography.exceptions import InvalidTag
from psycopg import sql

from infra.credentials import bundle_of
from infra.postgres import Pool, connect
from infra.vault import purpose_of
from infra.vault_tables import WRITERS_LOCK, VaultKeyError, vault_connection
from infra.wrapping import FIRST_KEY, KeyRing
from projections.projection import Connection

BATCH_ROWS = 500
ROTATION_LOCK = 0x1A6E_0004
"""Advisory lock of the one rotation that runs."""
NAMING_TIMEOUT_S = 30
"""The longest that naming the newest key waits for writers; theirs are transactions of milliseconds."""


class RotationRunsError(Exception):
    """Another rotation is at work on this vault."""


class WrappedRows(msgspec.Struct, frozen=True):
    """Where wrapped things lie: a table, its key columns, the wrapped one, and what an envelope is bound to."""

    table: str
    key: tuple[str, ...]
    column: str
    bound_to: Callable[..., str]


WRAPPED = (
    WrappedRows("person_keys", ("person_id",), "wrapped", purpose_of),
    WrappedRows("credentials", ("organization_id", "purpose"), "envelope", bundle_of),
)


class KeyUse(msgspec.Struct, frozen=True, kw_only=True):
    """One wrapping key.

    Attributes:
        rows: table -> how many rows it wraps.
        file: whether this machine has its file; key "0" needs none.
    """

    id: str
    newest: bool
    created_at: datetime
    rows: Mapping[str, int]
    file: bool

    @property
    def used(self) -> int:
        return sum(self.rows.values())


async def key_uses(pool: Pool, keys: KeyRing) -> list[KeyUse]:
    """All keys that the vault knows, oldest first."""
    async with vault_connection(pool, "count keys") as connection:
        query = "SELECT id, newest, created_at FROM vault.wrapping_keys ORDER BY created_at, id"
        known = await (await connection.execute(query)).fetchall()
        rows = {kind.table: await _counts(connection, kind) for kind in WRAPPED}
    files = {FIRST_KEY, *keys.in_files()}
    return [
        KeyUse(
            id=key_id,
            newest=newest,
            created_at=created_at,
            rows={table: counts.get(key_id, 0) for table, counts in rows.items()},
            file=key_id in files,
        )
        for key_id, newest, created_at in known
    ]


async def _counts(connection: Connection, kind: WrappedRows) -> Mapping[str, int]:
    query = sql.SQL("SELECT key_id, count(*) FROM {} WHERE key_id IS NOT NULL GROUP BY key_id")
    rows = await (await connection.execute(query.format(sql.Identifier("vault", kind.table)))).fetchall()
    return dict(rows)


@asynccontextmanager
async def rotating(postgres_url: str) -> AsyncIterator[None]:
    """One rotation at a time, on all machines; ends with this process, however that ends.

    Raises:
        RotationRunsError: another one runs.
    """
    connection = await connect(postgres_url, "rotation", autocommit=True)
    async with connection:
        row = await (await connection.execute("SELECT pg_try_advisory_lock(%s)", [ROTATION_LOCK])).fetchone()
        if row != (True,):
            raise RotationRunsError("another `inventiv vault rotate` is at work on this vault")
        yield


async def begin(pool: Pool, keys: KeyRing) -> str:
    """Names a new key the newest, unless an earlier rotation still has rows to wrap; the newest key's id.

    Raises:
        WrappingKeyMissingError: the newest key's file is not on this machine.
    """
    uses = await key_uses(pool, keys)
    if any(use.used for use in uses if not use.newest):
        return next(use.id for use in uses if use.newest)
    begun = [key_id for key_id in keys.in_files() if key_id not in {use.id for use in uses}]
    key_id = begun[0] if begun else keys.make()
    async with vault_connection(pool, "name a new key") as connection:
        await connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(f"{NAMING_TIMEOUT_S}s"))
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [WRITERS_LOCK])
        await connection.execute("UPDATE vault.wrapping_keys SET newest = false WHERE newest")
        await connection.execute(
            "INSERT INTO vault.wrapping_keys (id, check_value, newest) VALUES (%s, %s, true)",
            [key_id, keys.check_value(key_id)],
        )
    return key_id


async def rewrap(pool: Pool, keys: KeyRing, newest: str, *, advance: Callable[[int], None] = lambda _: None) -> int:
    """Wraps every row of an older key anew, BATCH_ROWS in a transaction; how many it were.

    Raises:
        VaultKeyError: a row does not open with the key that it names.
    """
    done = 0
    for kind in WRAPPED:
        while rows := await _rewrap_batch(pool, keys, newest, kind):  # bounded: nobody writes under older keys
            done += rows
            advance(rows)
    return done


async def _rewrap_batch(pool: Pool, keys: KeyRing, newest: str, kind: WrappedRows) -> int:
    table, key = sql.Identifier("vault", kind.table), sql.SQL(", ").join(map(sql.Identifier, kind.key))
    find = sql.SQL("SELECT {}, {} FROM {} WHERE key_id <> %s ORDER BY {} LIMIT {} FOR UPDATE").format(
        key, sql.Identifier(kind.column), table, key, BATCH_ROWS
    )
    this_row = sql.SQL(" AND ").join(sql.SQL("{} = %s").format(sql.Identifier(column)) for column in kind.key)
    change = sql.SQL("UPDATE {} SET {} = %s WHERE {}").format(table, sql.Identifier(kind.column), this_row)
    async with vault_connection(pool, "wrap anew") as connection:
        rows = await (await connection.execute(find, [newest])).fetchall()
        changes = [(_rewrapped(keys, newest, kind, row), *row[:-1]) for row in rows]
        async with connection.cursor() as cursor:
            await cursor.executemany(change, changes)
    return len(rows)


def _rewrapped(keys: KeyRing, newest: str, kind: WrappedRows, row: tuple[object, ...]) -> bytes:
    *key, envelope = row
    bound_to = kind.bound_to(*key)
    try:
        clear = keys.unwrap(bytes(envelope), bound_to=bound_to)  # type: ignore[call-overload] # bytea comes as bytes
    except (InvalidTag, ValueError) as error:
        where = f"vault.{kind.table} ({', '.join(map(str, key))})"
        raise VaultKeyError(
            f"{where} does not open with its key: restore that row from a backup, or delete it"
        ) from error
    return keys.wrap(newest, clear, bound_to=bound_to)


async def remove_unused(pool: Pool, keys: KeyRing) -> list[str]:
    """Removes the files of keys that wrap nothing any more; their ids. Key "0" stays, for it is the master key's.

    The file goes first: a row without a file is looked at again, a file without a row would be taken for a new key.
    """
    removed = []
    for use in await key_uses(pool, keys):
        if use.newest or use.used or use.id == FIRST_KEY:
            continue
        keys.remove(use.id)
        async with vault_connection(pool, "remove a key") as connection:
            await connection.execute("DELETE FROM vault.wrapping_keys WHERE id = %s AND NOT newest", [use.id])
        removed.append(use.id)
    return removed
