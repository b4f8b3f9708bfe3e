"""What a known principal was refused, and what it took out: the part of the audit log that no other aggregate tells.

One aggregate for each principal (a user's or a key's id). The surprising rule: attempts are recorded at most
MAX_RECORDED_PER_MINUTE a minute, for the log is for ever; the next record tells how many were left out.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Decider

MAX_RECORDED_PER_MINUTE = 10
WINDOW = timedelta(minutes=1)
MAX_TARGET_LENGTH = 200


class RecordDenied(msgspec.Struct, frozen=True, kw_only=True):
    """`action`: of domain/permissions.py, "sign_in", or a route; `target`: a path or an id; `code`: the refusal's."""

    action: str
    target: str
    code: str
    unrecorded: int = 0


class RecordExport(msgspec.Struct, frozen=True, kw_only=True):
    """`filters`: as asked, by name; a text filter is left out, for it may hold a person's name."""

    format: str
    filters: dict[str, str]


AccessCommand = RecordDenied | RecordExport


class AttemptDenied(msgspec.Struct, frozen=True, kw_only=True):
    """`unrecorded`: attempts before this one that were too many to be written down each."""

    action: str
    target: str
    code: str
    unrecorded: int


class AuditLogExported(msgspec.Struct, frozen=True, kw_only=True):
    format: str
    filters: dict[str, str]


AccessEvent = AttemptDenied | AuditLogExported


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The current minute's count."""

    window_began_at: datetime | None = None
    recorded: int = 0


def evolve(state: Access, event: AccessEvent, at: datetime) -> Access:
    match event:
        case AttemptDenied():
            if state.window_began_at is None or at - state.window_began_at >= WINDOW:
                return Access(window_began_at=at, recorded=1)
            return replace(state, recorded=state.recorded + 1)
        case AuditLogExported():
            return state
        case _:
            assert_never(event)


def decide(state: Access, command: AccessCommand, at: datetime) -> Sequence[AccessEvent]:
    match command:
        case RecordDenied():
            began = state.window_began_at
            full = began is not None and at - began < WINDOW and state.recorded >= MAX_RECORDED_PER_MINUTE
            return [] if full else [_denied(command)]
        case RecordExport():
            return [AuditLogExported(format=command.format, filters=command.filters)]
        case _:
            assert_never(command)


def _denied(command: RecordDenied) -> AttemptDenied:
    return AttemptDenied(
        action=command.action,
        target=command.target[:MAX_TARGET_LENGTH],
        code=command.code,
        unrecorded=command.unrecorded,
    )


ACCESS: Decider[AccessCommand, AccessEvent, Access] = Decider(
    aggregate="access",
    events=(AttemptDenied, AuditLogExported),
    initial=Access(),
    state_type=Access,
    evolve=evolve,
    decide=decide,
)
