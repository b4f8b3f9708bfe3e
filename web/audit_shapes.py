"""How the audit log looks on the wire: rows, pages, and one row in full."""

from datetime import datetime
from typing import Any

from projections.audit_words import Outcome
from web.shapes import Reply


class Actor(Reply):
    """`kind`: user, key, worker or system. `name`: a key's or a person's; "forgotten" where the person was."""

    kind: str
    id: str
    name: str | None


class Target(Reply):
    """`aggregate` as in events, `kind` as a person says; `label`: what it is called now; `version`: after this row."""

    aggregate: str
    kind: str
    id: str
    label: str | None
    version: int


class Origin(Reply):
    """By which door the actor came. `ip`, `browser`: of the session's sign-in; null once its person was forgotten."""

    kind: str
    id: str
    ip: str | None
    browser: str | None


class FieldChanged(Reply):
    """`field`: dotted path. Sealed values are shown as "•sealed•", hashes as "•hidden•"."""

    field: str
    before: Any
    after: Any


class Link(Reply):
    """Another row, as a cause or an effect of this one."""

    position: int
    event_id: str
    type: str
    verb: str
    aggregate: str
    id: str
    at: datetime


class AuditRow(Reply):
    """One event, as a person reads it.

    `data` are the event's own fields, as far as they may be shown. `cause` is null for what nothing caused, and for a
    cause that lies in another organisation. `changes` are the fields of the target that this event changed; null where
    `changes_left_out` says why (history_too_long, page_too_long, history_unreadable), or when they were not asked for.
    """

    position: int
    event_id: str
    at: datetime
    actor: Actor
    type: str
    verb: str
    action: str
    category: str
    outcome: Outcome
    component: str
    target: Target
    organization_id: str
    cause_event_id: str | None
    cause: Link | None
    correlation: str
    origin: Origin | None
    data: dict[str, Any]
    changes: list[FieldChanged] | None
    changes_left_out: str | None


class AuditPage(Reply):
    """Newest first. Ask `before=older` for the next page (null: none), `after=newer` for what has come since."""

    rows: list[AuditRow]
    older: int | None
    newer: int


class AuditRowInFull(AuditRow):
    """`envelope`: as stored. `causes`: nearest first. `effects`: what it caused directly, at most 100."""

    envelope: dict[str, Any]
    causes: list[Link]
    effects: list[Link]
    more_effects: bool


class StateShown(Reply):
    """A target as it was after its event at `position`. Sealed values and hashes are not shown."""

    aggregate: str
    id: str
    organization_id: str
    label: str | None
    version: int
    position: int
    event_id: str
    at: datetime
    type: str
    verb: str
    state: dict[str, Any]
