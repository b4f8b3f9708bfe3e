"""Password hashes, kept in the vault: argon2id, computed one at a time on a thread of their own.

Hashing is meant to be slow, so it is a way to flood the service: at most MAX_WAITING callers queue, the next is turned
away at once. The surprising rule: an unknown user costs one verification too, against a hash that nobody knows.

A hash made with weaker parameters than today's is replaced at its owner's next login: only then is the password there.
"""

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from secrets import token_urlsafe
from typing import ParamSpec, TypeVar

import structlog
from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

from infra.postgres import Pool
from infra.vault_tables import VaultUnavailableError, vault_connection
from web.services import TooManyLoginsError

P = ParamSpec("P")
T = TypeVar("T")

MEMORY_KIB = 47_104
TIME_COST = 1
PARALLELISM = 1
"""OWASP's first choice for argon2id: 46 MiB, one pass, one lane; about 40 ms."""
MAX_WAITING = 20
"""Callers in the queue; at 40 ms each, the last one waits under a second."""

_log = structlog.get_logger()


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
        await self.keep(user_id, await self.hashed(password))

    async def hashed(self, password: str) -> str:
        """With a salt of its own. Raises TooManyLoginsError."""
        return await self._on_thread(self._hasher.hash, password)

    async def keep(self, user_id: str, hashed: str) -> None:
        """Raises VaultUnavailableError."""
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
        right = await self._on_thread(self._matches, hashed, password) and row is not None
        if right and user_id and self._is_outdated(hashed):
            await self._rehash(user_id, password, hashed)
        return right

    def _is_outdated(self, hashed: str) -> bool:
        """Only weaker counts: two versions of this code that run side by side must not undo each other's work."""
        made_with = extract_parameters(hashed)
        return made_with.memory_cost < self._hasher.memory_cost or made_with.time_cost < self._hasher.time_cost

    async def _rehash(self, user_id: str, password: str, outdated: str) -> None:
        """Unless the password was changed meanwhile; a failure leaves it to the next login."""
        try:
            renewed = await self.hashed(password)
            async with vault_connection(self._pool, "renew a hash") as connection:
                await connection.execute(
                    "UPDATE vault.passwords SET hash = %s WHERE user_id = %s AND hash = %s",
                    [renewed, user_id, outdated],
                )
        except (TooManyLoginsError, VaultUnavailableError) as error:
            _log.warning("password_not_rehashed", user=user_id, error=repr(error))

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
