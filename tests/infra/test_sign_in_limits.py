"""Tallies in Postgres: counted ahead, taken back, shared by all processes, and readable by nobody."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from infra.master_key import MasterKey
from infra.postgres import Pool
from infra.sign_in_limits import PRUNE_EVERY, SignInLimits
from infra.sign_in_tables import create_sign_in_tables, forget_sign_ins
from infra.vault_tables import VaultUnavailableError, vault_pool
from web.sign_in_rules import FREE_FAILURES, KNOWN_FOR, MAX_ADDRESS_FAILURES, QUIET, SignInAttempt, Wait

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
ALICE = SignInAttempt("user-alice", "", "203.0.113.7")
NOBODY = SignInAttempt(None, "digest-of-a-name", "203.0.113.7")


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    async with vault_pool(postgres_url) as opened:
        await create_sign_in_tables(opened)
        yield opened


@pytest.fixture
def limits(pool: Pool) -> SignInLimits:
    return SignInLimits(pool, MasterKey(os.urandom(32)))


async def rows(pool: Pool) -> list[tuple[object, ...]]:
    async with pool.connection() as connection:
        return await (await connection.execute("SELECT * FROM vault.sign_in_tallies")).fetchall()


@pytest.mark.parametrize("attempt", [ALICE, NOBODY])
async def test_the_rules_hold_for_a_user_and_for_a_name_that_nobody_has(
    limits: SignInLimits, attempt: SignInAttempt
) -> None:
    assert [await limits.admit(attempt, NOON) for _ in range(FREE_FAILURES)] == [None] * FREE_FAILURES
    assert await limits.admit(attempt, NOON) == Wait(1)
    assert await limits.admit(attempt, NOON + timedelta(seconds=1)) is None


async def test_a_login_takes_its_count_back(limits: SignInLimits) -> None:
    for _ in range(FREE_FAILURES * 3):
        assert await limits.admit(ALICE, NOON) is None
        await limits.succeeded(ALICE, NOON)


async def test_an_attempt_that_was_not_looked_at_is_withdrawn(limits: SignInLimits) -> None:
    for _ in range(FREE_FAILURES * 3):
        assert await limits.admit(ALICE, NOON) is None
        await limits.withdraw(ALICE, NOON)


async def test_a_hundred_at_once_are_no_more_than_a_hundred_in_a_row(limits: SignInLimits) -> None:
    """Also over several accounts whose rows are locked together."""
    names = [SignInAttempt(None, f"name-{number % 3}", "203.0.113.7") for number in range(30)]
    outcomes = await asyncio.gather(*(limits.admit(one, NOON) for one in names))
    admitted = [one.name for one, outcome in zip(names, outcomes, strict=True) if outcome is None]
    assert max(admitted.count(name) for name in set(admitted)) <= FREE_FAILURES
    assert len(admitted) <= MAX_ADDRESS_FAILURES


async def test_two_processes_share_their_tallies(pool: Pool) -> None:
    key = MasterKey(os.urandom(32))
    one, other = SignInLimits(pool, key), SignInLimits(pool, key)
    for number in range(FREE_FAILURES):
        assert await (one if number % 2 else other).admit(ALICE, NOON) is None
    assert await one.admit(ALICE, NOON) == await other.admit(ALICE, NOON) == Wait(1)


async def test_requests_of_a_kind_are_counted_by_address(limits: SignInLimits) -> None:
    for _ in range(MAX_ADDRESS_FAILURES):
        assert await limits.count("password_reset", "203.0.113.7", NOON) is None
    assert await limits.count("password_reset", "203.0.113.7", NOON) == Wait(60)
    assert await limits.count("password_reset", "203.0.113.8", NOON) is None
    assert await limits.admit(ALICE, NOON) is None


async def test_a_reset_lets_the_account_begin_anew_everywhere(limits: SignInLimits) -> None:
    for _ in range(FREE_FAILURES):
        await limits.admit(ALICE, NOON)
    await limits.clear("user-alice")
    assert [await limits.admit(ALICE, NOON) for _ in range(FREE_FAILURES)] == [None] * FREE_FAILURES


async def test_the_table_names_no_address_and_no_account(limits: SignInLimits, pool: Pool) -> None:
    await limits.admit(ALICE, NOON)
    await limits.admit(NOBODY, NOON)
    written = repr(await rows(pool))
    assert "user-alice" in written  # for forgetting; an id, not a name
    assert "203.0.113" not in written
    assert "digest-of-a-name" not in written


async def test_a_forgotten_person_leaves_no_row(limits: SignInLimits, pool: Pool) -> None:
    await limits.admit(ALICE, NOON)
    await forget_sign_ins(pool, "user-alice")
    await forget_sign_ins(pool, "user-alice")
    assert "user-alice" not in repr(await rows(pool))


async def test_old_tallies_go_by_themselves(limits: SignInLimits, pool: Pool) -> None:
    await limits.admit(NOBODY, NOON)
    await limits.admit(ALICE, NOON)
    assert len(await rows(pool)) == 5  # the address is theirs together
    await limits.admit(NOBODY, NOON + PRUNE_EVERY + KNOWN_FOR + QUIET)
    assert len(await rows(pool)) == 3


async def test_without_postgres_nobody_is_let_through(limits: SignInLimits, pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("DROP TABLE vault.sign_in_tallies")
    with pytest.raises(VaultUnavailableError, match="sign-in"):
        await limits.admit(ALICE, NOON)
