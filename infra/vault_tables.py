"""The vault's tables in Postgres: schema `vault`, plain SQL, created once at start; no rebuild ever touches them.

    wrapping_keys   which keys there are, and which wraps now       person_keys    a data key for each person, wrapped
    credentials     of organisations at providers, wrapped          passwords      argon2id, which opens for nobody
    upstream_keys   of foreign upstreams, sealed for gateways
    host_keys       of rented servers, pinned at their first use: public, so neither wrapped nor sealed
    idempotency     kept replies, sealed (idempotency.py)           master_key     shows whether the right one is here

The surprising rule: a row's `key_id` is no claim beside its envelope; Postgres reads it out of the envelope itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg import Error
from psycopg_pool import PoolTimeout

from infra.master_key import MasterKey, check_value_of
from infra.postgres import Pool, new_pool
from projections.projection import Connection

SCHEMA_LOCK = 0x1A6E_0001
"""Advisory lock under which the schema is created, so that two processes starting together do it once."""
WRITERS_LOCK = 0x1A6E_0003
"""Advisory lock that whoever wraps shares until the commit; a change of the wrapping key waits for all of them."""
POOL_CONNECTIONS = 4

SCHEMA = """
CREATE SCHEMA IF NOT EXISTS vault;
CREATE TABLE IF NOT EXISTS vault.master_key (
    only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
    fingerprint bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS vault.person_keys (
    person_id text PRIMARY KEY,
    wrapped bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    forgotten_at timestamptz,
    CHECK ((wrapped IS NULL) = (forgotten_at IS NOT NULL))
);
CREATE TABLE IF NOT EXISTS vault.wrapping_keys (
    id text PRIMARY KEY,
    check_value bytea NOT NULL,
    newest boolean NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE UNIQUE INDEX IF NOT EXISTS one_newest_wrapping_key ON vault.wrapping_keys (newest) WHERE newest;
CREATE TABLE IF NOT EXISTS vault.credentials (
    organization_id text NOT NULL,
    purpose text NOT NULL,
    names text[] NOT NULL,
    envelope bytea NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now(),
    key_id text GENERATED ALWAYS AS (encode(substring(envelope FROM 4 FOR get_byte(envelope, 2)), 'escape')) STORED,
    PRIMARY KEY (organization_id, purpose)
);
CREATE TABLE IF NOT EXISTS vault.upstream_keys (
    credential_id text PRIMARY KEY,
    organization_id text NOT NULL,
    deployment_id text NOT NULL,
    sealed bytea NOT NULL,
    kept_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX IF NOT EXISTS upstream_keys_by_deployment ON vault.upstream_keys (deployment_id);
CREATE TABLE IF NOT EXISTS vault.host_keys (
    organization_id text NOT NULL,
    provider text NOT NULL,
    address text NOT NULL,
    fingerprint text NOT NULL,
    pinned_at timestamptz NOT NULL DEFAULT now(),
    used_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, provider, address)
);
CREATE TABLE IF NOT EXISTS vault.passwords (
    user_id text PRIMARY KEY,
    hash text NOT NULL,
    set_at timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE IF NOT EXISTS vault.idempotency (
    principal text NOT NULL,
    key text NOT NULL,
    request_digest bytea NOT NULL,
    seed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    leased_until timestamptz NOT NULL,
    reply bytea,
    PRIMARY KEY (principal, key)
);
CREATE INDEX IF NOT EXISTS idempotency_by_age ON vault.idempotency (created_at);
DO $$ BEGIN
    IF NOT EXISTS (
        SELECT FROM information_schema.columns
        WHERE table_schema = 'vault' AND table_name = 'person_keys' AND column_name = 'key_id'
    ) THEN
        UPDATE vault.person_keys SET wrapped = '\\x76320130'::bytea || wrapped WHERE wrapped IS NOT NULL;
        ALTER TABLE vault.person_keys
            ADD COLUMN erased_at timestamptz,
            ADD COLUMN key_id text
                GENERATED ALWAYS AS (encode(substring(wrapped FROM 4 FOR get_byte(wrapped, 2)), 'escape')) STORED;
        CREATE INDEX person_keys_by_key ON vault.person_keys (key_id);
    END IF;
END $$;
"""
"""The block at the end is for a vault from before keys had ids: all was wrapped by key "0", and said so nowhere."""


class VaultUnavailableError(OSError):
    """Postgres did not answer; the message names the operation."""


class VaultKeyError(Exception):
    """The master key is not the one that this vault was made with."""


def vault_pool(postgres_url: str) -> Pool:
    """A pool to be opened with `async with`; it survives a restart of Postgres. Its writes do wait for the disk."""
    return new_pool(postgres_url, "vault", max_size=POOL_CONNECTIONS, synchronous_commit="on")


@asynccontextmanager
async def vault_connection(pool: Pool, operation: str) -> AsyncIterator[Connection]:
    """One transaction; commits at the end.

    Raises:
        VaultUnavailableError: Postgres is away or refused.
    """
    try:
        async with pool.connection() as connection:
            yield connection
    except (Error, PoolTimeout) as error:
        raise VaultUnavailableError(f"vault: {operation} failed: {error}") from error


async def create_vault(pool: Pool, master_key: MasterKey) -> None:
    """Creates what is missing, and binds the vault to its master key.

    Raises:
        VaultKeyError: the vault was made with another master key.
        VaultUnavailableError: Postgres is away.
    """
    fingerprint = master_key.mac("fingerprint")
    async with vault_connection(pool, "create its tables") as connection:
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", [SCHEMA_LOCK])
        await connection.execute(SCHEMA)
        await connection.execute(
            "INSERT INTO vault.master_key (fingerprint) VALUES (%s) ON CONFLICT DO NOTHING", [fingerprint]
        )
        await connection.execute(
            "INSERT INTO vault.wrapping_keys (id, check_value, newest) VALUES ('0', %s, true) ON CONFLICT DO NOTHING",
            [check_value_of(master_key.key_for("wrapping"))],
        )
        row = await (await connection.execute("SELECT fingerprint FROM vault.master_key")).fetchone()
    if row is None or bytes(row[0]) != fingerprint:
        raise VaultKeyError(
            "the vault in this database was made with another master key: restore <secrets>/master_key from its "
            "backup; personal data and passwords cannot be read without it"
        )
