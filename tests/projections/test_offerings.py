"""Offerings: the own ones as they are, others' only as far as they may be found."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain.offering import (
    OfferingActivated,
    OfferingDeactivated,
    OfferingPublished,
    OfferingRevised,
    OfferingWithdrawn,
    Terms,
    offering_id_of,
)
from projections.offerings import (
    OFFERINGS,
    count_offerings_of,
    find_offering,
    find_offerings,
    find_reachable,
    list_offerings,
    list_public,
)
from projections.projection import LogDamagedError
from tests.examples import ACME, GLOBEX, example
from tests.given import NOON
from tests.projections.grammar import Story, projected

CHAT, CODER = offering_id_of(ACME, "chat"), offering_id_of(ACME, "coder")


def published(code: str = "chat", **terms: Any) -> OfferingPublished:
    event = example(OfferingPublished)
    return replace(event, code=code, terms=replace(event.terms, **terms))


async def test_an_organisation_lists_its_own_withdrawn_ones_if_asked(postgres_url: str) -> None:
    story = Story().happened(ACME, CHAT, published()).happened(ACME, CODER, published("coder"), OfferingWithdrawn())
    async with projected(postgres_url, OFFERINGS, story.entries) as connection:
        assert [view.offering.code for view in await list_offerings(connection, ACME)] == ["chat", "coder"]
        assert [view.id for view in await list_offerings(connection, ACME, withdrawn=False)] == [CHAT]
        assert await list_offerings(connection, GLOBEX) == []
        assert await find_offering(connection, GLOBEX, CHAT) is None
        assert await find_offering(connection, ACME, CHAT) is not None


async def test_terms_are_the_newest(postgres_url: str) -> None:
    story = Story().happened(ACME, CHAT, published(), OfferingRevised(terms=Terms(name="New")))
    async with projected(postgres_url, OFFERINGS, story.entries) as connection:
        found = await find_offering(connection, ACME, CHAT)
    assert found is not None
    assert found.offering.terms == Terms(name="New")
    assert (found.created_at, found.updated_at > found.created_at) == (NOON, True)


@pytest.mark.parametrize(
    ("events", "listed", "reachable"),
    [
        ([published()], True, True),
        ([published(visibility="unlisted")], False, True),
        ([published(visibility="private")], False, True),
        ([published(), OfferingRevised(terms=Terms(name="x", visibility="private"))], False, True),
        ([published(), OfferingDeactivated(flag="economic")], False, False),
        ([published(), OfferingDeactivated(flag="economic"), OfferingActivated(flag="economic")], True, True),
        ([published(), OfferingWithdrawn()], False, False),
        ([published(), OfferingWithdrawn(), published()], True, True),
    ],
)
async def test_others_find_what_works_and_is_public(
    postgres_url: str, events: list[object], listed: bool, reachable: bool
) -> None:
    story = Story().happened(ACME, CHAT, *events)
    async with projected(postgres_url, OFFERINGS, story.entries) as connection:
        assert [view.id for view in await list_public(connection, GLOBEX)] == ([CHAT] if listed else [])
        assert (await find_reachable(connection, CHAT) is not None) == reachable
        assert await list_public(connection, ACME) == []
        assert set(await find_offerings(connection, [CHAT, CODER])) == {CHAT}


async def test_each_flag_tells_who_set_it_last_and_when(postgres_url: str) -> None:
    half = replace(published(), activated=("technical",))
    story = Story().happened(ACME, CHAT, half, actor="user:alice")
    story.later(60).happened(ACME, CHAT, OfferingActivated(flag="economic"), actor="user:bob")
    story.later(60).happened(ACME, CHAT, OfferingRevised(terms=Terms(name="x")), actor="user:carl")
    async with projected(postgres_url, OFFERINGS, story.entries) as connection:
        found = await find_offering(connection, ACME, CHAT)
    assert found is not None
    assert (found.flags.technical_by, found.flags.economic_by) == ("user:alice", "user:bob")
    assert found.flags.technical_at == NOON
    assert found.flags.economic_at is not None
    assert found.flags.economic_at > NOON


async def test_a_flag_that_was_never_set_names_nobody(postgres_url: str) -> None:
    story = Story().happened(ACME, CHAT, replace(published(), activated=("technical",)))
    async with projected(postgres_url, OFFERINGS, story.entries) as connection:
        found = await find_offering(connection, ACME, CHAT)
    assert found is not None
    assert (found.flags.economic_by, found.flags.economic_at) == ("", None)


async def test_live_offerings_of_a_model_are_counted(postgres_url: str) -> None:
    story = Story().happened(ACME, CHAT, published()).happened(ACME, CODER, published("coder"), OfferingWithdrawn())
    async with projected(postgres_url, OFFERINGS, story.entries) as connection:
        assert await count_offerings_of(connection, published().model_id) == 1
        assert await count_offerings_of(connection, "another") == 0


async def test_an_offering_that_was_never_published_is_damage(postgres_url: str) -> None:
    story = Story().happened(ACME, CHAT, OfferingWithdrawn())
    with pytest.raises(LogDamagedError, match="never begun"):
        async with projected(postgres_url, OFFERINGS, story.entries):
            pass
