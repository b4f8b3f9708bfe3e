"""Laws of an organisation under any sequence of commands by anybody: it is owned, and each role was given by right.

The books are kept here a second time, from the commands and events alone, with the table of test_delegation.py.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from domain.decider import Rejected
from domain.ids import InvitationId, UserId
from domain.organization import (
    ORGANIZATION,
    InvitationAccepted,
    MemberAdded,
    MemberInvited,
    MemberRoleChanged,
    Organization,
    OrganizationDeleted,
    OrganizationEvent,
)
from domain.organization_commands import (
    AcceptInvitation,
    AddMember,
    ChangeMemberRole,
    CreateOrganization,
    DeleteOrganization,
    DismissMember,
    InviteMember,
    OrganizationCommand,
    RemoveMember,
    RevokeInvitation,
)
from domain.roles import RANKS, Role
from domain.values import Digest, Sealed
from tests.domain.test_delegation import INVITES, gives
from tests.given import NOON

PEOPLE = tuple(UserId(name) for name in ("ann", "ben", "cat", "dan"))
HOUR = timedelta(hours=1)

Step = tuple[OrganizationCommand, timedelta]

SEARCH = settings(max_examples=5000, phases=[Phase.generate], database=None, deadline=None)
"""For controls: one example is enough, and need not be the smallest."""


def _invitation_id(to: UserId, number: int) -> InvitationId:
    return InvitationId(f"{to}-{number}")


def _invite(by: UserId, to: UserId, number: int, role: Role) -> InviteMember:
    return InviteMember(
        by=by,
        invitation_id=_invitation_id(to, number),
        email=Sealed("sealed"),
        email_digest=Digest(to),
        role=role,
        token_sha256=str(number),
        expires_at=NOON + timedelta(hours=12),
    )


def _accept(by: UserId, number: int, of: UserId | None) -> AcceptInvitation:
    """One's own, unless it is `of` somebody else."""
    return AcceptInvitation(user_id=by, invitation_id=_invitation_id(of or by, number), email_digest=Digest(by))


_people, _roles, _numbers = st.sampled_from(PEOPLE), st.sampled_from(RANKS), st.integers(0, 1)
_invitations = st.builds(_invitation_id, _people, _numbers)
_commands: st.SearchStrategy[OrganizationCommand] = st.one_of(
    st.builds(AddMember, user_id=_people, role=_roles),
    st.builds(RemoveMember, user_id=_people),
    st.builds(ChangeMemberRole, by=_people, user_id=_people, role=_roles),
    st.builds(DismissMember, by=_people, user_id=_people),
    st.builds(_invite, _people, _people, _numbers, _roles),
    st.builds(RevokeInvitation, by=_people, invitation_id=_invitations),
    st.builds(_accept, _people, _numbers, st.sampled_from((None, None, None, *PEOPLE))),
    st.builds(CreateOrganization, name=st.just("Acme"), owner=_people, fallback_slug=st.just("acme")),
    st.builds(DeleteOrganization, live_instances=st.integers(0, 15)),
)
_steps = st.lists(
    st.tuples(_commands, st.sampled_from((timedelta(), timedelta(), timedelta(), HOUR))), min_size=20, max_size=60
)


class Books:
    """Who was given which role, and by what right."""

    def __init__(self) -> None:
        self.state = Organization()
        self.events: list[OrganizationEvent] = []
        self.invited: dict[InvitationId, MemberInvited] = {}

    def take(self, command: OrganizationCommand, at: datetime) -> None:
        try:
            events = ORGANIZATION.decide(self.state, command, at)
        except Rejected:
            return
        for event in events:
            if isinstance(event, MemberInvited):
                assert event.role in INVITES.get(self._role(event.invited_by), "").split()
                self.invited[event.invitation_id] = event
            if isinstance(event, MemberAdded | MemberRoleChanged):
                assert self._was_given_by_right(event, command, at), (command, event)
            self.state = ORGANIZATION.evolve(self.state, event, at)
            self.events.append(event)
        assert not self.state.exists or "owner" in self.state.members.values(), command

    def _role(self, user_id: UserId) -> Role:
        return self.state.members.get(user_id, "user")

    def _was_given_by_right(
        self, event: MemberAdded | MemberRoleChanged, command: OrganizationCommand, at: datetime
    ) -> bool:
        match command:
            case CreateOrganization():
                return not self.state.members and (event.user_id, event.role) == (command.owner, "owner")
            case AddMember():
                return (event.user_id, event.role) == (command.user_id, command.role)
            case ChangeMemberRole():
                by = self._role(command.by) if command.by else "owner"
                return gives(by, self._role(event.user_id), event.role)
            case AcceptInvitation():
                invited = self.invited.pop(command.invitation_id)  # a second time it is not there
                to_this_person = command.email_digest == invited.email_digest and command.user_id == event.user_id
                return to_this_person and at < invited.expires_at and event.role == invited.role
            case _:
                return False


def taken(steps: Sequence[Step]) -> Books:
    books, at = Books(), NOON
    books.take(CreateOrganization(name="Acme", owner=PEOPLE[0], fallback_slug="acme"), at)
    for command, pause in steps:
        at += pause
        books.take(command, at)
    return books


@settings(max_examples=250, deadline=None)
@given(_steps)
def test_no_sequence_of_commands_leaves_it_without_an_owner_or_gives_a_role_without_right(steps: list[Step]) -> None:
    taken(steps)


@pytest.mark.parametrize("event", [MemberRoleChanged, InvitationAccepted, OrganizationDeleted])
def test_the_sequences_get_that_far(event: type[Any]) -> None:
    find(_steps, lambda steps: any(isinstance(one, event) for one in taken(steps).events), settings=SEARCH)


def _nothing(*_: object) -> None:
    """A rule that was forgotten."""


@pytest.mark.parametrize("rule", ["require_stays_owned", "require_role_change", "require_may_invite"])
def test_a_forgotten_rule_is_found(rule: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"domain.organization.{rule}", _nothing)
    find(_steps, _breaks(taken), settings=SEARCH)


def _breaks(take: Callable[[Sequence[Step]], object]) -> Callable[[list[Step]], bool]:
    def broken(steps: list[Step]) -> bool:
        try:
            take(steps)
        except AssertionError:
            return True
        return False

    return broken
