"""Users, found as they sign in."""

from typing import Any

from msgspec.structs import replace

from domain.user import PasswordSet, UserCreated
from domain.values import Digest
from projections.users import USERS, find_user, find_user_by_digest, find_users
from tests.examples import example
from tests.projections.grammar import Story, projected


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
