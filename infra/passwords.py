"""Password hashes, kept in the vault: argon2id, computed one at a time on a thread of their own.

Hashing is meant to be slow, so it is a way to flood the service: at most MAX_WAITING callers queue, the next is turned
away at once. The surprising rule: an unknown user costs one verification too, against a hash that nobody knows.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from secrets import token_urlsafe
from typing import ParamSpec, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from infra.postgres import Pool
from infra.vault_tables import vault_connection
from web.services import TooManyLoginsError

P = ParamSpec("P")
T = TypeVar("T")

MEMORY_KIB = 47_104
TIME_COST = 1
PARALLELISM = 1
"""OWASP's first choice for argon2id: 46 MiB, one pass, one lane; about 40 ms."""
MAX_WAITING = 20
"""Callers in the queue; at 40 ms each, the last one waits under a second."""


class Passwords:
    """Sets and verifies; plain passwords never leave this object."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._hasher = PasswordHasher(time_cost=TIME_COST, memory_cost=MEMORY_KIB, parallelism=PARALLELISM)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="argon2")
        self._waiting = 0
        self._nobodys_hash = ""

    async def set_password(self, user_id: str, password: str) -> None:
        """Raises TooManyLoginsError, VaultUnavailableError."""
        hashed = await self._on_thread(self._hasher.hash, password)
        async with vault_connection(self._pool, "set password") as connection:
            await connection.execute(
                "INSERT INTO vault.passwords (user_id, hash) VALUES (%s, %s) "
                "ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, set_at = now()",
                [user_id, hashed],
            )

    async def is_set(self, user_id: str) -> bool:
        """Raises VaultUnavailableError."""
        async with vault_connection(self._pool, "look for a password") as connection:
            cursor = await connection.execute("SELECT 1 FROM vault.passwords WHERE user_id = %s", [user_id])
            return await cursor.fetchone() is not None

    async def verify(self, user_id: str | None, password: str) -> bool:
        """True when this is the user's password; as slow for no user (None) as for a wrong password.

        Raises:
            TooManyLoginsError: the queue is full.
            VaultUnavailableError: Postgres is away.
        """
        async with vault_connection(self._pool, "verify password") as connection:
            cursor = await connection.execute("SELECT hash FROM vault.passwords WHERE user_id = %s", [user_id or ""])
            row = await cursor.fetchone()
        hashed = row[0] if row else await self._hash_of_nobody()
        return await self._on_thread(self._matches, hashed, password) and row is not None

    async def _hash_of_nobody(self) -> str:
        if not self._nobodys_hash:
            self._nobodys_hash = await self._on_thread(self._hasher.hash, token_urlsafe())
        return self._nobodys_hash

    async def warm_up(self) -> None:
        """Makes nobody's hash ahead of the first login, which would otherwise be measurably slower."""
        await self._hash_of_nobody()

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _matches(self, hashed: str, password: str) -> bool:
        try:
            return self._hasher.verify(hashed, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _on_thread(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        if self._waiting >= MAX_WAITING:
            raise TooManyLoginsError
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._thread, functools.partial(function, *arguments, **named)
            )
        finally:
            self._waiting -= 1
