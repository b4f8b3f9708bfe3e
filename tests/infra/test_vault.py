"""The vault: personal data opens with its person's key alone, and never again once that key is gone."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from infra.idempotency import LEASE_S, PostgresIdempotency
from infra.master_key import MasterKey, read_master_key
from infra.passwords import MAX_WAITING, Passwords
from infra.postgres import Pool
from infra.secret_files import SecretFileError
from infra.vault import PersonForgottenError, Vault, WorkerTokens
from infra.vault_tables import VaultKeyError, VaultUnavailableError, create_vault, vault_pool
from web.services import Claimed, InFlight, KeptReply, KeyReused, TooManyLoginsError

ALICE = "01890000-0000-7000-8000-00000000a11c"
BOB = "01890000-0000-7000-8000-000000000b0b"
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
REPLY = KeptReply(status=201, headers=(("content-type", "application/json"),), body=b'{"api_key":"sk-inv-abc"}')


@pytest.fixture
def master_key() -> MasterKey:
    return MasterKey(os.urandom(32))


@pytest.fixture
async def pool(postgres_url: str, master_key: MasterKey) -> AsyncIterator[Pool]:
    async with vault_pool(postgres_url) as opened:
        await create_vault(opened, master_key)
        yield opened


@pytest.fixture
def vault(pool: Pool, master_key: MasterKey) -> Vault:
    return Vault(pool, master_key)


@pytest.fixture
def idempotency(pool: Pool, master_key: MasterKey) -> PostgresIdempotency:
    return PostgresIdempotency(pool, master_key)


async def everything_stored(postgres_url: str) -> str:
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        found = ""
        for table in ("person_keys", "passwords", "idempotency", "master_key"):
            rows = await (await connection.execute(f"SELECT t::text FROM vault.{table} t")).fetchall()
            found += "\n".join(row[0] for row in rows)
    return found


async def test_what_is_sealed_can_be_opened(vault: Vault) -> None:
    sealed = await vault.seal(ALICE, "email", "Alice@example.org")
    assert "lice" not in sealed
    assert await vault.open(sealed) == "Alice@example.org"


async def test_sealing_twice_gives_two_ciphertexts(vault: Vault) -> None:
    assert await vault.seal(ALICE, "email", "a@b.c") != await vault.seal(ALICE, "email", "a@b.c")


async def test_a_forgotten_person_cannot_be_read_again(vault: Vault) -> None:
    alice, bob = await vault.seal(ALICE, "email", "alice"), await vault.seal(BOB, "email", "bob")
    await vault.forget(ALICE)
    await vault.forget(ALICE)
    assert await vault.open_all([alice, bob]) == [None, "bob"]


async def test_nothing_more_is_sealed_for_a_forgotten_person(vault: Vault) -> None:
    await vault.forget(ALICE)
    with pytest.raises(PersonForgottenError):
        await vault.seal(ALICE, "email", "alice")


async def test_a_sealed_field_does_not_open_as_another_field_or_person(vault: Vault) -> None:
    sealed = await vault.seal(ALICE, "email", "alice")
    await vault.seal(BOB, "email", "bob")
    assert await vault.open(type(sealed)(sealed.replace(".email.", ".first_name."))) is None
    assert await vault.open(type(sealed)(sealed.replace(ALICE, BOB))) is None
    assert await vault.open(type(sealed)("not sealed at all")) is None
    assert await vault.open(type(sealed)(sealed[:-6] + "AAAAAA")) is None


async def test_sealing_at_the_same_time_makes_one_key(vault: Vault) -> None:
    sealed = await asyncio.gather(*(vault.seal(ALICE, "field", str(n)) for n in range(8)))
    assert await vault.open_all(sealed) == [str(n) for n in range(8)]


async def test_no_data_key_is_stored_in_the_clear(vault: Vault, postgres_url: str) -> None:
    """With the database alone, nothing opens: another master key cannot unwrap."""
    await vault.seal(ALICE, "email", "alice@example.org")
    assert "alice" not in await everything_stored(postgres_url)


def test_digests_ignore_case_and_tell_kinds_apart(master_key: MasterKey) -> None:
    vault = Vault(None, master_key)  # type: ignore[arg-type]  # digests need no database
    assert vault.digest("email", " Alice@Example.org ") == vault.digest("email", "alice@example.org")
    assert vault.digest("email", "alice") != vault.digest("username", "alice")
    other = Vault(None, MasterKey(os.urandom(32)))  # type: ignore[arg-type]  # as above
    assert vault.digest("email", "alice") != other.digest("email", "alice")


def test_a_master_key_of_another_size_is_refused() -> None:
    with pytest.raises(SecretFileError, match="32 bytes"):
        MasterKey(b"short")


@pytest.mark.parametrize("weak", [bytes(32), b"k" * 32, b"", bytes(range(31)), bytes(range(33))])
def test_a_weak_master_key_is_refused(weak: bytes, tmp_path: Path) -> None:
    (tmp_path / "master_key").write_bytes(weak)
    (tmp_path / "master_key").chmod(0o600)
    with pytest.raises(SecretFileError, match="master_key"):
        read_master_key(tmp_path)


def test_a_missing_master_key_is_made_only_where_that_is_wanted(tmp_path: Path) -> None:
    with pytest.raises(SecretFileError, match="restore it from its backup"):
        read_master_key(tmp_path)
    assert list(tmp_path.iterdir()) == []
    made = read_master_key(tmp_path, make=True)
    assert read_master_key(tmp_path).key_for("wrapping") == made.key_for("wrapping")


async def test_a_vault_refuses_another_master_key(pool: Pool, master_key: MasterKey) -> None:
    await create_vault(pool, master_key)
    with pytest.raises(VaultKeyError, match="another master key"):
        await create_vault(pool, MasterKey(os.urandom(32)))


async def test_an_absent_database_is_a_fault_with_a_name(master_key: MasterKey) -> None:
    pool = vault_pool("postgresql://nobody@127.0.0.1:1/nothing")
    pool.timeout = 0.2
    await pool.open(wait=False)
    with pytest.raises(VaultUnavailableError, match="seal"):
        await Vault(pool, master_key).seal(ALICE, "email", "alice")
    await pool.close()


def test_a_bootstrap_token_proves_its_instance_and_attempt(master_key: MasterKey) -> None:
    tokens = WorkerTokens(master_key)
    token = tokens.bootstrap_token(ALICE, 2)
    assert token == WorkerTokens(master_key).bootstrap_token(ALICE, 2)
    assert token.startswith("wb_2_")
    assert tokens.bootstrap_attempt(ALICE, token) == 2


@pytest.mark.parametrize(
    "forge",
    [
        lambda t: t[:-1] + "0" if t[-1] != "0" else t[:-1] + "1",
        lambda t: t.replace("wb_2_", "wb_3_"),
        lambda t: "",
        lambda t: "wb_x_y",
        lambda t: t + "é",
        lambda t: "wb_" + "9" * 400 + "_1",
    ],
)
def test_a_forged_bootstrap_token_proves_nothing(master_key: MasterKey, forge: Callable[[str], str]) -> None:
    tokens = WorkerTokens(master_key)
    assert tokens.bootstrap_attempt(ALICE, forge(tokens.bootstrap_token(ALICE, 2))) is None
    assert tokens.bootstrap_attempt(BOB, tokens.bootstrap_token(ALICE, 2)) is None


async def test_a_password_verifies_for_its_user_alone(pool: Pool, postgres_url: str) -> None:
    passwords = Passwords(pool)
    await passwords.set_password(ALICE, "correct horse battery")
    assert await passwords.verify(ALICE, "correct horse battery")
    assert not await passwords.verify(ALICE, "wrong horse")
    assert not await passwords.verify(BOB, "correct horse battery")
    assert not await passwords.verify(None, "correct horse battery")
    stored = await everything_stored(postgres_url)
    assert "$argon2id$v=19$m=47104,t=1,p=1$" in stored
    assert "correct horse" not in stored
    passwords.close()


async def test_a_flood_of_logins_is_turned_away(pool: Pool) -> None:
    passwords = Passwords(pool)
    await passwords.warm_up()
    tries = await asyncio.gather(*(passwords.verify(None, "x") for _ in range(MAX_WAITING * 3)), return_exceptions=True)
    turned_away = [outcome for outcome in tries if isinstance(outcome, TooManyLoginsError)]
    assert turned_away
    assert all(outcome is False for outcome in tries if outcome not in turned_away)
    passwords.close()


async def test_a_key_runs_once_and_then_replays_its_reply(idempotency: PostgresIdempotency) -> None:
    claimed = await idempotency.claim("user:alice", "k", b"digest", NOON)
    assert isinstance(claimed, Claimed)
    assert not claimed.resumed
    await idempotency.finish("user:alice", "k", REPLY)
    assert await idempotency.claim("user:alice", "k", b"digest", NOON) == REPLY


async def test_a_key_belongs_to_its_principal(idempotency: PostgresIdempotency) -> None:
    await idempotency.claim("user:alice", "k", b"digest", NOON)
    assert isinstance(await idempotency.claim("user:bob", "k", b"digest", NOON), Claimed)


async def test_another_request_under_the_same_key_is_told_so(idempotency: PostgresIdempotency) -> None:
    await idempotency.claim("user:alice", "k", b"digest", NOON)
    assert await idempotency.claim("user:alice", "k", b"other", NOON) == KeyReused()


async def test_a_dead_attempt_is_resumed_from_its_seed_after_the_lease(idempotency: PostgresIdempotency) -> None:
    first = await idempotency.claim("user:alice", "k", b"digest", NOON)
    assert await idempotency.claim("user:alice", "k", b"digest", NOON + timedelta(seconds=LEASE_S - 1)) == InFlight()
    again = await idempotency.claim("user:alice", "k", b"digest", NOON + timedelta(seconds=LEASE_S + 1))
    assert isinstance(first, Claimed)
    assert again == Claimed(seed=first.seed, at=NOON, resumed=True)
    assert await idempotency.claim("user:alice", "k", b"digest", NOON + timedelta(seconds=LEASE_S + 2)) == InFlight()


async def test_a_released_key_runs_again_at_once(idempotency: PostgresIdempotency) -> None:
    await idempotency.claim("user:alice", "k", b"digest", NOON)
    await idempotency.release("user:alice", "k", untouched=False)
    again = await idempotency.claim("user:alice", "k", b"digest", NOON)
    assert isinstance(again, Claimed)
    assert again.resumed


async def test_a_key_that_did_nothing_is_as_good_as_new(idempotency: PostgresIdempotency) -> None:
    await idempotency.claim("user:alice", "k", b"digest", NOON)
    await idempotency.release("user:alice", "k", untouched=True)
    again = await idempotency.claim("user:alice", "k", b"other", NOON)
    assert isinstance(again, Claimed)
    assert not again.resumed


async def test_of_racing_attempts_exactly_one_runs(idempotency: PostgresIdempotency) -> None:
    outcomes = await asyncio.gather(*(idempotency.claim("user:alice", "k", b"digest", NOON) for _ in range(8)))
    assert [type(outcome) for outcome in outcomes].count(Claimed) == 1
    assert [type(outcome) for outcome in outcomes].count(InFlight) == 7


async def test_old_keys_are_swept(idempotency: PostgresIdempotency) -> None:
    await idempotency.claim("user:alice", "k", b"digest", NOON)
    await idempotency.claim("user:alice", "later", b"digest", NOON + timedelta(days=8))
    assert isinstance(await idempotency.claim("user:alice", "k", b"other", NOON + timedelta(days=8)), Claimed)


async def test_a_kept_reply_is_stored_sealed(idempotency: PostgresIdempotency, postgres_url: str) -> None:
    await idempotency.claim("user:alice", "k", b"digest", NOON)
    await idempotency.finish("user:alice", "k", REPLY)
    assert "sk-inv-abc" not in await everything_stored(postgres_url)
    assert REPLY.body.hex() not in await everything_stored(postgres_url)
