"""The read model `settings`: overrides and the names of credentials, each organisation's its own."""

from domain.ids import PLATFORM
from domain.provider_credentials import ProviderCredentialsRemoved, ProviderCredentialsSet
from domain.setting import SettingSet, SettingUnset
from projections.settings import SETTINGS, find_global_settings, find_settings, list_credentials
from tests.given import NOON
from tests.projections.grammar import Story, projected

PORT = "WORKER_HEALTH_PORT"
STALE = "OPENAI_WORKER_STALE_SECONDS"


async def test_the_newest_override_counts_until_it_is_taken_away(postgres_url: str) -> None:
    story = Story().happened("acme", "s-1", SettingSet(key=PORT, value=1, provider="local"))
    story.happened("acme", "s-1", SettingSet(key=PORT, value=2, provider="local"))
    story.happened("acme", "s-1", SettingSet(key="WORKER_EXPOSE_PORTS", value=False, provider="local"))
    async with projected(postgres_url, SETTINGS, story.entries) as connection:
        assert await find_settings(connection, "acme", "local") == {PORT: 2, "WORKER_EXPOSE_PORTS": False}
    story.happened("acme", "s-1", SettingUnset(key=PORT, provider="local"))
    async with projected(postgres_url, SETTINGS, story.entries) as connection:
        assert await find_settings(connection, "acme", "local") == {"WORKER_EXPOSE_PORTS": False}


async def test_a_neighbour_sees_neither_settings_nor_credentials(postgres_url: str) -> None:
    story = Story().happened("acme", "s-1", SettingSet(key=PORT, value=1, provider="local"))
    story.happened("acme", "c-1", ProviderCredentialsSet(provider="scaleway", names=("secret_key",)))
    async with projected(postgres_url, SETTINGS, story.entries) as connection:
        assert await find_settings(connection, "globex", "local") == {}
        assert await list_credentials(connection, "globex") == []


async def test_the_platforms_settings_stand_apart(postgres_url: str) -> None:
    story = Story().happened(PLATFORM, "s-0", SettingSet(key=STALE, value=60))
    async with projected(postgres_url, SETTINGS, story.entries) as connection:
        assert await find_global_settings(connection) == {STALE: 60}


async def test_credentials_show_names_who_and_when(postgres_url: str) -> None:
    given = ProviderCredentialsSet(provider="scaleway", names=("secret_key", "project_id"))
    story = Story().happened("acme", "c-1", given, actor="user:bob")
    async with projected(postgres_url, SETTINGS, story.entries) as connection:
        (shown,) = await list_credentials(connection, "acme")
    assert (shown.names, shown.set_by, shown.set_at) == (("project_id", "secret_key"), "user:bob", NOON)
    story.happened("acme", "c-1", ProviderCredentialsRemoved(provider="scaleway"))
    async with projected(postgres_url, SETTINGS, story.entries) as connection:
        assert await list_credentials(connection, "acme") == []
