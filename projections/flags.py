"""Who set each activation flag, and when: four columns that rows of double activation carry beside their state."""

from datetime import datetime
from typing import Any

import msgspec

from domain.activation import FLAGS, Activation
from projections.projection import Entry

FLAG_COLUMNS = """
    technical_by text NOT NULL,
    technical_at timestamptz,
    economic_by text NOT NULL,
    economic_at timestamptz
"""


class FlagChanges(msgspec.Struct, frozen=True, kw_only=True):
    """The last change of each flag, on or off; `_by` as an envelope's actor, empty and None while it never was set."""

    technical_by: str
    technical_at: datetime | None
    economic_by: str
    economic_at: datetime | None


NEVER_CHANGED: dict[str, Any] = {"technical_by": "", "technical_at": None, "economic_by": "", "economic_at": None}


def changes_of(before: Activation, after: Activation, entry: Entry, *, actor: str | None = None) -> dict[str, Any]:
    """The columns that an event changes, for msgspec's replace; by the event's own actor unless said otherwise."""
    by = entry.envelope.actor if actor is None else actor
    changed = [flag for flag in FLAGS if before.is_set(flag) != after.is_set(flag)]
    return {
        column: value for flag in changed for column, value in ((f"{flag}_by", by), (f"{flag}_at", entry.envelope.at))
    }


def changes_in(row: Any) -> FlagChanges:
    """Those that a row with the four columns holds."""
    return FlagChanges(**{column: getattr(row, column) for column in NEVER_CHANGED})
