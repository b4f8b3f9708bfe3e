"""Password hashes: renewed when they are weak, never weakened, and one at a time."""

import asyncio
import os
from collections.abc import AsyncIterator

import pytest
from argon2 import PasswordHasher, extract_parameters

from infra.master_key import MasterKey
from infra.passwords import MAX_WAITING, MEMORY_KIB, PARALLELISM, TIME_COST, Passwords
from infra.postgres import Pool
from infra.vault_tables import create_vault, vault_pool
from web.services import TooManyLoginsError

WEAK = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    async with vault_pool(postgres_url) as opened:
        await create_vault(opened, MasterKey(os.urandom(32)))
        yield opened


@pytest.fixture
def passwords(pool: Pool) -> Passwords:
    return Passwords(pool)


async def memory_of(pool: Pool, user_id: str) -> int:
    async with pool.connection() as connection:
        row = await (
            await connection.execute("SELECT hash FROM vault.passwords WHERE user_id = %s", [user_id])
        ).fetchone()
    assert row is not None
    return extract_parameters(row[0]).memory_cost


async def test_hashes_are_made_with_the_stated_parameters(passwords: Passwords) -> None:
    made = extract_parameters(await passwords.hashed("a password"))
    assert (made.memory_cost, made.time_cost, made.parallelism) == (MEMORY_KIB, TIME_COST, PARALLELISM)
    assert MEMORY_KIB >= 47_104


async def test_a_weak_hash_is_renewed_at_the_next_login(passwords: Passwords, pool: Pool) -> None:
    await passwords.keep("u-1", WEAK.hash("a password"))
    assert not await passwords.verify("u-1", "another")
    assert await memory_of(pool, "u-1") == 64
    assert await passwords.verify("u-1", "a password")
    assert await memory_of(pool, "u-1") == MEMORY_KIB
    assert await passwords.verify("u-1", "a password")


async def test_a_stronger_hash_is_left_alone(passwords: Passwords, pool: Pool) -> None:
    await passwords.set_password("u-1", "a password")
    passwords._hasher = WEAK
    assert await passwords.verify("u-1", "a password")
    assert await memory_of(pool, "u-1") == MEMORY_KIB


async def test_the_last_password_that_was_kept_counts(passwords: Passwords) -> None:
    first, second = await passwords.hashed("first"), await passwords.hashed("second")
    await passwords.keep("u-1", first)
    await passwords.keep("u-1", second)
    assert not await passwords.verify("u-1", "first")
    assert await passwords.verify("u-1", "second")


async def test_a_full_queue_turns_away_at_once(passwords: Passwords) -> None:
    outcomes = await asyncio.gather(*(passwords.hashed("x") for _ in range(MAX_WAITING + 5)), return_exceptions=True)
    assert sum(isinstance(outcome, TooManyLoginsError) for outcome in outcomes) == 5
