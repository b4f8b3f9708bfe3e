from datetime import timedelta

import pytest
from msgspec.structs import replace

from domain.decider import Claim
from domain.ids import InvitationId, UserId
from domain.limits import OrganizationLimits
from domain.organization import (
    MAX_PENDING_INVITATIONS,
    ORGANIZATION,
    InvitationAccepted,
    InvitationRevoked,
    MemberAdded,
    MemberInvited,
    MemberRemoved,
    MemberRoleChanged,
    OrganizationCreated,
    OrganizationDeleted,
    OrganizationLimitsChanged,
    OrganizationPlanChanged,
    OrganizationRenamed,
    SidebarColorChosen,
    slug_digest,
)
from domain.organization_commands import (
    AcceptInvitation,
    AddMember,
    ChangeOrganizationLimits,
    ChangeOrganizationPlan,
    ChooseSidebarColor,
    CreateOrganization,
    DeleteOrganization,
    InviteMember,
    RemoveMember,
    RenameOrganization,
    RevokeInvitation,
)
from domain.values import Digest, Sealed
from tests.examples import ALICE, BOB, COMMAND_EXAMPLES, INVITATION
from tests.given import NOON, given, state_after

ACME_CREATED = (OrganizationCreated(name="Acme", slug="acme"), MemberAdded(user_id=ALICE, role="owner"))
CREATE = CreateOrganization(name="Acme", owner=ALICE, fallback_slug="org-0192aaaa")


def test_its_creator_becomes_its_owner() -> None:
    given().when(CREATE).then(*ACME_CREATED)


def test_creating_it_twice_creates_it_once() -> None:
    given(*ACME_CREATED).when(CREATE).then_nothing()


def test_it_needs_a_name() -> None:
    given().when(replace(CREATE, name="  ")).then_rejected("name_required")
    given().when(replace(CREATE, name="x" * 101)).then_rejected("name_too_long")


def test_its_slug_is_made_of_its_name() -> None:
    outcome = given().when(replace(CREATE, name="Ça & là: 42 Ltd."))
    assert outcome.events[0] == OrganizationCreated(name="Ça & là: 42 Ltd.", slug="a-l-42-ltd")


def test_a_name_without_letters_gets_the_fallback_slug() -> None:
    outcome = given().when(replace(CREATE, name="東京"))
    assert outcome.events[0] == OrganizationCreated(name="東京", slug="org-0192aaaa")


def test_its_slug_is_claimed_for_it_alone() -> None:
    claims = ORGANIZATION.reservations(ORGANIZATION.initial, ACME_CREATED[0])
    assert claims == [Claim("organization_slug", slug_digest("acme"), "organization_slug_already_exists")]


def test_a_member_is_added_once() -> None:
    given(*ACME_CREATED).when(AddMember(user_id=BOB, role="user")).then(MemberAdded(user_id=BOB, role="user"))
    given(*ACME_CREATED).when(AddMember(user_id=ALICE, role="owner")).then_nothing()
    given(*ACME_CREATED).when(AddMember(user_id=ALICE, role="user")).then_rejected("user_already_member")


def test_the_last_owner_stays() -> None:
    given(*ACME_CREATED).when(RemoveMember(user_id=ALICE)).then_rejected("last_owner_cannot_be_removed")


def test_one_of_two_owners_may_go() -> None:
    two = (*ACME_CREATED, MemberAdded(user_id=BOB, role="owner"))
    given(*two).when(RemoveMember(user_id=ALICE)).then(MemberRemoved(user_id=ALICE))


def test_removing_a_stranger_changes_nothing() -> None:
    given(*ACME_CREATED).when(RemoveMember(user_id=BOB)).then_nothing()


def test_nothing_happens_in_an_organization_that_does_not_exist() -> None:
    given().when(AddMember(user_id=BOB, role="user")).then_rejected("organization_not_found")


def test_a_new_name_or_slug_leaves_the_other_as_it_is() -> None:
    renamed = OrganizationRenamed(name="Acme Two", slug="acme")
    given(*ACME_CREATED).when(RenameOrganization(name=" Acme Two ")).then(renamed)
    given(*ACME_CREATED).when(RenameOrganization(slug="Acme 2")).then(OrganizationRenamed(name="Acme", slug="acme-2"))
    given(*ACME_CREATED, renamed).when(RenameOrganization(name="Acme Two", slug="acme")).then_nothing()


def test_a_new_name_or_slug_must_be_one() -> None:
    given(*ACME_CREATED).when(RenameOrganization(name="  ")).then_rejected("name_required")
    given(*ACME_CREATED).when(RenameOrganization(name="x" * 101)).then_rejected("name_too_long")
    given(*ACME_CREATED).when(RenameOrganization(slug="東京")).then_rejected("invalid_slug")


def test_a_new_slug_is_claimed_and_the_old_one_is_never_released() -> None:
    state = state_after(ORGANIZATION, ACME_CREATED)
    claims = ORGANIZATION.reservations(state, OrganizationRenamed(name="Acme", slug="other"))
    assert claims == [Claim("organization_slug", slug_digest("other"), "organization_slug_already_exists")]
    assert ORGANIZATION.reservations(state, OrganizationDeleted()) == []


def test_its_colour_is_six_hexadecimal_digits() -> None:
    given(*ACME_CREATED).when(ChooseSidebarColor(color="#2F6f4f")).then(SidebarColorChosen(color="#2f6f4f"))
    chosen = SidebarColorChosen(color="#2f6f4f")
    given(*ACME_CREATED, chosen).when(ChooseSidebarColor(color="#2f6f4f")).then_nothing()
    for wrong in ("", "green", "#fff", "#2f6f4f;x", "#2f6f4g", "#2f6f4f\n"):
        given(*ACME_CREATED).when(ChooseSidebarColor(color=wrong)).then_rejected("invalid_sidebar_color")


def test_its_plan_is_changed_once() -> None:
    subscribe = ChangeOrganizationPlan(plan="subscriber")
    given(*ACME_CREATED).when(subscribe).then(OrganizationPlanChanged(plan="subscriber"))
    given(*ACME_CREATED, OrganizationPlanChanged(plan="subscriber")).when(subscribe).then_nothing()
    given(*ACME_CREATED).when(ChangeOrganizationPlan(plan="free")).then_nothing()


def test_its_limits_are_changed_one_by_one() -> None:
    some = OrganizationLimits(requests_per_minute=600, spend_limit_eur_micros_per_month=1_000_000)
    begin = ChangeOrganizationLimits(requests_per_minute=600, spend_limit_eur_micros_per_month=1_000_000)
    given(*ACME_CREATED).when(begin).then(OrganizationLimitsChanged(limits=some))
    limited = (*ACME_CREATED, OrganizationLimitsChanged(limits=some))
    given(*limited).when(begin).then_nothing()
    given(*limited).when(ChangeOrganizationLimits()).then_nothing()
    given(*limited).when(ChangeOrganizationLimits(concurrency=5)).then(
        OrganizationLimitsChanged(limits=replace(some, concurrency=5))
    )
    lifted = ChangeOrganizationLimits(requests_per_minute=None, max_completion_tokens=None)
    given(*limited).when(lifted).then(OrganizationLimitsChanged(limits=replace(some, requests_per_minute=None)))


def test_a_limit_is_a_whole_number_above_nothing() -> None:
    for wrong in (0, -1, 2**53):
        for name in OrganizationLimits.__struct_fields__:
            given(*ACME_CREATED).when(ChangeOrganizationLimits(**{name: wrong})).then_rejected("invalid_limit")


def test_what_was_never_there_has_no_limits() -> None:
    given().when(ChangeOrganizationLimits(concurrency=5)).then_rejected("organization_not_found")


def test_it_is_not_deleted_while_something_of_it_runs() -> None:
    given(*ACME_CREATED).when(DeleteOrganization(live_instances=1)).then_rejected("organization_has_live_instances")
    standing = DeleteOrganization(live_instances=0, standing_deployments=1)
    given(*ACME_CREATED).when(standing).then_rejected("organization_has_live_instances")
    given(*ACME_CREATED).when(DeleteOrganization(live_instances=0)).then(OrganizationDeleted())


def test_every_membership_and_invitation_ends_with_it() -> None:
    state = state_after(ORGANIZATION, (*ACME_CREATED, INVITED, OrganizationDeleted()))
    assert (state.exists, state.members, state.invitations) == (False, {}, {})


def test_what_is_deleted_stays_deleted() -> None:
    gone = (*ACME_CREATED, INVITED, OrganizationDeleted())
    given(*gone).when(DeleteOrganization(live_instances=0)).then_nothing()
    given(*gone).when(ACCEPT).then_rejected("invitation_not_found")
    others = [c for c in COMMAND_EXAMPLES if type(c).__module__ == CreateOrganization.__module__]
    assert len(others) >= 12
    for command in others:
        if not isinstance(command, DeleteOrganization | AcceptInvitation):
            given(*gone).when(command).then_rejected("organization_not_found")


CAROL = UserId("0192aaaa-0000-7000-8000-0000000ca401")
INVITE = InviteMember(
    by=ALICE,
    invitation_id=INVITATION,
    email=Sealed("sealed:email"),
    email_digest=Digest("carol"),
    role="manager",
    token_sha256="d" * 64,
    expires_at=NOON + timedelta(days=7),
)
INVITED = MemberInvited(
    invitation_id=INVITATION,
    email=Sealed("sealed:email"),
    email_digest=Digest("carol"),
    role="manager",
    token_sha256="d" * 64,
    expires_at=NOON + timedelta(days=7),
    invited_by=ALICE,
)
ACCEPT = AcceptInvitation(invitation_id=INVITATION, user_id=CAROL, email_digest=Digest("carol"))
ACCEPTED = InvitationAccepted(invitation_id=INVITATION, user_id=CAROL)
SECOND = InvitationId("0192aaaa-0000-7000-8000-000000001072")
WEEK_S = 7 * 86_400


def test_an_address_is_invited_once() -> None:
    given(*ACME_CREATED).when(INVITE).then(INVITED)
    given(*ACME_CREATED, INVITED).when(INVITE).then_nothing()
    again = replace(INVITE, invitation_id=SECOND)
    given(*ACME_CREATED, INVITED).when(again).then_rejected("invitation_already_exists")


def test_an_expired_invitation_is_replaced() -> None:
    again = replace(INVITE, invitation_id=SECOND, expires_at=NOON + timedelta(days=14))
    outcome = given(*ACME_CREATED, INVITED).later(WEEK_S).when(again)
    outcome.then(
        InvitationRevoked(invitation_id=INVITATION),
        replace(INVITED, invitation_id=SECOND, expires_at=NOON + timedelta(days=14)),
    )


def test_a_member_is_not_invited() -> None:
    given(*ACME_CREATED).when(replace(INVITE, member_id=ALICE)).then_rejected("user_already_member")
    given(*ACME_CREATED).when(replace(INVITE, member_id=CAROL)).then(INVITED)


def test_only_so_many_invitations_wait_at_a_time() -> None:
    waiting = [
        replace(INVITED, invitation_id=InvitationId(f"i-{n}"), email_digest=Digest(f"d-{n}"))
        for n in range(MAX_PENDING_INVITATIONS)
    ]
    given(*ACME_CREATED, *waiting[1:]).when(INVITE).then(INVITED)
    given(*ACME_CREATED, *waiting).when(INVITE).then_rejected("too_many_invitations")


def test_who_accepts_becomes_a_member() -> None:
    given(*ACME_CREATED, INVITED).when(ACCEPT).then(ACCEPTED, MemberAdded(user_id=CAROL, role="manager"))


def test_an_invitation_is_accepted_once() -> None:
    history = (*ACME_CREATED, INVITED, ACCEPTED, MemberAdded(user_id=CAROL, role="manager"))
    given(*history).when(ACCEPT).then_rejected("invitation_already_accepted")
    gone = (*history, MemberRemoved(user_id=CAROL))
    given(*gone).when(ACCEPT).then_rejected("invitation_already_accepted")


def test_an_invitation_ends_at_its_hour() -> None:
    given(*ACME_CREATED, INVITED).later(WEEK_S).when(ACCEPT).then_rejected("invitation_expired")
    given(*ACME_CREATED, INVITED).later(WEEK_S - 1).when(ACCEPT).then(
        ACCEPTED, MemberAdded(user_id=CAROL, role="manager")
    )


def test_an_invitation_is_for_its_address_alone() -> None:
    stolen = replace(ACCEPT, email_digest=Digest("eve"))
    given(*ACME_CREATED, INVITED).when(stolen).then_rejected("email_mismatch")


def test_an_invitation_that_was_revoked_or_never_was_is_not_found() -> None:
    given(*ACME_CREATED).when(ACCEPT).then_rejected("invitation_not_found")
    revoked = InvitationRevoked(invitation_id=INVITATION)
    given(*ACME_CREATED, INVITED, revoked).when(ACCEPT).then_rejected("invitation_not_found")


def test_who_came_in_another_way_meanwhile_keeps_the_higher_role() -> None:
    came = (*ACME_CREATED, INVITED)
    given(*came, MemberAdded(user_id=CAROL, role="user")).when(ACCEPT).then(
        ACCEPTED, MemberRoleChanged(user_id=CAROL, role="manager")
    )
    given(*came, MemberAdded(user_id=CAROL, role="owner")).when(ACCEPT).then(ACCEPTED)


@pytest.mark.parametrize("by", [ALICE, None])
def test_an_invitation_is_taken_back_once(by: UserId | None) -> None:
    revoke = RevokeInvitation(by=by, invitation_id=INVITATION)
    revoked = InvitationRevoked(invitation_id=INVITATION)
    given(*ACME_CREATED, INVITED).when(revoke).then(revoked)
    given(*ACME_CREATED, INVITED, revoked).when(revoke).then_nothing()
    given(*ACME_CREATED).when(revoke).then_nothing()
