"""API keys as their owners list them."""

from typing import Any

from msgspec.structs import replace

from domain.api_key import ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked
from projections.api_keys import API_KEYS, find_api_key, find_api_key_by_hash, list_api_keys, search_api_keys
from tests.examples import ACME, example
from tests.projections.grammar import Story, projected


def _example(kind: type[Any], **changes: Any) -> Any:
    return replace(example(kind), **changes)


def _key(name: str, **changes: Any) -> Any:
    return _example(ApiKeyIssued, **{"name": name, "key_sha256": f"hash of {name}", **changes})


async def test_keys_are_listed_newest_first_and_stay_after_their_end(postgres_url: str) -> None:
    story = Story().happened("acme", "k-1", _key("one"), ApiKeyRevoked())
    story.happened("acme", "k-2", _key("two"), ApiKeyRenamed(name="zwei"))
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        keys = await list_api_keys(connection, "acme")
        live = await list_api_keys(connection, "acme", revoked=False)
    assert [(key.name, key.revoked_at is None) for key in keys] == [("zwei", True), ("one", False)]
    assert [key.id for key in live] == ["k-2"]


async def test_a_key_is_found_by_its_hash(postgres_url: str) -> None:
    async with projected(postgres_url, API_KEYS, Story().happened("acme", "k-1", _key("one")).entries) as connection:
        found = await find_api_key_by_hash(connection, "hash of one")
        nobody = await find_api_key_by_hash(connection, "hash of two")
    assert found is not None
    assert (found.id, found.organization_id, nobody) == ("k-1", "acme", None)


async def test_a_search_of_keys_pages_within_one_owner(postgres_url: str) -> None:
    story = Story()
    for number, owner in enumerate(("alice", "alice", "bob", "alice"), start=1):
        story.happened("acme", f"k-{number}", _key(f"key {number}", owner=owner))
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        page = await search_api_keys(
            connection, "acme", owner="alice", offset=1, limit=1, sort_by="name", sort_dir="asc"
        )
    assert ([key.name for key in page.rows], page.total_count) == (["key 2"], 3)


async def test_a_neighbour_sees_no_keys(postgres_url: str) -> None:
    story = Story().happened(ACME, "k-1", _key("one"))
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        assert await list_api_keys(connection, "globex") == []
        assert await find_api_key(connection, "globex", "k-1") is None
        assert await find_api_key(connection, ACME, "k-1") is not None
        assert (await search_api_keys(connection, "globex")).total_count == 0


async def test_a_name_with_a_nul_character_stops_nobody(postgres_url: str) -> None:
    """Postgres cannot hold it, and a projection that fails on it would fail for every organisation."""
    async with projected(postgres_url, API_KEYS, Story().happened("acme", "k-1", _key("a\0b")).entries) as connection:
        assert [key.name for key in await list_api_keys(connection, "acme")] == ["a\ufffdb"]
