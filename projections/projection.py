"""What a projection is: a fold of one stream into tables of its own, with its checkpoint in the same transaction.

    stream --batch--> apply(entries, connection) + checkpoint  --commit-->  queries (in the same file) --> views

Each projection lives in its own Postgres schema, `<name>_v<version>`; its SQL names tables without a schema and finds
them on the search path. A changed shape is a new version, built from position 0. The rows are private to the file:
other rooms call its queries.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import msgspec
from psycopg import AsyncConnection

from projections.entry import Entry, LogDamagedError, UsageEntry

__all__ = [
    "BESIDE",
    "EVERYONE",
    "EVERYTHING",
    "NOBODY",
    "ORGANIZATION_SETTING",
    "THEIR_ORGANIZATION",
    "THEIR_USER",
    "USER_SETTING",
    "Connection",
    "Entry",
    "LogDamagedError",
    "NotYetVisibleError",
    "Projection",
    "Read",
    "Scope",
    "UsageEntry",
]
"""All that a projection's file needs, the entries that it folds among it."""

Connection = AsyncConnection[Any]

BESIDE = "_next"
"""Ends the name under which a read model is rebuilt; no projection of the registry may end so."""
_CREATED_TABLE = re.compile(r"^\s*CREATE TABLE (\w+)", re.MULTILINE)

ORGANIZATION_SETTING = "inventiv.reader_organization"
USER_SETTING = "inventiv.reader_user"
THEIR_ORGANIZATION = f"nullif(current_setting('{ORGANIZATION_SETTING}', true), '')"
"""In a condition of `Projection.visible`: the reader's organisation; NULL, which equals nothing, when there is none."""
THEIR_USER = f"nullif(current_setting('{USER_SETTING}', true), '')"
EVERYONE = "true"


@dataclass(frozen=True)
class Projection:
    """One read model.

    Attributes:
        name: plural noun its reader looks for.
        version: raised with every change of tables or apply.
        tables: its DDL, unqualified names.
        apply: (entries in order, connection inside the open transaction); Entry for EVENTS, UsageEntry for USAGE.
        stream: which stream it folds.
        aggregates: whose events it folds, decoded; other events only move its checkpoint. None: every envelope, and
            `event` stays undecoded (None), because the audit log must outlive our knowledge of event types.
        visible: table -> SQL condition on one of its rows: which ones a tenant may see, written with THEIR_ORGANIZATION
            and THEIR_USER. A table that is not named shows each organisation its own rows; one that has no column
            `organization_id` shows none, except to scope EVERYTHING.
    """

    name: str
    version: int
    tables: str
    apply: Callable[[Sequence[Any], Connection], Awaitable[None]]
    stream: str = "EVENTS"
    aggregates: frozenset[str] | None = None
    visible: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def schema(self) -> str:
        return f"{self.name}_v{self.version}"

    @property
    def beside(self) -> "Projection":
        """The same under another name, so that it can be built anew while this one lives."""
        return replace(self, name=f"{self.name}{BESIDE}")

    @property
    def table_names(self) -> tuple[str, ...]:
        """In the order of the DDL; unqualified."""
        return tuple(_CREATED_TABLE.findall(self.tables))


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Whose rows a reader may see; Postgres' row security holds it to that, whatever its queries say.

    Attributes:
        organization: rows of this organisation; "": of none.
        user: what is this user's own; "": nobody's.
        everything: rows of all organisations. For sign-in, platform administrators, handlers and tools.
    """

    organization: str = ""
    user: str = ""
    everything: bool = False


NOBODY = Scope()
"""Sees what is public, and nothing else."""
EVERYTHING = Scope(everything=True)


class NotYetVisibleError(TimeoutError):
    """A read model did not reach the asked position within the bounded wait."""


class Read(Protocol):
    """The read side's door: a connection whose search path holds all living read models."""

    def __call__(
        self, *projections: str, position: int = 0, scope: Scope | None = None
    ) -> AbstractAsyncContextManager[Connection]:
        """Waits, bounded, until each named projection has reached `position` (of EVENTS), then lends a connection.

        `scope` None: the reader's own, NOBODY unless it was bound to a caller.

        Raises:
            NotYetVisibleError: the wait ran out.
        """
        ...
