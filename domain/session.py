"""A signed-in session: opened at login, ended by logout or expiry. Each has its own workspace (organisation)."""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Decider, Rejected
from domain.ids import OrganizationId, UserId
from domain.values import Sealed


class OpenSession(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId
    organization_id: OrganizationId | None
    token_sha256: str
    expires_at: datetime
    ip: Sealed
    user_agent: Sealed


class SwitchWorkspace(msgspec.Struct, frozen=True, kw_only=True):
    organization_id: OrganizationId | None


class RevokeSession(msgspec.Struct, frozen=True):
    pass


SessionCommand = OpenSession | SwitchWorkspace | RevokeSession


class SessionOpened(msgspec.Struct, frozen=True, kw_only=True):
    """`ip` and `user_agent` are the user's personal data, sealed; empty where nothing was known."""

    SCHEMA: ClassVar[int] = 2

    user_id: UserId
    organization_id: OrganizationId | None
    token_sha256: str
    expires_at: datetime
    ip: Sealed
    user_agent: Sealed


class WorkspaceSwitched(msgspec.Struct, frozen=True, kw_only=True):
    organization_id: OrganizationId | None


class SessionRevoked(msgspec.Struct, frozen=True):
    pass


SessionEvent = SessionOpened | WorkspaceSwitched | SessionRevoked


class Session(msgspec.Struct, frozen=True, kw_only=True):
    user_id: UserId | None = None
    organization_id: OrganizationId | None = None
    revoked: bool = False


def evolve(state: Session, event: SessionEvent, _at: datetime) -> Session:
    match event:
        case SessionOpened():
            return Session(user_id=event.user_id, organization_id=event.organization_id)
        case WorkspaceSwitched():
            return replace(state, organization_id=event.organization_id)
        case SessionRevoked():
            return replace(state, revoked=True)
        case _:
            assert_never(event)


def decide(state: Session, command: SessionCommand, _at: datetime) -> Sequence[SessionEvent]:
    if state.user_id is None and not isinstance(command, OpenSession):
        raise Rejected("session_not_found", "There is no session with this id.")
    match command:
        case OpenSession():
            if state.user_id is not None:
                return []
            return [SessionOpened(**{f: getattr(command, f) for f in SessionOpened.__struct_fields__})]
        case SwitchWorkspace():
            if state.revoked:
                raise Rejected("session_invalid_or_expired", "This session has ended; sign in again.")
            if state.organization_id == command.organization_id:
                return []
            return [WorkspaceSwitched(organization_id=command.organization_id)]
        case RevokeSession():
            return [] if state.revoked else [SessionRevoked()]
        case _:
            assert_never(command)


SESSION: Decider[SessionCommand, SessionEvent, Session] = Decider(
    aggregate="session",
    events=(SessionOpened, WorkspaceSwitched, SessionRevoked),
    initial=Session(),
    state_type=Session,
    evolve=evolve,
    decide=decide,
)
