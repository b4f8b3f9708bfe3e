"""SPEC 6.4, cell by cell: the table is written out here by hand, not derived from the code that it holds to account."""

from collections.abc import Mapping
from datetime import timedelta
from itertools import product

from domain.ids import InvitationId, UserId
from domain.organization import (
    InvitationRevoked,
    MemberAdded,
    MemberInvited,
    MemberRemoved,
    MemberRoleChanged,
    OrganizationCreated,
)
from domain.organization_commands import ChangeMemberRole, DismissMember, InviteMember, RemoveMember, RevokeInvitation
from domain.roles import RANKS, Role, higher_role
from domain.values import Digest, Sealed
from tests.given import NOON, Outcome, given

FOUNDER = UserId("founder")
BY = UserId("by")
OTHER = UserId("other")
STRANGER = UserId("stranger")
INVITATION = InvitationId("invitation")

GIVES: Mapping[Role, str] = {"owner": "owner admin manager user", "admin": "admin user", "manager": "manager user"}
INVITES: Mapping[Role, str] = {"owner": "owner admin manager user", "admin": "user", "manager": "manager user"}


def gives(by: Role, *roles: Role) -> bool:
    return all(role in GIVES.get(by, "").split() for role in roles)


def team(by: Role, other: Role) -> list[object]:
    """The founder is an owner, so that nobody else is the last one."""
    members: tuple[tuple[UserId, Role], ...] = ((FOUNDER, "owner"), (BY, by), (OTHER, other))
    created = OrganizationCreated(name="Acme", slug="acme")
    return [created, *(MemberAdded(user_id=user, role=role) for user, role in members)]


def expect(outcome: Outcome, event: object, *, allowed: bool, code: str) -> None:
    if allowed:
        outcome.then(event)
    else:
        outcome.then_rejected(code)


def test_a_role_is_changed_only_by_who_may_give_both_the_old_and_the_new() -> None:
    for by, before, after in product(RANKS, RANKS, RANKS):
        outcome = given(*team(by, before)).when(ChangeMemberRole(by=BY, user_id=OTHER, role=after))
        if before == after:
            outcome.then_nothing()
            continue
        changed = MemberRoleChanged(user_id=OTHER, role=after)
        expect(outcome, changed, allowed=gives(by, before, after), code="role_change_not_allowed")


def test_the_platform_may_change_every_role() -> None:
    for before, after in product(RANKS, RANKS):
        outcome = given(*team("user", before)).when(ChangeMemberRole(by=None, user_id=OTHER, role=after))
        outcome.then(*([MemberRoleChanged(user_id=OTHER, role=after)] if before != after else []))


def test_nobody_raises_himself() -> None:
    for by, after in product(RANKS, RANKS):
        outcome = given(*team(by, "user")).when(ChangeMemberRole(by=BY, user_id=BY, role=after))
        if outcome.events:
            assert higher_role(by, after) == by


def test_a_member_is_removed_only_by_who_may_give_their_role() -> None:
    for by, other in product(RANKS, RANKS):
        outcome = given(*team(by, other)).when(DismissMember(by=BY, user_id=OTHER))
        expect(outcome, MemberRemoved(user_id=OTHER), allowed=gives(by, other), code="member_remove_not_allowed")


def test_everyone_may_go() -> None:
    for by in RANKS:
        given(*team(by, "user")).when(DismissMember(by=BY, user_id=BY)).then(MemberRemoved(user_id=BY))
        given(*team(by, "user")).when(RemoveMember(user_id=BY)).then(MemberRemoved(user_id=BY))


def test_who_is_no_member_is_gone_already() -> None:
    given(*team("user", "user")).when(DismissMember(by=BY, user_id=STRANGER)).then_nothing()


def test_who_is_no_member_has_no_role_to_change() -> None:
    wanted = ChangeMemberRole(by=FOUNDER, user_id=STRANGER, role="user")
    given(*team("user", "user")).when(wanted).then_rejected("member_not_found")


def test_who_was_removed_meanwhile_changes_nothing() -> None:
    given(*team("user", "admin")).when(DismissMember(by=STRANGER, user_id=OTHER)).then_rejected(
        "member_remove_not_allowed"
    )
    change = ChangeMemberRole(by=STRANGER, user_id=OTHER, role="user")
    given(*team("user", "admin")).when(change).then_rejected("role_change_not_allowed")


def test_the_last_owner_stays_one() -> None:
    alone = (OrganizationCreated(name="Acme", slug="acme"), MemberAdded(user_id=FOUNDER, role="owner"))
    for by in (FOUNDER, None):
        demotion = ChangeMemberRole(by=by, user_id=FOUNDER, role="admin")
        given(*alone).when(demotion).then_rejected("last_owner_cannot_be_changed")
    given(*alone).when(DismissMember(by=FOUNDER, user_id=FOUNDER)).then_rejected("last_owner_cannot_be_removed")


def invite(role: Role, by: UserId = BY) -> InviteMember:
    return InviteMember(
        by=by,
        invitation_id=INVITATION,
        email=Sealed("sealed"),
        email_digest=Digest("digest"),
        role=role,
        token_sha256="d" * 64,
        expires_at=NOON + timedelta(days=1),
    )


def invited(role: Role) -> MemberInvited:
    return MemberInvited(
        invitation_id=INVITATION,
        email=Sealed("sealed"),
        email_digest=Digest("digest"),
        role=role,
        token_sha256="d" * 64,
        expires_at=NOON + timedelta(days=1),
        invited_by=BY,
    )


def refusal_to_invite(by: Role, role: Role) -> str:
    if by != "user" and role in {"owner", "admin"}:
        return "cannot_invite_owner_or_admin_role"
    return "insufficient_permissions_to_invite"


def test_only_owners_invite_owners_and_admins_and_users_invite_nobody() -> None:
    for by, role in product(RANKS, RANKS):
        outcome = given(*team(by, "user")).when(invite(role))
        allowed = role in INVITES.get(by, "").split()
        expect(outcome, invited(role), allowed=allowed, code=refusal_to_invite(by, role))


def test_an_invitation_is_taken_back_only_by_who_might_have_given_it() -> None:
    for by, role in product(RANKS, RANKS):
        outcome = given(*team(by, "user"), invited(role)).when(RevokeInvitation(by=BY, invitation_id=INVITATION))
        allowed = role in INVITES.get(by, "").split()
        revoked = InvitationRevoked(invitation_id=INVITATION)
        expect(outcome, revoked, allowed=allowed, code=refusal_to_invite(by, role))


def test_a_stranger_invites_nobody() -> None:
    outcome = given(*team("user", "user")).when(invite("user", by=STRANGER))
    outcome.then_rejected("insufficient_permissions_to_invite")
