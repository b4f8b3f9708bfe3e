"""Uses of sessions: noted at once, written seldom and together."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from infra import session_uses
from infra.postgres import Pool
from infra.session_uses import WRITE_EVERY, SessionUses
from infra.sign_in_tables import create_sign_in_tables, forget_sign_ins
from infra.vault_tables import VaultUnavailableError, vault_connection, vault_pool

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.fixture
async def pool(postgres_url: str) -> AsyncIterator[Pool]:
    async with vault_pool(postgres_url) as opened:
        await create_sign_in_tables(opened)
        yield opened


async def stored(pool: Pool) -> dict[str, datetime]:
    async with pool.connection() as connection:
        rows = await connection.execute("SELECT session_id, last_used_at FROM vault.session_uses")
        return dict(await rows.fetchall())


async def test_a_use_is_told_before_it_is_written(pool: Pool) -> None:
    uses = SessionUses(pool)
    uses.note("s-1", "u-1", NOON)
    assert await uses.last_used(["s-1", "s-2"]) == {"s-1": NOON}
    assert await stored(pool) == {}


async def test_a_session_is_written_at_most_once_a_minute(pool: Pool) -> None:
    uses = SessionUses(pool)
    for second in range(59):
        uses.note("s-1", "u-1", NOON + timedelta(seconds=second))
        await uses.flush()
    assert await stored(pool) == {"s-1": NOON}
    uses.note("s-1", "u-1", NOON + WRITE_EVERY)
    await uses.flush()
    assert await stored(pool) == {"s-1": NOON + WRITE_EVERY}


async def test_many_sessions_are_one_write(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = []

    def counted(*arguments: object) -> object:
        writes.append(arguments)
        return vault_connection(pool, "test")

    monkeypatch.setattr("infra.session_uses.vault_connection", counted)
    uses = SessionUses(pool)
    for number in range(200):
        uses.note(f"s-{number}", "u-1", NOON)
    await uses.flush()
    await uses.flush()
    assert (len(writes), len(await stored(pool))) == (1, 200)


async def test_another_process_tells_what_was_written(pool: Pool) -> None:
    one, other = SessionUses(pool), SessionUses(pool)
    one.note("s-1", "u-1", NOON)
    await one.flush()
    other.note("s-2", "u-1", NOON)
    assert await other.last_used(["s-1", "s-2"]) == {"s-1": NOON, "s-2": NOON}


async def test_a_late_write_does_not_turn_the_time_back(pool: Pool) -> None:
    one, other = SessionUses(pool), SessionUses(pool)
    one.note("s-1", "u-1", NOON)
    other.note("s-1", "u-1", NOON + timedelta(minutes=5))
    await other.flush()
    await one.flush()
    assert await stored(pool) == {"s-1": NOON + timedelta(minutes=5)}


async def test_who_stops_writes_once_more(pool: Pool) -> None:
    async with SessionUses(pool) as uses:
        uses.note("s-1", "u-1", NOON)
    assert await stored(pool) == {"s-1": NOON}


async def test_what_could_not_be_written_stays_due(pool: Pool) -> None:
    uses = SessionUses(pool)
    uses.note("s-1", "u-1", NOON)
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE vault.session_uses RENAME TO away")
    with pytest.raises(VaultUnavailableError):
        await uses.flush()
    async with pool.connection() as connection:
        await connection.execute("ALTER TABLE vault.away RENAME TO session_uses")
    await uses.flush()
    assert await stored(pool) == {"s-1": NOON}


async def test_memory_is_bounded(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_uses, "MAX_NOTED", 3)
    uses = SessionUses(pool)
    for number in range(5):
        uses.note(f"s-{number}", "u-1", NOON)
    assert set(await uses.last_used([f"s-{number}" for number in range(5)])) == {"s-2", "s-3", "s-4"}


async def test_a_forgotten_person_leaves_no_use(pool: Pool) -> None:
    uses = SessionUses(pool)
    uses.note("s-1", "u-1", NOON)
    uses.note("s-2", "u-2", NOON)
    await uses.flush()
    await forget_sign_ins(pool, "u-1")
    assert set(await stored(pool)) == {"s-2"}
