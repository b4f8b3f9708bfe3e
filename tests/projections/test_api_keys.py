"""API keys as those who may see them list them."""

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from domain.activation import Activation
from domain.api_key import (
    ApiKeyActivated,
    ApiKeyDeactivated,
    ApiKeyIssued,
    ApiKeyRenamed,
    ApiKeyRevoked,
    ApiKeyRotated,
    ApiKeyScopeChanged,
)
from domain.key_scope import KeyScope
from projections.api_keys import (
    API_KEYS,
    ApiKeyView,
    find_api_key,
    find_api_key_by_hash,
    list_api_keys,
    list_made_by,
    list_owned_keys,
    search_api_keys,
)
from projections.flags import FlagChanges
from tests.examples import ACME, ALICE, example
from tests.given import NOON
from tests.projections.grammar import Story, projected

SECOND = timedelta(seconds=1)


def _example(kind: type[Any], **changes: Any) -> Any:
    return replace(example(kind), **changes)


def _key(name: str, **changes: Any) -> Any:
    return _example(ApiKeyIssued, **{"name": name, "key_sha256": f"hash of {name}", **changes})


async def _shown(postgres_url: str, story: Story) -> ApiKeyView:
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        found = await find_api_key(connection, "acme", "k-1")
    assert found is not None
    return found


async def test_keys_are_listed_newest_first_and_stay_after_their_end(postgres_url: str) -> None:
    story = Story().happened("acme", "k-1", _key("one"), ApiKeyRevoked())
    story.happened("acme", "k-2", _key("two"), ApiKeyRenamed(name="zwei"))
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        keys = await list_api_keys(connection, "acme")
        live = await list_api_keys(connection, "acme", revoked=False)
        ended = await list_api_keys(connection, "acme", revoked=True)
    assert [(key.name, key.revoked_at is None) for key in keys] == [("zwei", True), ("one", False)]
    assert ([key.id for key in live], [key.id for key in ended]) == (["k-2"], ["k-1"])


async def test_a_key_tells_whose_it_is_and_who_made_it(postgres_url: str) -> None:
    story = Story().happened("acme", "k-1", _key("one"))
    story.happened("acme", "k-2", _key("two", owner=None), actor="key:k-1")
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        shared, own = await list_api_keys(connection, "acme")
    assert (own.owner, own.created_by, own.made_by_key) == (ALICE, ALICE, None)
    assert (shared.owner, shared.created_by, shared.made_by_key) == (None, ALICE, "k-1")


async def test_a_scope_is_shown_as_it_was_last_changed(postgres_url: str) -> None:
    wide, narrow = KeyScope(role="owner"), KeyScope(models=("acme/chat",), expires_at=NOON, concurrency=2)
    story = Story().happened("acme", "k-1", _key("one", scope=wide))
    assert (await _shown(postgres_url, story)).scope == wide
    story.happened("acme", "k-1", ApiKeyScopeChanged(scope=narrow))
    assert (await _shown(postgres_url, story)).scope == narrow


async def test_each_flag_tells_who_changed_it_last_and_when(postgres_url: str) -> None:
    story = Story().happened("acme", "k-1", _key("one", activated=("technical",)))
    story.happened("acme", "k-1", ApiKeyActivated(flag="economic"), actor="user:mary")
    working = await _shown(postgres_url, story)
    assert working.activation.operational
    assert working.flag_changes == FlagChanges(
        technical_by="user:alice", technical_at=NOON, economic_by="user:mary", economic_at=NOON + SECOND
    )
    story.happened("acme", "k-1", ApiKeyDeactivated(flag="technical"), actor="user:bob")
    stopped = await _shown(postgres_url, story)
    assert stopped.activation == Activation(technical=False, economic=True)
    assert (stopped.flag_changes.technical_by, stopped.flag_changes.technical_at) == ("user:bob", NOON + 2 * SECOND)


async def test_a_flag_that_was_never_set_was_changed_by_nobody(postgres_url: str) -> None:
    idle = await _shown(postgres_url, Story().happened("acme", "k-1", _key("one", activated=())))
    assert idle.activation.missing == ("technical", "economic")
    assert idle.flag_changes == FlagChanges(technical_by="", technical_at=None, economic_by="", economic_at=None)


async def test_a_key_is_found_by_its_hash(postgres_url: str) -> None:
    async with projected(postgres_url, API_KEYS, Story().happened("acme", "k-1", _key("one")).entries) as connection:
        found = await find_api_key_by_hash(connection, "hash of one", now=NOON)
        nobody = await find_api_key_by_hash(connection, "hash of two", now=NOON)
    assert found is not None
    assert (found.id, found.organization_id, nobody) == ("k-1", "acme", None)


async def test_the_secret_before_a_rotation_is_found_while_it_works(postgres_url: str) -> None:
    until = NOON + timedelta(hours=1)
    rotated = _example(ApiKeyRotated, key_sha256="new hash", key_prefix="sk-inv-new", previous_valid_until=until)
    story = Story().happened("acme", "k-1", _key("one"), rotated)
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        by_new = await find_api_key_by_hash(connection, "new hash", now=until)
        by_old = await find_api_key_by_hash(connection, "hash of one", now=until - SECOND)
        too_late = await find_api_key_by_hash(connection, "hash of one", now=until)
    assert by_new is not None
    assert by_new == by_old
    assert (by_new.key_prefix, by_new.previous_valid_until, too_late) == ("sk-inv-new", until, None)


async def test_a_second_rotation_leaves_two_secrets(postgres_url: str) -> None:
    until = NOON + timedelta(hours=1)
    rotations = [_example(ApiKeyRotated, key_sha256=h, previous_valid_until=until) for h in ("second", "third")]
    story = Story().happened("acme", "k-1", _key("one"), *rotations)
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        found = [await find_api_key_by_hash(connection, h, now=NOON) for h in ("hash of one", "second", "third")]
    assert [one is not None for one in found] == [False, True, True]


async def test_a_search_of_keys_pages_within_what_a_member_may_see(postgres_url: str) -> None:
    story = Story()
    for number, owner in enumerate(("alice", None, "bob", "alice"), start=1):
        story.happened("acme", f"k-{number}", _key(f"key {number}", owner=owner))
    story.happened("acme", "k-1", ApiKeyRevoked())
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        page = await search_api_keys(
            connection, "acme", seen_by="alice", revoked=False, offset=1, limit=1, sort_by="name", sort_dir="asc"
        )
        everybodys = await search_api_keys(connection, "acme")
    assert ([key.name for key in page.rows], page.filtered_count, page.total_count) == (["key 4"], 2, 3)
    assert everybodys.total_count == everybodys.filtered_count == 4


async def test_keys_are_sorted_by_their_last_use_and_the_unused_come_last(postgres_url: str) -> None:
    story = Story()
    for number in (1, 2, 3):
        story.happened("acme", f"k-{number}", _key(f"key {number}"))
    uses = {"k-3": NOON, "k-2": NOON + SECOND, "a stranger's": NOON}
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        newest = await search_api_keys(connection, "acme", sort_by="last_used_at", last_uses=uses)
        oldest = await search_api_keys(connection, "acme", sort_by="last_used_at", sort_dir="asc", last_uses=uses)
    assert [key.id for key in newest.rows] == ["k-2", "k-3", "k-1"]
    assert [key.id for key in oldest.rows] == ["k-3", "k-2", "k-1"]
    assert newest.total_count == 3


async def test_what_a_key_made_is_found_down_to_the_last(postgres_url: str) -> None:
    story = Story().happened("acme", "k-1", _key("one")).happened("acme", "other", _key("other"))
    for maker, made in (("k-1", "k-2"), ("k-2", "k-3"), ("k-3", "k-4"), ("other", "k-5")):
        story.happened("acme", made, _key(made), actor=f"key:{maker}")
    story.happened("globex", "k-6", _key("k-6"), actor="key:k-1")
    story.happened("acme", "k-3", ApiKeyRevoked())
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        assert await list_made_by(connection, "acme", "k-1") == ["k-2", "k-4"]
        assert await list_made_by(connection, "acme", "k-4") == []
        assert await list_made_by(connection, "globex", "k-2") == []


async def test_a_persons_living_keys_are_found_in_every_organisation(postgres_url: str) -> None:
    story = Story().happened("acme", "k-1", _key("one")).happened("globex", "k-2", _key("two"))
    story.happened("acme", "k-3", _key("shared", owner=None)).happened("acme", "k-4", _key("ended"), ApiKeyRevoked())
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        assert [(key.organization_id, key.id) for key in await list_owned_keys(connection, ALICE)] == [
            ("acme", "k-1"),
            ("globex", "k-2"),
        ]


async def test_a_neighbour_sees_no_keys(postgres_url: str) -> None:
    story = Story().happened(ACME, "k-1", _key("one", owner=None))
    async with projected(postgres_url, API_KEYS, story.entries) as connection:
        assert await list_api_keys(connection, "globex") == []
        assert await find_api_key(connection, "globex", "k-1") is None
        assert await find_api_key(connection, ACME, "k-1") is not None
        assert (await search_api_keys(connection, "globex", seen_by=ALICE)).total_count == 0


async def test_a_name_with_a_nul_character_stops_nobody(postgres_url: str) -> None:
    """Postgres cannot hold it, and a projection that fails on it would fail for every organisation."""
    async with projected(postgres_url, API_KEYS, Story().happened("acme", "k-1", _key("a\0b")).entries) as connection:
        assert [key.name for key in await list_api_keys(connection, "acme")] == ["a\ufffdb"]
