"""A user: a person who signs in. Names and e-mail address enter events only sealed with this person's own key; the
password hash lives in the vault and never enters an event. Username and e-mail are unique by keyed digest.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Claim, Decider, Rejected
from domain.organization import Plan
from domain.values import Digest, Sealed

PlatformRole = Literal["admin", "user"]


class CreateUser(msgspec.Struct, frozen=True, kw_only=True):
    username: Sealed
    username_digest: Digest
    email: Sealed
    email_digest: Digest
    first_name: Sealed
    last_name: Sealed
    role: PlatformRole = "user"


class RecordPasswordSet(msgspec.Struct, frozen=True):
    """The vault holds a new password hash."""


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


def evolve(state: User, event: UserEvent, _at: datetime) -> User:
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
            return replace(state, has_password=True, reset=None)
        case ProfileUpdated():
            return replace(state, username_digest=event.username_digest, email_digest=event.email_digest)
        case PlatformRoleChanged():
            return replace(state, role=event.role)
        case AccountPlanChanged():
            return replace(state, plan=event.plan)
        case PasswordResetRequested():
            return replace(state, reset=event)
        case UserForgotten():
            return User(exists=True, forgotten=True)
        case _:
            assert_never(event)


def decide(state: User, command: UserCommand, _at: datetime) -> Sequence[UserEvent]:
    match command:
        case CreateUser():
            if state.exists:
                return []
            return [UserCreated(**{f: getattr(command, f) for f in UserCreated.__struct_fields__})]
        case RecordPasswordSet():
            if not state.exists:
                raise Rejected("user_not_found", "There is no user with this id.")
            return [PasswordSet()]
        case UpdateProfile() | ChangePlatformRole() | ChangeAccountPlan() | RequestPasswordReset() | ForgetUser():
            raise NotImplementedError
        case _:
            assert_never(command)


def reservations(_state: User, event: UserEvent) -> Sequence[Claim]:
    if not isinstance(event, UserCreated):
        return []
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
