"""A user: a person who signs in.

    created ──> profile, role, plan, password, reset link ... ──> forgotten, for ever

Names and e-mail address enter events only sealed with this person's own key; the password hash lives in the vault and
never enters an event. Username and e-mail are unique by keyed digest. The surprising rule: a forgotten user is answered
like one who never was, and yet the id stays taken, so that a late command cannot begin the person anew.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Claim, Decider, Rejected, Release
from domain.values import Digest, Plan, Sealed

PlatformRole = Literal["admin", "user"]
RESET_PAUSE = timedelta(minutes=2)
"""Between two reset links of one person; whoever asks again meanwhile still has the first."""


class CreateUser(msgspec.Struct, frozen=True, kw_only=True):
    username: Sealed
    username_digest: Digest
    email: Sealed
    email_digest: Digest
    first_name: Sealed
    last_name: Sealed
    role: PlatformRole = "user"


class RecordPasswordSet(msgspec.Struct, frozen=True, kw_only=True):
    """A new password counts. With a reset link's token: by that link, which is used up with it."""

    reset_token_sha256: str = ""


class UpdateProfile(msgspec.Struct, frozen=True, kw_only=True):
    """All fields, as they shall be."""

    username: Sealed
    username_digest: Digest
    email: Sealed
    email_digest: Digest
    first_name: Sealed
    last_name: Sealed


class ChangePlatformRole(msgspec.Struct, frozen=True, kw_only=True):
    role: PlatformRole


class ChangeAccountPlan(msgspec.Struct, frozen=True, kw_only=True):
    plan: Plan


class RequestPasswordReset(msgspec.Struct, frozen=True, kw_only=True):
    token_sha256: str
    expires_at: datetime


class ForgetUser(msgspec.Struct, frozen=True):
    """The person's data shall become unreadable, everywhere and for ever."""


UserCommand = (
    CreateUser
    | RecordPasswordSet
    | UpdateProfile
    | ChangePlatformRole
    | ChangeAccountPlan
    | RequestPasswordReset
    | ForgetUser
)


class UserCreated(msgspec.Struct, frozen=True, kw_only=True):
    username: Sealed
    username_digest: Digest
    email: Sealed
    email_digest: Digest
    first_name: Sealed
    last_name: Sealed
    role: PlatformRole


class PasswordSet(msgspec.Struct, frozen=True):
    """A reset that was under way is over."""


class ProfileUpdated(msgspec.Struct, frozen=True, kw_only=True):
    """With another e-mail address, a reset link that was mailed to the old one is void."""

    username: Sealed
    username_digest: Digest
    email: Sealed
    email_digest: Digest
    first_name: Sealed
    last_name: Sealed


class PlatformRoleChanged(msgspec.Struct, frozen=True, kw_only=True):
    role: PlatformRole


class AccountPlanChanged(msgspec.Struct, frozen=True, kw_only=True):
    plan: Plan


class PasswordResetRequested(msgspec.Struct, frozen=True, kw_only=True):
    """The newest one counts; its token works once."""

    token_sha256: str
    expires_at: datetime


class UserForgotten(msgspec.Struct, frozen=True):
    """The names are free again; a reaction destroys the person's key, password, sessions and keys."""


UserEvent = (
    UserCreated
    | PasswordSet
    | ProfileUpdated
    | PlatformRoleChanged
    | AccountPlanChanged
    | PasswordResetRequested
    | UserForgotten
)


class User(msgspec.Struct, frozen=True, kw_only=True):
    """`exists` stays true once forgotten: such an id never begins anew."""

    exists: bool = False
    forgotten: bool = False
    role: PlatformRole = "user"
    plan: Plan = "free"
    has_password: bool = False
    username_digest: Digest = Digest("")
    email_digest: Digest = Digest("")
    reset: PasswordResetRequested | None = None
    reset_requested_at: datetime | None = None


def evolve(state: User, event: UserEvent, at: datetime) -> User:
    match event:
        case UserCreated():
            return replace(
                state,
                exists=True,
                role=event.role,
                username_digest=event.username_digest,
                email_digest=event.email_digest,
            )
        case PasswordSet():
            return replace(state, has_password=True, reset=None, reset_requested_at=None)
        case ProfileUpdated():
            reset = state.reset if state.email_digest == event.email_digest else None
            return replace(state, username_digest=event.username_digest, email_digest=event.email_digest, reset=reset)
        case PlatformRoleChanged():
            return replace(state, role=event.role)
        case AccountPlanChanged():
            return replace(state, plan=event.plan)
        case PasswordResetRequested():
            return replace(state, reset=event, reset_requested_at=at)
        case UserForgotten():
            return User(exists=True, forgotten=True)
        case _:
            assert_never(event)


def decide(state: User, command: UserCommand, at: datetime) -> Sequence[UserEvent]:
    if isinstance(command, ForgetUser) and state.forgotten:
        return []
    if state.forgotten or not (state.exists or isinstance(command, CreateUser)):
        raise Rejected("user_not_found", "There is no user with this id.")
    match command:
        case CreateUser():
            return [] if state.exists else [_created(command)]
        case RecordPasswordSet():
            return _set_password(state, command, at)
        case UpdateProfile():
            return [ProfileUpdated(**{field: getattr(command, field) for field in ProfileUpdated.__struct_fields__})]
        case ChangePlatformRole():
            return [] if state.role == command.role else [PlatformRoleChanged(role=command.role)]
        case ChangeAccountPlan():
            return [] if state.plan == command.plan else [AccountPlanChanged(plan=command.plan)]
        case RequestPasswordReset():
            return _request_reset(state, command, at)
        case ForgetUser():
            return [UserForgotten()]
        case _:
            assert_never(command)


def _created(command: CreateUser) -> UserCreated:
    return UserCreated(**{field: getattr(command, field) for field in UserCreated.__struct_fields__})


def _set_password(state: User, command: RecordPasswordSet, at: datetime) -> Sequence[UserEvent]:
    if command.reset_token_sha256:
        link = state.reset
        if link is None or link.token_sha256 != command.reset_token_sha256 or at >= link.expires_at:
            raise Rejected("token_not_found_or_expired", "This link was used or has expired; ask for another.")
    return [PasswordSet()]


def _request_reset(state: User, command: RequestPasswordReset, at: datetime) -> Sequence[UserEvent]:
    """A link that is younger than RESET_PAUSE is not followed by another: asking often shall fill no mailbox."""
    requested = PasswordResetRequested(token_sha256=command.token_sha256, expires_at=command.expires_at)
    if state.reset_requested_at is not None and at - state.reset_requested_at < RESET_PAUSE:
        return []
    return [requested]


def reservations(state: User, event: UserEvent) -> Sequence[Claim | Release]:
    """A new name is taken and the old one given back in one batch with the event that says so."""
    match event:
        case UserCreated():
            return _claims(event)
        case ProfileUpdated():
            before = {"username": state.username_digest, "email": state.email_digest}
            changed = [claim for claim in _claims(event) if before[claim.kind] != claim.digest]
            return [*changed, *(Release(claim.kind, before[claim.kind]) for claim in changed)]
        case UserForgotten():
            return [Release("username", state.username_digest), Release("email", state.email_digest)]
        case _:
            return []


def _claims(event: UserCreated | ProfileUpdated) -> list[Claim]:
    taken = "username_or_email_already_exists"
    return [Claim("username", event.username_digest, taken), Claim("email", event.email_digest, taken)]


USER: Decider[UserCommand, UserEvent, User] = Decider(
    aggregate="user",
    events=(
        UserCreated,
        PasswordSet,
        ProfileUpdated,
        PlatformRoleChanged,
        AccountPlanChanged,
        PasswordResetRequested,
        UserForgotten,
    ),
    initial=User(),
    state_type=User,
    evolve=evolve,
    decide=decide,
    reservations=reservations,
)
