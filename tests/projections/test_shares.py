"""Shares: both sides see the row, each by its own question, and nobody else does."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain.ids import OrganizationId
from domain.share import (
    AccessRequested,
    OfferingShared,
    ShareActivated,
    ShareDeactivated,
    SharePaused,
    ShareRevoked,
    TrialStarted,
    share_id_of,
)
from projections.projection import LogDamagedError
from projections.shares import SHARES, ShareView, find_given, find_taken, list_given, list_taken
from tests.examples import ACME, GLOBEX, OFFERED, example
from tests.given import NOON
from tests.projections.grammar import Story, projected

SHARE = share_id_of(OFFERED, GLOBEX)
STRANGER = OrganizationId("0192aaaa-0000-7000-8000-000000054a4e")
ASKED, SHARED = example(AccessRequested), example(OfferingShared)


async def the_share(postgres_url: str, *events: Any, actor: str = "user:alice") -> ShareView:
    story = Story().happened(ACME, SHARE, *events, actor=actor)
    async with projected(postgres_url, SHARES, story.entries) as connection:
        found = await find_given(connection, ACME, SHARE)
    assert found is not None
    return found


async def test_both_sides_see_it_and_a_third_does_not(postgres_url: str) -> None:
    story = Story().happened(ACME, SHARE, SHARED)
    async with projected(postgres_url, SHARES, story.entries) as connection:
        assert [view.id for view in await list_given(connection, ACME)] == [SHARE]
        assert [view.id for view in await list_taken(connection, GLOBEX)] == [SHARE]
        assert await find_given(connection, ACME, SHARE) == await find_taken(connection, GLOBEX, SHARE)
        for organization, lists in ((ACME, list_taken), (GLOBEX, list_given), (STRANGER, list_given)):
            assert await lists(connection, organization) == []
        assert await list_taken(connection, STRANGER) == []
        assert await find_given(connection, GLOBEX, SHARE) is None
        assert await find_taken(connection, ACME, SHARE) is None
        assert await find_given(connection, STRANGER, SHARE) is await find_taken(connection, STRANGER, SHARE) is None


@pytest.mark.parametrize(
    ("events", "status", "gives_access"),
    [
        ([ASKED], "requested", False),
        ([ASKED, SHARED], "active", True),
        ([SHARED, SharePaused()], "paused", False),
        ([SHARED, ShareRevoked()], "revoked", False),
        ([SHARED, ShareDeactivated(flag="economic")], "active", False),
        ([replace(example(TrialStarted))], "active", True),
    ],
)
async def test_it_shows_how_far_it_has_come(
    postgres_url: str, events: list[object], status: str, gives_access: bool
) -> None:
    view = await the_share(postgres_url, *events)
    assert (view.share.status, view.share.gives_access(NOON)) == (status, gives_access)
    assert (view.offering_id, view.consumer_organization_id) == (OFFERED, GLOBEX)


async def test_newest_change_comes_first(postgres_url: str) -> None:
    other = share_id_of(OFFERED, STRANGER)
    story = Story().happened(ACME, SHARE, SHARED).happened(ACME, other, replace(SHARED, consumer=STRANGER))
    story.happened(ACME, SHARE, SharePaused())
    async with projected(postgres_url, SHARES, story.entries) as connection:
        assert [view.id for view in await list_given(connection, ACME)] == [SHARE, other]


async def test_each_flag_tells_who_set_it_last(postgres_url: str) -> None:
    view = await the_share(postgres_url, replace(SHARED, activated=("technical",)), ShareActivated(flag="economic"))
    assert (view.flags.technical_by, view.flags.economic_by) == ("user:alice", "user:alice")
    assert view.flags.technical_at == NOON


async def test_a_trial_names_nobody_of_the_consumer(postgres_url: str) -> None:
    view = await the_share(postgres_url, example(TrialStarted), actor="user:bob-of-globex")
    assert (view.flags.technical_by, view.flags.technical_at) == ("", NOON)


async def test_a_share_that_was_never_begun_is_damage(postgres_url: str) -> None:
    with pytest.raises(LogDamagedError, match="never begun"):
        await the_share(postgres_url, SharePaused())
