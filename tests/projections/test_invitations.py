"""Invitations: found by organisation, by token and by address, in the state that they are in."""

from datetime import timedelta

from msgspec.structs import replace

from domain.ids import InvitationId, UserId
from domain.organization import (
    InvitationAccepted,
    InvitationRevoked,
    MemberAdded,
    MemberInvited,
    OrganizationCreated,
    OrganizationDeleted,
)
from domain.values import Digest, Sealed
from projections.invitations import (
    INVITATIONS,
    State,
    find_invitation_by_token,
    list_invitations,
    list_invitations_to,
)
from tests.given import NOON
from tests.projections.grammar import Story, projected

OSCAR = UserId("oscar")
LATER = NOON + timedelta(minutes=1)


def invited(number: int, *, to: str = "carol", lasts: timedelta = timedelta(days=7)) -> MemberInvited:
    return MemberInvited(
        invitation_id=InvitationId(f"invitation-{number}"),
        email=Sealed(f"sealed:{to}"),
        email_digest=Digest(to),
        role="manager",
        token_sha256=f"hash-{number}",
        expires_at=NOON + lasts,
        invited_by=OSCAR,
    )


def _acme(*events: object) -> Story:
    created = (OrganizationCreated(name="Acme", slug="acme"), MemberAdded(user_id=OSCAR, role="owner"))
    return Story().happened("acme", "acme", *created, *events)


async def test_an_invitation_is_listed_by_its_organisation_alone(postgres_url: str) -> None:
    story = _acme(invited(1), invited(2, to="dave"))
    async with projected(postgres_url, INVITATIONS, story.entries) as connection:
        found = await list_invitations(connection, "acme")
        assert await list_invitations(connection, "globex") == []
    assert [(one.id, one.email, one.role, one.invited_by) for one in found] == [
        ("invitation-2", "sealed:dave", "manager", OSCAR),
        ("invitation-1", "sealed:carol", "manager", OSCAR),
    ]


async def test_an_invitation_is_found_by_the_hash_of_its_token(postgres_url: str) -> None:
    async with projected(postgres_url, INVITATIONS, _acme(invited(1), invited(2)).entries) as connection:
        found = await find_invitation_by_token(connection, "hash-2")
        assert await find_invitation_by_token(connection, "hash-3") is None
    assert found is not None
    assert (found.id, found.organization_id) == ("invitation-2", "acme")


async def test_an_invitation_is_pending_until_something_became_of_it(postgres_url: str) -> None:
    story = _acme(
        invited(1),
        invited(2, to="dave"),
        invited(3, to="erin"),
        invited(4, to="frank", lasts=timedelta(seconds=30)),
        InvitationAccepted(invitation_id=InvitationId("invitation-2"), user_id=UserId("dave")),
        InvitationRevoked(invitation_id=InvitationId("invitation-3")),
    )
    states: dict[str, State] = {
        "invitation-1": "pending",
        "invitation-2": "accepted",
        "invitation-3": "revoked",
        "invitation-4": "expired",
    }
    for batches in ([], [5], [7]):
        async with projected(postgres_url, INVITATIONS, story.entries, batches=batches) as connection:
            found = await list_invitations(connection, "acme")
        assert {one.id: one.state(LATER) for one in found} == states


async def test_what_is_pending_ends_with_the_organisation(postgres_url: str) -> None:
    accepted = InvitationAccepted(invitation_id=InvitationId("invitation-2"), user_id=UserId("dave"))
    story = _acme(invited(1), invited(2, to="dave"), accepted)
    story.happened("globex", "globex", OrganizationCreated(name="Globex", slug="globex"), invited(3))
    story.happened("acme", "acme", OrganizationDeleted())
    for batches in ([], [3], [7]):
        async with projected(postgres_url, INVITATIONS, story.entries, batches=batches) as connection:
            found = [*await list_invitations(connection, "acme"), *await list_invitations(connection, "globex")]
        assert [one.state(LATER) for one in found] == ["accepted", "revoked", "pending"]


async def test_all_invitations_to_an_address_are_found_whoever_sent_them(postgres_url: str) -> None:
    story = _acme(invited(1), replace(invited(2), email_digest=Digest("dave")))
    story.happened("globex", "globex", OrganizationCreated(name="Globex", slug="globex"), invited(3))
    async with projected(postgres_url, INVITATIONS, story.entries) as connection:
        found = await list_invitations_to(connection, Digest("carol"))
    assert [(one.organization_id, one.id) for one in found] == [("globex", "invitation-3"), ("acme", "invitation-1")]
