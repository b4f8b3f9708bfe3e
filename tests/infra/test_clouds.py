"""Each organisation reaches its own account, with the credentials that it has now."""

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from domain.ids import PLATFORM, OrganizationId
from handlers.cloud_ports import Account, Cloud, CloudTraits, CloudUnavailableError, ServerRequest
from infra.clouds import AccountClouds, bootstrap_of, factories_of
from infra.credentials import CredentialStore
from infra.doors import utc_now
from infra.environment import read_environment
from infra.master_key import MasterKey
from infra.providers.bootstrap.cloud_init import worker_environment_of
from infra.vault_tables import VaultUnavailableError, create_vault, vault_pool
from infra.wrapping import KeyRing

ACME, GLOBEX = OrganizationId("acme"), OrganizationId("globex")
SCALEWAY = {"project_id": "p-1", "secret_key": "hush"}


class Adapter:
    """Knows with which credentials it was made."""

    traits = CloudTraits()
    volumes = None
    ports = None
    offers = None

    def __init__(self, organization: OrganizationId, credentials: Mapping[str, str]) -> None:
        self.made_with = (organization, dict(credentials))

    async def list_servers(self) -> object:
        return [self.made_with]


def made(organization: OrganizationId, credentials: Mapping[str, str]) -> Cloud:
    return Adapter(organization, credentials)  # type: ignore[return-value] # only list_servers is called


async def no_hosts(_organization: str) -> Sequence[Any]:
    return []


LOCAL: Cloud = SimpleNamespace()
"""Only its identity counts."""


@pytest.fixture
async def vault(postgres_url: str) -> AsyncIterator[CredentialStore]:
    master_key = MasterKey(os.urandom(32))
    async with vault_pool(postgres_url) as pool:
        await create_vault(pool, master_key)
        yield CredentialStore(pool, KeyRing(master_key))


@pytest.fixture
def clouds(vault: CredentialStore) -> AccountClouds:
    return AccountClouds({"local": LOCAL}, vault, {"scaleway": made, "aws": made})


async def credentials_of(clouds: AccountClouds, organization: OrganizationId) -> object:
    cloud = await clouds.of(organization, "scaleway")
    return (await cloud.list_servers())[0] if cloud is not None else None


async def test_everybody_may_use_the_platforms_own_provider(clouds: AccountClouds) -> None:
    assert await clouds.of(ACME, "local") is LOCAL
    assert await clouds.of(GLOBEX, "local") is LOCAL


async def test_without_credentials_there_is_no_cloud(clouds: AccountClouds, vault: CredentialStore) -> None:
    assert await clouds.of(ACME, "scaleway") is None
    await vault.set(ACME, "provider/scaleway", {"project_id": "p-1"})
    assert await clouds.of(ACME, "scaleway") is None, "half of them are none"
    assert await clouds.of(ACME, "ovh") is None


async def test_each_organisation_reaches_its_own_account(clouds: AccountClouds, vault: CredentialStore) -> None:
    await vault.set(ACME, "provider/scaleway", SCALEWAY)
    assert await credentials_of(clouds, ACME) == (ACME, SCALEWAY)
    assert await credentials_of(clouds, GLOBEX) is None


async def test_an_adapter_is_kept_while_its_credentials_are_the_same(
    clouds: AccountClouds, vault: CredentialStore
) -> None:
    await vault.set(ACME, "provider/scaleway", SCALEWAY)
    assert await clouds.of(ACME, "scaleway") is await clouds.of(ACME, "scaleway")
    assert await clouds.of(ACME, "scaleway") is not await clouds.of(ACME, "aws")


async def test_replaced_credentials_count_at_once(clouds: AccountClouds, vault: CredentialStore) -> None:
    await vault.set(ACME, "provider/scaleway", SCALEWAY)
    first = await clouds.of(ACME, "scaleway")
    await vault.set(ACME, "provider/scaleway", SCALEWAY | {"secret_key": "another"})
    assert await credentials_of(clouds, ACME) == (ACME, SCALEWAY | {"secret_key": "another"})
    assert await clouds.of(ACME, "scaleway") is not first


async def test_removed_credentials_count_at_once(clouds: AccountClouds, vault: CredentialStore) -> None:
    await vault.set(ACME, "provider/scaleway", SCALEWAY)
    assert await clouds.of(ACME, "scaleway") is not None
    await vault.remove(ACME, "provider/scaleway")
    assert await clouds.of(ACME, "scaleway") is None
    await vault.set(ACME, "provider/scaleway", SCALEWAY | {"project_id": "p-2"})
    assert await credentials_of(clouds, ACME) == (ACME, SCALEWAY | {"project_id": "p-2"})


async def test_the_accounts_are_those_that_have_credentials(clouds: AccountClouds, vault: CredentialStore) -> None:
    await vault.set(GLOBEX, "provider/aws", {"access_key_id": "a"})
    await vault.set(ACME, "provider/scaleway", SCALEWAY)
    await vault.set(ACME, "smtp", {"password": "p"})
    assert list(await clouds.accounts()) == [
        Account(PLATFORM, "local"),
        Account(ACME, "scaleway"),
        Account(GLOBEX, "aws"),
    ]


async def test_every_account_stands_behind_a_circuit_of_its_own(vault: CredentialStore) -> None:
    class Silent(Adapter):
        async def list_servers(self) -> object:
            if self.made_with[0] == ACME:
                raise CloudUnavailableError("503", "rate_limited", 60)
            return []

    silent = AccountClouds({}, vault, {"scaleway": Silent})  # type: ignore[dict-item] # as above
    for organization in (ACME, GLOBEX):
        await vault.set(organization, "provider/scaleway", SCALEWAY)
    acme, globex = await silent.of(ACME, "scaleway"), await silent.of(GLOBEX, "scaleway")
    assert acme is not None
    assert globex is not None
    for words in ("503", "not asked"):
        with pytest.raises(CloudUnavailableError, match=words):
            await acme.list_servers()
    assert await globex.list_servers() == []


async def test_when_the_vault_is_away_nobody_knows(postgres_url: str) -> None:
    pool = vault_pool(postgres_url)
    clouds = AccountClouds({}, CredentialStore(pool, KeyRing(MasterKey(os.urandom(32)))), {"scaleway": made})
    with pytest.raises(VaultUnavailableError):
        await clouds.of(ACME, "scaleway")
    with pytest.raises(VaultUnavailableError):
        await clouds.accounts()


def test_the_settings_say_where_the_clouds_are(tmp_path: Path) -> None:
    environment = read_environment(
        {"INVENTIV_DATA_DIR": str(tmp_path), "INVENTIV_SCALEWAY_URL": "http://127.0.0.1:8990"}
    )
    assert (environment.scaleway_url, environment.aws_endpoint_url) == ("http://127.0.0.1:8990", "")
    assert set(factories_of(environment, no_hosts, utc_now)) == {"scaleway", "aws", "bare_metal"}


def test_a_new_servers_user_data_holds_its_environment_and_stays_the_same(tmp_path: Path) -> None:
    environment = read_environment({"INVENTIV_DATA_DIR": str(tmp_path), "INVENTIV_API_URL": "https://api.example"})
    request = ServerRequest(
        name="a",
        tags={},
        zone="fr-par-2",
        instance_type="L4-1-24G",
        agent_environment={"CONTROL_PLANE_URL": "https://api.example", "INSTANCE_ID": "1", "WORKER_AUTH_TOKEN": "wb_x"},
    )
    text = bootstrap_of(environment)(request)
    assert text == bootstrap_of(environment)(request)
    assert worker_environment_of(text)["INSTANCE_ID"] == "1"
