"""A vault changes its key while others work: all that was wrapped opens, before, meanwhile and after."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest

from infra import rotation
from infra.credentials import CredentialStore
from infra.master_key import MasterKey
from infra.postgres import Pool
from infra.rotation import RotationRunsError, begin, key_uses, remove_unused, rewrap, rotating
from infra.vault import Vault
from infra.vault_tables import WRITERS_LOCK, VaultKeyError, create_vault, vault_pool
from infra.wrapping import FIRST_KEY, KeyRing, WrappingKeyMissingError

PEOPLE = [f"person-{number}" for number in range(25)]


@pytest.fixture
def master_key() -> MasterKey:
    return MasterKey(os.urandom(32))


@pytest.fixture
async def pool(postgres_url: str, master_key: MasterKey) -> AsyncIterator[Pool]:
    async with vault_pool(postgres_url) as opened:
        await create_vault(opened, master_key)
        yield opened


@pytest.fixture
def keys(master_key: MasterKey, tmp_path: Path) -> KeyRing:
    return KeyRing(master_key, tmp_path)


@pytest.fixture
def vault(pool: Pool, master_key: MasterKey, keys: KeyRing) -> Vault:
    return Vault(pool, master_key, keys)


async def rotate(pool: Pool, keys: KeyRing) -> str:
    newest = await begin(pool, keys)
    await rewrap(pool, keys, newest)
    return newest


async def rows_by_key(pool: Pool, keys: KeyRing) -> dict[str, int]:
    return {use.id: use.used for use in await key_uses(pool, keys)}


async def test_after_a_rotation_everything_opens_and_hangs_on_the_new_key(
    pool: Pool, vault: Vault, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH_ROWS", 10)
    sealed = [await vault.seal(person, "email", person) for person in PEOPLE]
    store = CredentialStore(pool, keys)
    await store.set("acme", "scaleway", {"secret_key": "hush"})
    batches: list[int] = []
    newest = await begin(pool, keys)
    assert await rewrap(pool, keys, newest, advance=batches.append) == len(PEOPLE) + 1
    assert batches == [10, 10, 5, 1]
    assert await rows_by_key(pool, keys) == {FIRST_KEY: 0, newest: len(PEOPLE) + 1}
    assert await vault.open_all(sealed) == PEOPLE
    assert await store.open("acme", "scaleway") == {"secret_key": "hush"}


async def test_another_process_opens_and_wraps_with_the_new_key_without_a_restart(
    pool: Pool, vault: Vault, master_key: MasterKey, keys: KeyRing, tmp_path: Path
) -> None:
    elsewhere = Vault(pool, master_key, KeyRing(master_key, tmp_path))
    sealed = await elsewhere.seal("alice", "email", "alice")
    newest = await rotate(pool, keys)
    assert await elsewhere.open(sealed) == "alice"
    await elsewhere.seal("bob", "email", "bob")
    assert await rows_by_key(pool, keys) == {FIRST_KEY: 0, newest: 2}


async def test_a_process_without_the_key_file_says_where_to_get_it(
    pool: Pool, vault: Vault, master_key: MasterKey, keys: KeyRing, tmp_path: Path
) -> None:
    sealed = await vault.seal("alice", "email", "alice")
    await rotate(pool, keys)
    blind = Vault(pool, master_key, KeyRing(master_key, tmp_path / "elsewhere"))
    with pytest.raises(WrappingKeyMissingError, match="copy its file"):
        await blind.open(sealed)
    with pytest.raises(WrappingKeyMissingError):
        await blind.seal("bob", "email", "bob")


async def test_another_file_under_the_same_name_wraps_nothing(
    pool: Pool, vault: Vault, master_key: MasterKey, keys: KeyRing, tmp_path: Path
) -> None:
    newest = await rotate(pool, keys)
    forged = tmp_path / "elsewhere" / "vault_keys" / newest
    forged.parent.mkdir(parents=True)
    forged.write_bytes(os.urandom(32))
    forged.chmod(0o600)
    with pytest.raises(WrappingKeyMissingError, match="another than"):
        await Vault(pool, master_key, KeyRing(master_key, tmp_path / "elsewhere")).seal("bob", "email", "bob")


async def test_a_rotation_cut_off_before_its_key_was_named_goes_on_with_that_key(pool: Pool, keys: KeyRing) -> None:
    made = keys.make()
    assert await begin(pool, keys) == made
    assert keys.in_files() == [made]


async def test_a_rotation_cut_off_between_batches_goes_on_where_it_was(
    pool: Pool, vault: Vault, keys: KeyRing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotation, "BATCH_ROWS", 10)
    sealed = [await vault.seal(person, "email", person) for person in PEOPLE]
    first = await begin(pool, keys)

    def killed(_rows: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rewrap(pool, keys, first, advance=killed)
    assert await rows_by_key(pool, keys) == {FIRST_KEY: 15, first: 10}
    assert await begin(pool, keys) == first, "no second key while rows of an older one are left"
    assert await rewrap(pool, keys, first) == 15
    assert await vault.open_all(sealed) == PEOPLE


async def test_an_old_key_goes_when_no_row_uses_it_and_never_before(pool: Pool, vault: Vault, keys: KeyRing) -> None:
    sealed = await vault.seal("alice", "email", "alice")
    first = await rotate(pool, keys)
    second = await begin(pool, keys)
    assert await remove_unused(pool, keys) == []
    assert keys.in_files() == sorted([first, second])
    await rewrap(pool, keys, second)
    assert await remove_unused(pool, keys) == [first]
    assert keys.in_files() == [second]
    assert list(await rows_by_key(pool, keys)) == [FIRST_KEY, second]
    assert await vault.open(sealed) == "alice"


async def test_writers_during_rotations_lose_nothing(pool: Pool, vault: Vault, keys: KeyRing) -> None:
    sealed = {}

    async def write() -> None:
        for person in PEOPLE * 2:
            sealed[person] = await vault.seal(person, "email", person)
            await asyncio.sleep(0)

    writing = asyncio.create_task(write())
    while not writing.done():
        newest = await rotate(pool, keys)
        await remove_unused(pool, keys)
    await writing
    newest = await rotate(pool, keys)
    assert await rows_by_key(pool, keys) == {FIRST_KEY: 0, newest: len(PEOPLE)} | {
        use.id: 0 for use in await key_uses(pool, keys) if not use.used
    }
    assert await vault.open_all(list(sealed.values())) == list(sealed)


async def test_naming_a_key_waits_for_whoever_is_writing_under_the_old_one(
    pool: Pool, vault: Vault, keys: KeyRing
) -> None:
    """Else that row would come after "no row uses it"."""
    async with pool.connection() as writer:
        await writer.execute("SELECT pg_advisory_xact_lock_shared(%s)", [WRITERS_LOCK])
        naming = asyncio.create_task(begin(pool, keys))
        async with pool.connection() as looker:
            for _ in range(200):
                waiting = await looker.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
                if await waiting.fetchone():
                    break
                await asyncio.sleep(0.02)
            else:
                raise AssertionError("naming never waited")
        assert not naming.done()
    assert await naming in keys.in_files()


async def test_one_rotation_at_a_time(pool: Pool, postgres_url: str) -> None:
    async with rotating(postgres_url):
        with pytest.raises(RotationRunsError):
            async with rotating(postgres_url):
                raise AssertionError("two at once")
    async with rotating(postgres_url):
        pass


async def test_a_row_that_does_not_open_stops_the_rotation_and_is_named(
    pool: Pool, vault: Vault, keys: KeyRing, postgres_url: str
) -> None:
    await vault.seal("alice", "email", "alice")
    await vault.seal("bob", "email", "bob")
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        await connection.execute(
            "UPDATE vault.person_keys SET wrapped = (SELECT wrapped FROM vault.person_keys WHERE person_id = 'bob') "
            "WHERE person_id = 'alice'"
        )
    with pytest.raises(VaultKeyError, match=r"vault\.person_keys \(alice\)"):
        await rotate(pool, keys)


async def test_a_key_file_is_private(pool: Pool, keys: KeyRing, tmp_path: Path) -> None:
    path = tmp_path / "vault_keys" / await begin(pool, keys)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_vault_from_before_keys_had_ids_opens_and_rotates(
    postgres_url: str, master_key: MasterKey, keys: KeyRing
) -> None:
    async with vault_pool(postgres_url) as pool:
        await create_vault(pool, master_key)
        vault = Vault(pool, master_key, keys)
        sealed = await vault.seal("alice", "email", "alice")
        async with pool.connection() as connection:  # as the first release had it
            await connection.execute("ALTER TABLE vault.person_keys DROP COLUMN key_id, DROP COLUMN erased_at")
            await connection.execute("UPDATE vault.person_keys SET wrapped = substring(wrapped FROM 5)")
        await create_vault(pool, master_key)
        assert await vault.open(sealed) == "alice"
        newest = await rotate(pool, keys)
        assert await rows_by_key(pool, keys) == {FIRST_KEY: 0, newest: 1}
        assert await vault.open(sealed) == "alice"
