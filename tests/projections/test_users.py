"""Users, found as they sign in."""

from typing import Any

from msgspec.structs import replace

from domain.user import (
    AccountPlanChanged,
    PasswordResetRequested,
    PasswordSet,
    PlatformRoleChanged,
    ProfileUpdated,
    UserCreated,
    UserForgotten,
)
from domain.values import Digest
from projections.users import (
    NO_DIGEST,
    USERS,
    count_users,
    find_user,
    find_user_by_digest,
    find_user_by_reset_token,
    find_users,
    list_users,
)
from tests.examples import example
from tests.projections.grammar import Story, all_rows, projected


def _example(kind: type[Any], **changes: Any) -> Any:
    return replace(example(kind), **changes)


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


async def test_a_profile_role_and_plan_are_shown_as_they_changed(postgres_url: str) -> None:
    renamed = _example(ProfileUpdated, username="sealed:new", username_digest=Digest("d9"))
    story = Story().happened("_", "u-1", example(UserCreated), renamed)
    story.happened("_", "u-1", PlatformRoleChanged(role="admin"), AccountPlanChanged(plan="subscriber"))
    async with projected(postgres_url, USERS, story.entries) as connection:
        user = await find_user_by_digest(connection, username_digest=Digest("d9"), email_digest=NO_DIGEST)
        by_old_name = await find_user_by_digest(connection, username_digest=Digest("d1"), email_digest=NO_DIGEST)
    assert user is not None
    assert (user.username, user.role, user.plan) == ("sealed:new", "admin", "subscriber")
    assert by_old_name is None


async def test_a_reset_link_finds_its_user_until_it_is_used(postgres_url: str) -> None:
    link = example(PasswordResetRequested)
    story = Story().happened("_", "u-1", example(UserCreated), link).happened("_", "u-2", example(UserCreated))
    story.happened("_", "u-2", _example(PasswordResetRequested, token_sha256="b" * 64), PasswordSet())
    async with projected(postgres_url, USERS, story.entries) as connection:
        holder = await find_user_by_reset_token(connection, link.token_sha256)
        used = await find_user_by_reset_token(connection, "b" * 64)
        none = await find_user_by_reset_token(connection, "")
    assert holder is not None
    assert (holder.id, holder.reset_expires_at, used, none) == ("u-1", link.expires_at, None, None)


async def test_a_link_to_the_old_address_finds_nobody(postgres_url: str) -> None:
    link, moved = example(PasswordResetRequested), _example(ProfileUpdated, email_digest=Digest("d9"))
    async with projected(
        postgres_url, USERS, Story().happened("_", "u-1", example(UserCreated), link, moved).entries
    ) as connection:
        assert await find_user_by_reset_token(connection, link.token_sha256) is None


async def test_a_forgotten_user_is_found_by_nothing(postgres_url: str) -> None:
    link = example(PasswordResetRequested)
    story = Story().happened("_", "u-1", example(UserCreated), PasswordSet(), link, UserForgotten())
    story.happened("_", "u-2", _example(UserCreated, username_digest="x", email_digest="y"))
    async with projected(postgres_url, USERS, story.entries) as connection:
        assert await find_user(connection, "u-1") is None
        assert await find_users(connection, ["u-1"]) == {}
        assert await find_user_by_reset_token(connection, link.token_sha256) is None
        nothing = Digest("")
        assert await find_user_by_digest(connection, username_digest=nothing, email_digest=nothing) is None
        assert [user.id for user in await list_users(connection, rows=10)] == ["u-2"]
        assert await count_users(connection) == 1
        stored = repr((await all_rows(connection, USERS))["users"])
    assert "u-1" in stored
    assert not [trace for trace in ("'d1'", "'d2'", link.token_sha256) if trace in stored]
    assert stored.count("sealed:username") == 1  # the other user's


async def test_the_newest_users_come_first(postgres_url: str) -> None:
    story = Story()
    for number in range(3):
        story.happened("_", f"u-{number}", example(UserCreated))
    async with projected(postgres_url, USERS, story.entries) as connection:
        assert [user.id for user in await list_users(connection, rows=2)] == ["u-2", "u-1"]
        assert await count_users(connection) == 3
