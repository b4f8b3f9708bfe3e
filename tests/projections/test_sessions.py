"""Sessions, and when they end."""

from typing import Any

from msgspec.structs import replace

from domain.session import SessionOpened, SessionRevoked, WorkspaceSwitched
from projections.sessions import SESSIONS, find_last_session, find_session, list_sessions
from tests.examples import example
from tests.given import NOON
from tests.projections.grammar import Story, projected


def _example(kind: type[Any], **changes: Any) -> Any:
    return replace(example(kind), **changes)


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


async def test_a_session_tells_its_origin_as_ciphertext(postgres_url: str) -> None:
    async with projected(
        postgres_url, SESSIONS, Story().happened("_", "s-1", example(SessionOpened)).entries
    ) as connection:
        session = await find_session(connection, "s-1")
    assert session is not None
    assert (session.ip, session.user_agent) == ("sealed:ip", "sealed:user_agent")
