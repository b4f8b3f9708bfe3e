"""Idempotency keys in the vault's Postgres: the seed is stored before anything is done, the reply at the end.

    first use ──> seed + lease ──> (the request runs) ──> reply kept, sealed     lease ran out without reply ──> resumed
                                                                                 with the same seed: the same ids again

Replies can hold secrets (an API key shown once), so seeds and replies are sealed, and kept for KEPT_DAYS only.
"""

import os
from collections.abc import Sequence
from datetime import datetime, timedelta

import msgspec
from cryptography.exceptions import InvalidTag

from infra.master_key import MasterKey, decrypt, encrypt
from infra.postgres import Pool
from infra.vault_tables import vault_connection
from projections.projection import Connection
from web.services import Claimed, InFlight, KeptReply, KeyReused

LEASE_S = 10
"""An attempt that has not answered after this long is taken for dead. Short, since a client whose server was killed
waits for it; safe, since two attempts draw the same ids, and the second finds what the first one did."""
KEPT_DAYS = 7
SEED_BYTES = 32
SWEEP_ROWS = 100
"""Expired rows deleted with each new key, so that the table stays bounded without a job of its own."""

_END_LEASE = """
    UPDATE vault.idempotency SET leased_until = 'epoch' WHERE principal = %s AND key = %s AND reply IS NULL
"""
FORGET_ROWS = 200
_KEPT_PAGE = """
    SELECT principal, key, reply FROM vault.idempotency
    WHERE reply IS NOT NULL AND (principal, key) > (%s, %s) ORDER BY principal, key LIMIT %s
"""
_UNKEEP = "UPDATE vault.idempotency SET reply = NULL, leased_until = 'epoch' WHERE principal = %s AND key = %s"
_FORGET = "DELETE FROM vault.idempotency WHERE principal = %s AND key = %s AND reply IS NULL"


class PostgresIdempotency:
    """Implements web.services.Idempotency; every method raises VaultUnavailableError when Postgres is away."""

    def __init__(self, pool: Pool, master_key: MasterKey) -> None:
        self._pool = pool
        self._key = master_key.key_for("kept_replies")

    async def claim(
        self, principal: str, key: str, request: bytes, at: datetime
    ) -> Claimed | KeptReply | InFlight | KeyReused:
        async with vault_connection(self._pool, "claim an idempotency key") as connection:
            await _sweep(connection, at)
            seed = os.urandom(SEED_BYTES)
            cursor = await connection.execute(
                "INSERT INTO vault.idempotency (principal, key, request_digest, seed, created_at, leased_until) "
                "VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING 1",
                [principal, key, request, self._sealed(seed, principal, key), at, at + timedelta(seconds=LEASE_S)],
            )
            if await cursor.fetchone():
                return Claimed(seed=seed, at=at, resumed=False)
            return await self._again(connection, principal, key, request, at)

    async def _again(
        self, connection: Connection, principal: str, key: str, request: bytes, at: datetime
    ) -> Claimed | KeptReply | InFlight | KeyReused:
        cursor = await connection.execute(
            "SELECT request_digest, seed, created_at, leased_until, reply FROM vault.idempotency "
            "WHERE principal = %s AND key = %s FOR UPDATE",
            [principal, key],
        )
        row = await cursor.fetchone()
        if row is None:
            return InFlight()  # swept between the two statements; the caller's retry starts afresh
        digest, seed, created_at, leased_until, reply = row
        if bytes(digest) != request:
            return KeyReused()
        if reply is not None:
            return msgspec.msgpack.decode(self._opened(bytes(reply), principal, key), type=KeptReply)
        if leased_until > at:
            return InFlight()
        await connection.execute(
            "UPDATE vault.idempotency SET leased_until = %s WHERE principal = %s AND key = %s",
            [at + timedelta(seconds=LEASE_S), principal, key],
        )
        return Claimed(seed=self._opened(bytes(seed), principal, key), at=created_at, resumed=True)

    async def finish(self, principal: str, key: str, reply: KeptReply) -> None:
        sealed = self._sealed(msgspec.msgpack.encode(reply), principal, key)
        async with vault_connection(self._pool, "keep a reply") as connection:
            await connection.execute(
                "UPDATE vault.idempotency SET reply = %s WHERE principal = %s AND key = %s", [sealed, principal, key]
            )

    async def release(self, principal: str, key: str, *, untouched: bool) -> None:
        statement = _FORGET if untouched else _END_LEASE
        async with vault_connection(self._pool, "release an idempotency key") as connection:
            await connection.execute(statement, [principal, key])

    async def forget(self, user_id: str, words: Sequence[str]) -> None:
        """Deletes what the user ever asked, and everybody's kept replies that hold one of the words.

        A reply that is gone is made again from its seed when its request is repeated. All kept replies are opened for
        this, FORGET_ROWS at a time.
        """
        sought = [word.casefold() for word in (user_id, *words)]
        async with vault_connection(self._pool, "forget a person's replies") as connection:
            await connection.execute("DELETE FROM vault.idempotency WHERE principal = %s", [f"user:{user_id}"])
        after = ("", "")
        while True:  # bounded by the rows of KEPT_DAYS
            async with vault_connection(self._pool, "look for a person in kept replies") as connection:
                rows = await (await connection.execute(_KEPT_PAGE, [*after, FORGET_ROWS])).fetchall()
                telling = [(who, key) for who, key, reply in rows if self._tells(bytes(reply), who, key, sought)]
                async with connection.cursor() as cursor:
                    await cursor.executemany(_UNKEEP, telling)
            if len(rows) < FORGET_ROWS:
                return
            after = rows[-1][:2]

    def _tells(self, reply: bytes, principal: str, key: str, sought: Sequence[str]) -> bool:
        try:
            clear = self._opened(reply, principal, key).decode(errors="replace").casefold()
        except InvalidTag:
            return True  # nobody can use it, and nobody can tell what it holds
        return any(word in clear for word in sought)

    def _sealed(self, clear: bytes, principal: str, key: str) -> bytes:
        return encrypt(self._key, clear, bound_to=f"{principal}/{key}")

    def _opened(self, sealed: bytes, principal: str, key: str) -> bytes:
        return decrypt(self._key, sealed, bound_to=f"{principal}/{key}")


async def _sweep(connection: Connection, at: datetime) -> None:
    await connection.execute(
        "DELETE FROM vault.idempotency WHERE (principal, key) IN "
        "(SELECT principal, key FROM vault.idempotency WHERE created_at < %s "
        "ORDER BY created_at LIMIT %s FOR UPDATE SKIP LOCKED)",
        [at - timedelta(days=KEPT_DAYS), SWEEP_ROWS],
    )
