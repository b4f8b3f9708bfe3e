"""What a known principal was refused, and what it took out: the part of the audit log that no other aggregate tells.

One aggregate for each principal (a user or a key) in each organisation. The surprising rule: attempts are recorded at
most MAX_RECORDED_PER_MINUTE a minute, for the log is for ever; the next record tells how many were left out.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Decider, Rejected
from domain.ids import derived_id

MAX_RECORDED_PER_MINUTE = 10
MAX_EXPORTS_PER_MINUTE = 10
WINDOW = timedelta(minutes=1)
MAX_TARGET_LENGTH = 200


class RecordDenied(msgspec.Struct, frozen=True, kw_only=True):
    """`action`: "sign_in" or a route; `target`: a path or an id; `code`: the refusal's."""

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


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """How many events came since `began_at`; the first one after WINDOW begins anew."""

    began_at: datetime | None = None
    count: int = 0

    def is_full(self, most: int, at: datetime) -> bool:
        return self._goes_on(at) and self.count >= most

    def with_one_more(self, at: datetime) -> "Minute":
        return replace(self, count=self.count + 1) if self._goes_on(at) else Minute(began_at=at, count=1)

    def _goes_on(self, at: datetime) -> bool:
        return self.began_at is not None and at - self.began_at < WINDOW


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """The current minute of each kind."""

    denied: Minute = Minute()
    exported: Minute = Minute()


def access_id_of(organization: str, principal: str) -> str:
    """`principal`: a user's or a key's id. One id for each pair, because an aggregate's organisation never changes."""
    return derived_id(principal, f"access/{organization}")


def evolve(state: Access, event: AccessEvent, at: datetime) -> Access:
    match event:
        case AttemptDenied():
            return replace(state, denied=state.denied.with_one_more(at))
        case AuditLogExported():
            return replace(state, exported=state.exported.with_one_more(at))
        case _:
            assert_never(event)


def decide(state: Access, command: AccessCommand, at: datetime) -> Sequence[AccessEvent]:
    match command:
        case RecordDenied():
            return [] if state.denied.is_full(MAX_RECORDED_PER_MINUTE, at) else [_denied(command)]
        case RecordExport():
            if state.exported.is_full(MAX_EXPORTS_PER_MINUTE, at):
                most = f"At most {MAX_EXPORTS_PER_MINUTE} exports a minute; each is recorded for ever."
                raise Rejected("too_many_exports", most)
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
