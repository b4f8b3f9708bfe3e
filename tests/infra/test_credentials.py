"""Credentials go in by name, come out only to whoever may open them, and only for the organisation they belong to."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import psycopg
import pytest
from cryptography.exceptions import InvalidTag

from domain.provider_credentials import purpose_of
from infra.credentials import CredentialStore, opened_by_provider
from infra.master_key import MasterKey
from infra.secret_files import SecretFileError
from infra.vault_tables import VaultUnavailableError, create_vault, vault_pool
from infra.wrapping import KeyRing
from tests.examples import ACME, GLOBEX

SECRETS = {"secret_key": "hush-hush", "project_id": "p-1"}


@pytest.fixture
async def store(postgres_url: str) -> AsyncIterator[CredentialStore]:
    master_key = MasterKey(os.urandom(32))
    async with vault_pool(postgres_url) as pool:
        await create_vault(pool, master_key)
        yield CredentialStore(pool, KeyRing(master_key))


async def test_what_was_set_is_named_and_opens(store: CredentialStore) -> None:
    await store.set("acme", "scaleway", SECRETS)
    assert await store.names("acme", "scaleway") == ("project_id", "secret_key")
    assert await store.open("acme", "scaleway") == SECRETS


async def test_setting_again_replaces_the_whole_bundle(store: CredentialStore) -> None:
    await store.set("acme", "scaleway", SECRETS)
    await store.set("acme", "scaleway", {"secret_key": "another"})
    assert await store.open("acme", "scaleway") == {"secret_key": "another"}


async def test_another_organisation_and_another_provider_have_none(store: CredentialStore) -> None:
    await store.set("acme", "scaleway", SECRETS)
    for place in (("globex", "scaleway"), ("acme", "ovh")):
        assert await store.names(*place) == ()
        assert await store.open(*place) == {}


async def test_what_was_removed_is_gone(store: CredentialStore) -> None:
    await store.set("acme", "scaleway", SECRETS)
    await store.remove("acme", "scaleway")
    await store.remove("acme", "scaleway")
    assert await store.open("acme", "scaleway") == {}


async def test_a_bundle_does_not_open_in_another_organisations_row(store: CredentialStore, postgres_url: str) -> None:
    await store.set("acme", "scaleway", SECRETS)
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        await connection.execute("UPDATE vault.credentials SET organization_id = 'globex'")
    with pytest.raises(InvalidTag):
        await store.open("globex", "scaleway")


async def test_no_value_is_stored_in_the_clear(store: CredentialStore, postgres_url: str) -> None:
    await store.set("acme", "scaleway", SECRETS)
    async with await psycopg.AsyncConnection.connect(postgres_url) as connection:
        rows = await (await connection.execute("SELECT c::text FROM vault.credentials c")).fetchall()
    assert "secret_key" in rows[0][0]
    assert b"hush".hex() not in rows[0][0]
    assert "hush" not in rows[0][0]


async def test_the_moment_of_a_bundle_moves_whenever_it_is_set(store: CredentialStore) -> None:
    assert await store.set_at("acme", "scaleway") is None
    moments = []
    for _ in range(3):
        await store.set("acme", "scaleway", SECRETS)
        moments.append(await store.set_at("acme", "scaleway"))
    assert len(set(moments)) == 3
    await store.remove("acme", "scaleway")
    assert await store.set_at("acme", "scaleway") is None


async def test_every_bundle_is_listed_and_no_value(store: CredentialStore) -> None:
    await store.set("globex", "aws", SECRETS)
    await store.set("acme", "scaleway", SECRETS)
    await store.set("acme", "aws", SECRETS)
    assert await store.list_bundles() == [("acme", "aws"), ("acme", "scaleway"), ("globex", "aws")]


async def test_bundles_beyond_the_bound_are_unknown_rather_than_forgotten(
    store: CredentialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("infra.credentials.MOST_BUNDLES", 1)
    await store.set("acme", "scaleway", SECRETS)
    assert len(await store.list_bundles()) == 1
    await store.set("globex", "scaleway", SECRETS)
    with pytest.raises(VaultUnavailableError):
        await store.list_bundles()


async def test_handlers_open_them_by_the_providers_code(store: CredentialStore) -> None:
    """Under the word that the API keeps them under; another one would find nothing, and no host could be reached."""
    await store.set(ACME, purpose_of("scaleway"), SECRETS)
    opened = opened_by_provider(store.open, None)
    assert await opened(ACME, "scaleway") == SECRETS
    assert await opened(ACME, "huggingface") == {}


async def test_the_platforms_token_for_models_serves_who_gave_none(store: CredentialStore, tmp_path: Path) -> None:
    file = tmp_path / "hf_token"
    file.write_text("hf_platform\n")
    file.chmod(0o600)
    opened = opened_by_provider(store.open, file)
    await store.set(ACME, purpose_of("huggingface"), {"token": "hf_own"})
    assert await opened(ACME, "huggingface") == {"token": "hf_own"}
    assert await opened(GLOBEX, "huggingface") == {"token": "hf_platform"}
    assert await opened(GLOBEX, "scaleway") == {}


def test_a_token_file_that_others_can_read_is_refused_at_the_start(store: CredentialStore, tmp_path: Path) -> None:
    file = tmp_path / "hf_token"
    file.write_text("hf_platform")
    file.chmod(0o644)
    for unusable in (file, tmp_path / "nowhere"):
        with pytest.raises(SecretFileError):
            opened_by_provider(store.open, unusable)
