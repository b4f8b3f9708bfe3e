"""A user: a person who signs in. Names and e-mail address enter events only sealed with this person's own key; the
password hash lives in the vault and never enters an event. Username and e-mail are unique by keyed digest.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Claim, Decider, Rejected
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


UserCommand = CreateUser | RecordPasswordSet


class UserCreated(msgspec.Struct, frozen=True, kw_only=True):
    username: Sealed
    username_digest: Digest
    email: Sealed
    email_digest: Digest
    first_name: Sealed
    last_name: Sealed
    role: PlatformRole


class PasswordSet(msgspec.Struct, frozen=True):
    pass


UserEvent = UserCreated | PasswordSet


class User(msgspec.Struct, frozen=True, kw_only=True):
    exists: bool = False
    role: PlatformRole = "user"
    has_password: bool = False


def evolve(state: User, event: UserEvent, _at: datetime) -> User:
    match event:
        case UserCreated():
            return replace(state, exists=True, role=event.role)
        case PasswordSet():
            return replace(state, has_password=True)
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
        case _:
            assert_never(command)


def reservations(_state: User, event: UserEvent) -> Sequence[Claim]:
    if not isinstance(event, UserCreated):
        return []
    taken = "username_or_email_already_exists"
    return [Claim("username", event.username_digest, taken), Claim("email", event.email_digest, taken)]


USER: Decider[UserCommand, UserEvent, User] = Decider(
    aggregate="user",
    events=(UserCreated, PasswordSet),
    initial=User(),
    state_type=User,
    evolve=evolve,
    decide=decide,
    reservations=reservations,
)
