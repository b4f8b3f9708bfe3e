"""What is kept of a person outside the log, and how it goes: rows of the vault, mails in the inbox, their very bytes.

    rows changed ──> every transaction that could still see the old ones has ended ──> tables rewritten ──> erased_at

The surprising rule: a deleted row is still in its table's file. VACUUM makes its place free, and leaves many of its
bytes; only rewriting the table (VACUUM FULL) does away with all. What stays is beyond any table: Postgres' write-ahead
log until it is recycled, free blocks of the disk, and backups (see README.md).
"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import psycopg
from psycopg import sql

from handlers.person_ports import HeldAddress
from infra.idempotency import PostgresIdempotency
from infra.inbox import Inbox, InboxMail
from infra.postgres import Pool, connect
from infra.sign_in_tables import forget_sign_ins
from infra.vault import Vault
from infra.vault_tables import VaultUnavailableError, vault_connection

SCRUBBED = ("person_keys", "passwords", "idempotency", "sign_in_tallies", "session_uses")
SCRUB_LOCK = 0x1A6E_0005
LOCK_WAIT_S = 5
"""For a table to be free; meanwhile whoever wants it waits behind us, so this is short, and tried again."""
REWRITE_TIMEOUT_S = 60
READERS_WAIT_S = 15.0
"""The longest query of ours takes less; see STATEMENT_TIMEOUT_S in postgres.py."""
READERS_POLL_S = 0.1

_OLD_READERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_xmin IS NOT NULL
      AND age(backend_xmin) >= age(%s::text::xid)
"""


class VaultEraser:
    """Implements handlers.ports.Eraser."""

    def __init__(
        self, postgres_url: str, pool: Pool, vault: Vault, idempotency: PostgresIdempotency, inbox: Inbox
    ) -> None:
        self._postgres_url = postgres_url
        self._pool = pool
        self._vault = vault
        self._idempotency = idempotency
        self._inbox = inbox

    async def forget_replies(self, user_id: str, words: Sequence[str]) -> None:
        """See the port."""
        await self._idempotency.forget(user_id, words)

    async def forget_sign_ins(self, user_id: str) -> None:
        """See the port."""
        await forget_sign_ins(self._pool, user_id)

    async def destroy_keys(self, person_ids: Sequence[str]) -> None:
        """See the port."""
        for person_id in person_ids:
            await self._vault.forget(person_id)

    async def delete_mails(self, addresses: Sequence[HeldAddress]) -> None:
        """See the port."""
        until = {address.email: address.until for address in addresses}

        def is_theirs(mail: InboxMail) -> bool:
            digest = self._vault.digest("email", mail.to)
            return digest in until and mail.at <= until[digest]

        await asyncio.to_thread(self._inbox.delete, is_theirs)

    async def scrub(self) -> None:
        """See the port. Raises VaultUnavailableError: somebody still reads the old rows, or a table was not free."""
        await scrub_tables(self._postgres_url)

    async def finish(self, user_id: str) -> None:
        """See the port."""
        async with vault_connection(self._pool, "finish an erasure") as connection:
            await connection.execute(
                "UPDATE vault.person_keys SET erased_at = coalesce(erased_at, now()) WHERE person_id = %s", [user_id]
            )


async def scrub_tables(postgres_url: str, tables: Sequence[str] = SCRUBBED) -> None:
    """Rewrites tables of the vault, so that what was deleted before this call is in their files no more.

    Raises:
        VaultUnavailableError: not now; nothing is lost by trying again.
    """
    try:
        connection = await connect(postgres_url, "scrub", autocommit=True, statement_timeout=f"{REWRITE_TIMEOUT_S}s")
        async with connection:
            await connection.execute("SELECT pg_advisory_lock(%s)", [SCRUB_LOCK])
            await _wait_for_old_readers(connection)
            await connection.execute(sql.SQL("SET lock_timeout = {}").format(f"{LOCK_WAIT_S}s"))
            for table in tables:
                with suppress(psycopg.errors.UndefinedTable):  # one that this platform never needed
                    await connection.execute(sql.SQL("VACUUM (FULL) {}").format(sql.Identifier("vault", table)))
    except psycopg.Error as error:
        raise VaultUnavailableError(f"vault: rewriting its tables failed: {error}") from error


async def _wait_for_old_readers(connection: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    """A rewrite keeps every row that some running transaction may still look at, deleted or not."""
    row = await (await connection.execute("SELECT pg_current_xact_id()::xid::text")).fetchone()
    assert row is not None  # noqa: S101 - a function without FROM gives one row
    deadline_s = asyncio.get_running_loop().time() + READERS_WAIT_S
    while True:
        readers = await (await connection.execute(_OLD_READERS, [row[0]])).fetchone()
        if readers == (0,):
            return
        if asyncio.get_running_loop().time() > deadline_s:
            raise VaultUnavailableError("vault: a transaction is open that could still read what was deleted")
        await asyncio.sleep(READERS_POLL_S)
