"""What is remembered about signing in outside the log: tallies of failed attempts, and when a session was last used.

Both are caches of the moment: losing them costs a few free guesses, or a minute in a list. A tally's key is a keyed
digest, so the table names no address and no account; `user_id` stands beside it only so that a person can be forgotten.
"""

from datetime import datetime

from infra.postgres import Pool
from infra.vault_tables import SCHEMA_LOCK, vault_connection

_TABLES = """
CREATE SCHEMA IF NOT EXISTS vault;
CREATE TABLE IF NOT EXISTS vault.sign_in_tallies (
    key bytea PRIMARY KEY,
    user_id text,
    failures integer NOT NULL,
    in_a_row integer NOT NULL,
    began_at timestamptz,
    failed_at timestamptz,
    blocked_until timestamptz,
    succeeded_at timestamptz,
    expires_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS sign_in_tallies_by_end ON vault.sign_in_tallies (expires_at);
CREATE INDEX IF NOT EXISTS sign_in_tallies_by_user ON vault.sign_in_tallies (user_id) WHERE user_id IS NOT NULL;
CREATE TABLE IF NOT EXISTS vault.session_uses (
    session_id text PRIMARY KEY,
    user_id text NOT NULL,
    last_used_at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS session_uses_by_user ON vault.session_uses (user_id);
CREATE INDEX IF NOT EXISTS session_uses_by_age ON vault.session_uses (last_used_at);
"""


async def create_sign_in_tables(pool: Pool) -> None:
    """Creates what is missing. Raises VaultUnavailableError when Postgres is away."""
    async with vault_connection(pool, "create the tables of sign-in") as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [SCHEMA_LOCK])
        await connection.execute(_TABLES)


async def forget_sign_ins(pool: Pool, user_id: str) -> None:
    """Deletes what both tables know of a person; asking twice is welcome. Raises VaultUnavailableError."""
    await create_sign_in_tables(pool)
    async with vault_connection(pool, "forget sign-ins") as connection:
        await connection.execute("DELETE FROM vault.sign_in_tallies WHERE user_id = %s", [user_id])
        await connection.execute("DELETE FROM vault.session_uses WHERE user_id = %s", [user_id])


async def prune_sign_ins(pool: Pool, *, tallies_before: datetime, uses_before: datetime, rows: int) -> None:
    """Deletes at most `rows` of each table that nobody needs any more. Raises VaultUnavailableError."""
    async with vault_connection(pool, "prune sign-ins") as connection:
        await connection.execute(
            "DELETE FROM vault.sign_in_tallies WHERE key IN (SELECT key FROM vault.sign_in_tallies "
            "WHERE expires_at < %s ORDER BY expires_at LIMIT %s FOR UPDATE SKIP LOCKED)",
            [tallies_before, rows],
        )
        await connection.execute(
            "DELETE FROM vault.session_uses WHERE session_id IN (SELECT session_id FROM vault.session_uses "
            "WHERE last_used_at < %s ORDER BY last_used_at LIMIT %s FOR UPDATE SKIP LOCKED)",
            [uses_before, rows],
        )
