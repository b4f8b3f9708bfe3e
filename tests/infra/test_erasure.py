"""The steps of an erasure, one by one: what goes, what stays, and what leaves the very files."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from handlers.person_ports import HeldAddress
from handlers.ports import Mail
from infra import erasure
from infra.erasure import VaultEraser, scrub_tables
from infra.idempotency import FORGET_ROWS, PostgresIdempotency
from infra.inbox import Inbox
from infra.master_key import MasterKey
from infra.postgres import Pool
from infra.vault import Vault
from infra.vault_tables import VaultUnavailableError, create_vault, vault_pool
from tests.infra.forgetting import data_key_in_files, wrapped_key
from web.services import Claimed, KeptReply

PEOPLE = [f"person-{number}" for number in range(40)]
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


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


@pytest.fixture
def inbox(tmp_path: Path) -> Inbox:
    return Inbox(tmp_path / "inbox")


@pytest.fixture
def eraser(postgres_url: str, pool: Pool, vault: Vault, idempotency: PostgresIdempotency, inbox: Inbox) -> VaultEraser:
    return VaultEraser(postgres_url, pool, vault, idempotency, inbox)


async def still_in_files(postgres_url: str, keys: list[bytes]) -> int:
    return sum([await data_key_in_files(postgres_url, key) for key in keys])


async def test_rewriting_takes_deleted_keys_out_of_the_files_which_a_plain_vacuum_does_not(
    pool: Pool, vault: Vault, eraser: VaultEraser, postgres_url: str
) -> None:
    sealed = [await vault.seal(person, "email", person) for person in PEOPLE]
    forgotten = PEOPLE[::2]
    keys = [await wrapped_key(pool, person) for person in forgotten]
    await eraser.destroy_keys(forgotten)
    assert await still_in_files(postgres_url, keys) == len(keys)
    async with await psycopg.AsyncConnection.connect(postgres_url, autocommit=True) as connection:
        await connection.execute("VACUUM vault.person_keys")
    assert await still_in_files(postgres_url, keys) > 0, "else VACUUM without FULL would do"
    await eraser.scrub()
    assert await still_in_files(postgres_url, keys) == 0
    assert await vault.open_all(sealed) == [None if person in forgotten else person for person in PEOPLE]


async def test_whoever_works_with_the_vault_goes_on_while_its_tables_are_rewritten(
    vault: Vault, postgres_url: str
) -> None:
    stopping = asyncio.Event()

    async def work() -> int:
        done = 0
        while not stopping.is_set():
            sealed = await vault.seal(PEOPLE[done % len(PEOPLE)], "email", str(done))
            assert await vault.open(sealed) == str(done)
            done += 1
        return done

    working = asyncio.create_task(work())
    for _ in range(5):
        await scrub_tables(postgres_url)
    stopping.set()
    assert await working > 0


async def test_a_table_that_is_not_free_is_left_for_later(
    vault: Vault, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasure, "LOCK_WAIT_S", 1)
    await vault.seal("alice", "email", "alice")
    async with await psycopg.AsyncConnection.connect(postgres_url) as holder:
        await holder.execute("LOCK TABLE vault.person_keys IN ROW EXCLUSIVE MODE")
        with pytest.raises(VaultUnavailableError, match="rewriting"):
            await scrub_tables(postgres_url)
    await scrub_tables(postgres_url)


async def test_an_erasure_is_finished_once_and_only_then_it_says_so(vault: Vault, eraser: VaultEraser) -> None:
    await vault.seal("alice", "email", "alice")
    await eraser.destroy_keys(["alice"])
    assert await vault.erased_at("alice") is None
    await eraser.finish("alice")
    first = await vault.erased_at("alice")
    await eraser.finish("alice")
    assert first is not None
    assert await vault.erased_at("alice") == first
    assert await vault.erased_at("bob") is None


async def reply_to(idempotency: PostgresIdempotency, principal: str, key: str, text: str) -> Claimed:
    claimed = await idempotency.claim(principal, key, b"digest", NOON)
    assert isinstance(claimed, Claimed)
    await idempotency.finish(principal, key, KeptReply(status=200, headers=(), body=text.encode()))
    return claimed


async def test_replies_to_and_about_a_person_go_and_the_others_stay(
    idempotency: PostgresIdempotency, eraser: VaultEraser
) -> None:
    await reply_to(idempotency, "user:bob", "own", "anything")
    await reply_to(idempotency, "user:admin", "theirs", '{"email": "Carol@Example.org"}')
    about = await reply_to(idempotency, "user:admin", "about", '{"email": "Bob@Example.org"}')
    for number in range(FORGET_ROWS + 1):
        await reply_to(idempotency, "user:zoe", f"{number:04}", '{"id": "bob"}' if number == FORGET_ROWS else "{}")
    await eraser.forget_replies("bob", ["bob@example.org"])
    later = NOON + timedelta(seconds=1)
    assert isinstance(await idempotency.claim("user:bob", "own", b"digest", later), Claimed)
    assert isinstance(await idempotency.claim("user:admin", "theirs", b"digest", later), KeptReply)
    assert isinstance(await idempotency.claim("user:zoe", "0000", b"digest", later), KeptReply)
    assert isinstance(await idempotency.claim("user:zoe", f"{FORGET_ROWS:04}", b"digest", later), Claimed)
    again = await idempotency.claim("user:admin", "about", b"digest", later)
    assert again == Claimed(seed=about.seed, at=NOON, resumed=True), (
        "made again from its seed, so nothing is done twice"
    )


async def test_mails_go_as_far_as_the_address_was_the_persons(vault: Vault, eraser: VaultEraser, inbox: Inbox) -> None:
    for number, to in enumerate(("Bob@example.org", "carol@example.org")):
        await inbox.send(Mail(to=to, subject="hello", text="text\n", message_id=str(number)))
    digest = vault.digest("email", "bob@example.org")
    await eraser.delete_mails([HeldAddress(digest, NOON - timedelta(days=400))])
    assert len(inbox.mails()) == 2, "whoever has the address today is somebody else"
    await eraser.delete_mails([HeldAddress(digest, datetime.now(UTC))])
    assert [mail.to for mail in inbox.mails()] == ["carol@example.org"]
