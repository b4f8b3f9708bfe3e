"""The small read models: models, organisations, users, sessions, API keys."""

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from domain.api_key import ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked
from domain.ids import UserId
from domain.model import ModelDelisted, ModelListed
from domain.organization import MemberAdded, MemberRemoved, OrganizationCreated, Role
from domain.session import SessionOpened, SessionRevoked, WorkspaceSwitched
from domain.user import PasswordSet, UserCreated
from domain.values import Digest
from projections.api_keys import API_KEYS, find_api_key, find_api_key_by_hash, list_api_keys, search_api_keys
from projections.models import MODELS, find_model, find_model_by_code, list_models
from projections.organizations import ORGANIZATIONS, find_organization, find_role, list_members, list_organizations
from projections.sessions import SESSIONS, find_last_session, find_session, list_sessions
from projections.users import USERS, find_user, find_user_by_digest, find_users
from tests.examples import ACME, example
from tests.given import NOON
from tests.projections.grammar import Story, projected

URSULA = UserId("ursula")
MEMBERS: tuple[tuple[UserId, Role], ...] = (
    (URSULA, "user"),
    (UserId("oscar"), "owner"),
    (UserId("maria"), "manager"),
)


def _example(kind: type[Any], **changes: Any) -> Any:
    return replace(example(kind), **changes)


def _key(name: str, **changes: Any) -> Any:
    return _example(ApiKeyIssued, **{"name": name, "key_sha256": f"hash of {name}", **changes})


async def test_the_catalogue_lists_active_models_by_code(postgres_url: str) -> None:
    story = (
        Story()
        .happened("_", "m-1", _example(ModelListed, code="b"))
        .happened("_", "m-2", _example(ModelListed, code="a"))
    )
    story.happened("_", "m-3", _example(ModelListed, code="c"), ModelDelisted())
    async with projected(postgres_url, MODELS, story.entries) as connection:
        assert [model.code for model in await list_models(connection)] == ["a", "b"]
        assert [model.is_active for model in await list_models(connection, active_only=False)] == [True, True, False]


async def test_a_model_keeps_its_first_day_through_corrections(postgres_url: str) -> None:
    story = Story().happened("_", "m-1", _example(ModelListed), _example(ModelListed, context_length=4096))
    async with projected(postgres_url, MODELS, story.entries) as connection:
        model = await find_model(connection, "m-1")
    assert model is not None
    assert (model.context_length, model.created_at, model.updated_at) == (4096, NOON, NOON + timedelta(seconds=1))


async def test_a_delisted_model_is_not_found_by_its_code(postgres_url: str) -> None:
    story = Story().happened("_", "m-1", _example(ModelListed, code="a"), ModelDelisted())
    async with projected(postgres_url, MODELS, story.entries) as connection:
        assert await find_model_by_code(connection, "a") is None
        assert await find_model(connection, "m-1") is not None


def _acme() -> Story:
    story = Story().happened("acme", "acme", OrganizationCreated(name="Acme", slug="acme"))
    return story.happened("acme", "acme", *(MemberAdded(user_id=user, role=role) for user, role in MEMBERS))


async def test_members_are_listed_by_rank(postgres_url: str) -> None:
    async with projected(postgres_url, ORGANIZATIONS, _acme().entries) as connection:
        members = await list_members(connection, "acme")
    assert [(member.user_id, member.role) for member in members] == [
        ("oscar", "owner"),
        ("maria", "manager"),
        ("ursula", "user"),
    ]


async def test_a_member_sees_the_organisation_with_their_own_role(postgres_url: str) -> None:
    async with projected(postgres_url, ORGANIZATIONS, _acme().entries) as connection:
        (seen,) = await list_organizations(connection, "maria")
        assert seen == await find_organization(connection, "acme", "maria")
    assert (seen.id, seen.name, seen.slug, seen.role, seen.member_count) == ("acme", "Acme", "acme", "manager", 3)


async def test_who_left_sees_the_organisation_no_longer(postgres_url: str) -> None:
    story = _acme().happened("acme", "acme", MemberRemoved(user_id=URSULA))
    async with projected(postgres_url, ORGANIZATIONS, story.entries) as connection:
        assert await list_organizations(connection, "ursula") == []
        assert await find_role(connection, "acme", "ursula") is None
        assert await find_role(connection, "acme", "oscar") == "owner"
        assert len(await list_members(connection, "acme")) == 2


async def test_who_comes_back_is_a_member_again(postgres_url: str) -> None:
    story = _acme().happened("acme", "acme", MemberRemoved(user_id=URSULA), MemberAdded(user_id=URSULA, role="admin"))
    async with projected(postgres_url, ORGANIZATIONS, story.entries, batches=[5]) as connection:
        assert await find_role(connection, "acme", "ursula") == "admin"


async def test_a_stranger_sees_no_organisation(postgres_url: str) -> None:
    async with projected(postgres_url, ORGANIZATIONS, _acme().entries) as connection:
        assert await find_organization(connection, "acme", "eve") is None
        assert await list_organizations(connection, "eve") == []


async def test_a_user_is_found_by_either_digest(postgres_url: str) -> None:
    story = Story().happened("_", "u-1", example(UserCreated), PasswordSet())
    none = Digest("none")
    async with projected(postgres_url, USERS, story.entries) as connection:
        by_name = await find_user_by_digest(connection, username_digest=Digest("d1"), email_digest=none)
        by_email = await find_user_by_digest(connection, username_digest=none, email_digest=Digest("d2"))
        nobody = await find_user_by_digest(connection, username_digest=Digest("d2"), email_digest=Digest("d1"))
    assert by_name is not None
    assert by_name == by_email
    assert (by_name.id, by_name.has_password, by_name.username, nobody) == ("u-1", True, "sealed:username", None)


async def test_a_username_comes_before_anothers_email_address(postgres_url: str) -> None:
    story = Story().happened("_", "u-1", _example(UserCreated, username_digest="x", email_digest="shared"))
    story.happened("_", "u-2", _example(UserCreated, username_digest="shared", email_digest="y"))
    async with projected(postgres_url, USERS, story.entries) as connection:
        digest = Digest("shared")
        found = await find_user_by_digest(connection, username_digest=digest, email_digest=digest)
        both = await find_users(connection, ["u-1", "u-2", "u-3"])
    assert found is not None
    assert found.id == "u-2"
    assert set(both) == {"u-1", "u-2"}


async def test_users_come_without_a_password(postgres_url: str) -> None:
    async with projected(postgres_url, USERS, Story().happened("_", "u-1", example(UserCreated)).entries) as connection:
        user = await find_user(connection, "u-1")
    assert user is not None
    assert not user.has_password


async def test_a_session_lives_until_it_is_revoked_or_expires(postgres_url: str) -> None:
    story = (
        Story()
        .happened("_", "s-1", example(SessionOpened))
        .happened("_", "s-2", example(SessionOpened), SessionRevoked())
    )
    async with projected(postgres_url, SESSIONS, story.entries) as connection:
        open_one, revoked = await find_session(connection, "s-1"), await find_session(connection, "s-2")
        listed = await list_sessions(connection, open_one.user_id if open_one else "", now=NOON)
    assert open_one is not None
    assert revoked is not None
    assert (open_one.is_live(NOON), revoked.is_live(NOON)) == (True, False)
    assert not open_one.is_live(open_one.expires_at)
    assert [session.id for session in listed] == ["s-1"]


async def test_the_last_session_tells_where_the_user_left_off(postgres_url: str) -> None:
    story = Story().happened(
        "_", "s-1", _example(SessionOpened, expires_at=NOON), WorkspaceSwitched(organization_id=None)
    )
    story.happened("_", "s-2", example(SessionOpened), SessionRevoked())
    async with projected(postgres_url, SESSIONS, story.entries) as connection:
        last = await find_last_session(connection, story.entries[0].event.user_id)
        first = await find_session(connection, "s-1")
    assert last is not None
    assert last == first
    assert last.organization_id is None


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
