"""Tallies of failed sign-ins in Postgres, one row a key, shared by all web processes; web/sign_in_rules.py decides.

    attempt ──> lock its three rows ──> rule ──> counted as failed, or refused     right password ──> taken back

The rows are locked in the order of their keys, so two attempts never wait for each other in a circle.
"""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import assert_never

from msgspec.structs import astuple
from psycopg.rows import kwargs_row

from infra.master_key import MasterKey
from infra.postgres import Pool
from infra.sign_in_tables import prune_sign_ins
from infra.vault_tables import vault_connection
from projections.projection import Connection
from web.sign_in_rules import (
    KNOWN_FOR,
    QUIET,
    ResetNeeded,
    SignInAttempt,
    Tallies,
    Tally,
    Wait,
    admitted,
    counted,
    network_of,
    source_of,
    taken_back,
    withdrawn,
)

STRANGER_KEPT = timedelta(days=1)
"""Tallies of names that nobody has: long enough for all rules but the hundred in a row."""
USES_KEPT = timedelta(days=30)
PRUNE_EVERY = timedelta(minutes=1)
PRUNED_ROWS = 1000
"""At once, of each table; a process admits fewer new rows than that in PRUNE_EVERY from fifty addresses."""

_SELECT = """
    SELECT failures, in_a_row, began_at, failed_at, blocked_until, succeeded_at
    FROM vault.sign_in_tallies WHERE key = %s FOR UPDATE
"""
_BEGIN = """
    INSERT INTO vault.sign_in_tallies (key, user_id, failures, in_a_row, expires_at) VALUES (%s, %s, 0, 0, %s)
    ON CONFLICT DO NOTHING
"""
_UPDATE = """
    UPDATE vault.sign_in_tallies SET failures = %s, in_a_row = %s, began_at = %s, failed_at = %s, blocked_until = %s,
        succeeded_at = %s, expires_at = %s
    WHERE key = %s
"""


class SignInLimits:
    """Implements web.services.SignInLimits; every method raises VaultUnavailableError when Postgres is away."""

    def __init__(self, pool: Pool, master_key: MasterKey) -> None:
        self._pool = pool
        self._master_key = master_key
        self._pruned_at: datetime | None = None

    async def admit(self, attempt: SignInAttempt, at: datetime) -> Wait | ResetNeeded | None:
        await self._prune(at)
        keys = self._keys(attempt)
        async with vault_connection(self._pool, "count a sign-in") as connection:
            outcome = admitted(await self._locked(connection, attempt, keys, at), at)
            match outcome:
                case Tallies():
                    await self._store(connection, attempt, keys, outcome, at)
                    return None
                case Wait() | ResetNeeded():
                    return outcome
                case _:
                    assert_never(outcome)

    async def succeeded(self, attempt: SignInAttempt, at: datetime) -> None:
        await self._correct(attempt, at, partial(taken_back, at=at))

    async def withdraw(self, attempt: SignInAttempt, at: datetime) -> None:
        await self._correct(attempt, at, withdrawn)

    async def _correct(self, attempt: SignInAttempt, at: datetime, rule: Callable[[Tallies], Tallies]) -> None:
        keys = self._keys(attempt)
        async with vault_connection(self._pool, "correct a sign-in's count") as connection:
            tallies = rule(await self._locked(connection, attempt, keys, at))
            await self._store(connection, attempt, keys, tallies, at)

    async def count(self, kind: str, address: str, at: datetime) -> Wait | None:
        await self._prune(at)
        key = self._key(kind, source_of(address))
        async with vault_connection(self._pool, "count a request") as connection:
            outcome = counted(await _row(connection, key, None, at), at)
            if isinstance(outcome, Wait):
                return outcome
            await _keep(connection, key, outcome, at + QUIET)
        return None

    async def clear(self, user_id: str) -> None:
        async with vault_connection(self._pool, "clear an account's sign-ins") as connection:
            await connection.execute(
                "UPDATE vault.sign_in_tallies SET failures = 0, in_a_row = 0, began_at = NULL, blocked_until = NULL "
                "WHERE user_id = %s",
                [user_id],
            )

    def _keys(self, attempt: SignInAttempt) -> Mapping[str, bytes]:
        account = attempt.user_id or f"name/{attempt.name}"
        return {
            "address": self._key("address", source_of(attempt.address)),
            "account_here": self._key("account_here", account, network_of(attempt.address)),
            "account": self._key("account", account),
        }

    def _key(self, kind: str, *parts: str) -> bytes:
        return self._master_key.mac("digest", "sign_in", kind, *parts)

    async def _locked(
        self, connection: Connection, attempt: SignInAttempt, keys: Mapping[str, bytes], at: datetime
    ) -> Tallies:
        found = {}
        for name, key in sorted(keys.items(), key=lambda one: one[1]):
            user_id = None if name == "address" else attempt.user_id
            found[name] = await _row(connection, key, user_id, at)
        return Tallies(**found)

    async def _store(
        self,
        connection: Connection,
        attempt: SignInAttempt,
        keys: Mapping[str, bytes],
        tallies: Tallies,
        at: datetime,
    ) -> None:
        account_kept = KNOWN_FOR if attempt.user_id else STRANGER_KEPT
        await _keep(connection, keys["address"], tallies.address, at + QUIET)
        await _keep(connection, keys["account_here"], tallies.account_here, at + account_kept)
        await _keep(connection, keys["account"], tallies.account, at + account_kept)

    async def _prune(self, at: datetime) -> None:
        if self._pruned_at is not None and at - self._pruned_at < PRUNE_EVERY:
            return
        self._pruned_at = at
        await prune_sign_ins(self._pool, tallies_before=at, uses_before=at - USES_KEPT, rows=PRUNED_ROWS)


async def _row(connection: Connection, key: bytes, user_id: str | None, at: datetime) -> Tally:
    """The key's row, begun when there is none, and locked until the end of the transaction."""
    await connection.execute(_BEGIN, [key, user_id, at + QUIET])
    async with connection.cursor(row_factory=kwargs_row(Tally)) as cursor:
        await cursor.execute(_SELECT, [key])
        return await cursor.fetchone() or Tally()


async def _keep(connection: Connection, key: bytes, tally: Tally, expires_at: datetime) -> None:
    await connection.execute(_UPDATE, [*astuple(tally), expires_at, key])
