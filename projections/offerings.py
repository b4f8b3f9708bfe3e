"""Offerings: what each organisation offers, as it manages it, and as others may find it.

    own (every one, withdrawn ones too) ── find_offering, list_offerings         within the tenant's wall
    others' (live and operational) ─────── find_reachable, list_public           across it: read with scope EVERYTHING

A row keeps the domain's own fold; the columns beside it are what queries ask for. The surprising rule: `unlisted` is
reached by who knows its name, and stands in no list.
"""

from collections.abc import Collection, Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from domain.ids import ModelId, OfferingId, OrganizationId
from domain.offering import OFFERING, Offering, OfferingPublished
from projections.fingerprint import fingerprint
from projections.flags import FLAG_COLUMNS, NEVER_CHANGED, FlagChanges, changes_in, changes_of
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all, find_one
from projections.table import Table, never_begun

_TABLES = f"""
-- states are {fingerprint(Offering)}
CREATE TABLE offerings (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    model_id text NOT NULL,
    visibility text NOT NULL,
    is_reachable boolean NOT NULL,
    is_live boolean NOT NULL,
    state bytea NOT NULL,
    {FLAG_COLUMNS.strip()},
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX offerings_by_organization ON offerings (organization_id, created_at);
CREATE INDEX offerings_by_model ON offerings (model_id);
CREATE INDEX offerings_by_visibility ON offerings (visibility, created_at)
"""


class OfferingView(msgspec.Struct, frozen=True, kw_only=True):
    """One offering; `offering` as the domain folds it. A withdrawn one stays, not live."""

    id: OfferingId
    organization_id: OrganizationId
    offering: Offering
    flags: FlagChanges
    created_at: datetime
    updated_at: datetime


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """`is_reachable`: others can find it, live and operational."""

    id: OfferingId
    organization_id: OrganizationId
    model_id: ModelId
    visibility: str
    is_reachable: bool
    is_live: bool
    state: bytes
    technical_by: str
    technical_at: datetime | None
    economic_by: str
    economic_at: datetime | None
    created_at: datetime
    updated_at: datetime


class _Count(msgspec.Struct, frozen=True):
    count: int


_offerings = Table("offerings", _Row, key=("id",))
_states = msgspec.json.Decoder(Offering)


async def list_offerings(connection: Connection, organization_id: str, *, withdrawn: bool = True) -> list[OfferingView]:
    """The organisation's own, oldest first, at most MAX_LIST_ROWS; without the withdrawn ones if so told."""
    query = "SELECT * FROM offerings WHERE organization_id = %s AND (is_live OR %s) ORDER BY created_at, id LIMIT %s"
    rows = await find_all(connection, _Row, query, (organization_id, withdrawn, MAX_LIST_ROWS))
    return [_view(row) for row in rows]


async def find_offering(connection: Connection, organization_id: str, offering_id: str) -> OfferingView | None:
    """None for a neighbour's offering, as for one that does not exist."""
    query = "SELECT * FROM offerings WHERE organization_id = %s AND id = %s"
    row = await find_one(connection, _Row, query, (organization_id, offering_id))
    return _view(row) if row else None


async def find_reachable(connection: Connection, offering_id: str) -> OfferingView | None:
    """For anyone who knows its id: live and operational. Whether it is private, the caller asks."""
    query = "SELECT * FROM offerings WHERE id = %s AND is_reachable"
    row = await find_one(connection, _Row, query, (offering_id,))
    return _view(row) if row else None


async def list_public(connection: Connection, caller: str) -> list[OfferingView]:
    """Other organisations' public and reachable ones, newest first, at most MAX_LIST_ROWS."""
    query = """
        SELECT * FROM offerings WHERE visibility = 'public' AND is_reachable AND organization_id <> %s
        ORDER BY created_at DESC, id LIMIT %s
    """
    return [_view(row) for row in await find_all(connection, _Row, query, (caller, MAX_LIST_ROWS))]


async def find_offerings(connection: Connection, offering_ids: Collection[str]) -> dict[str, OfferingView]:
    """Those of any organisation, by id; for who has a share of each."""
    query = "SELECT * FROM offerings WHERE id = ANY(%s)"
    return {row.id: _view(row) for row in await find_all(connection, _Row, query, (list(offering_ids),))}


async def count_offerings_of(connection: Connection, model_id: str) -> int:
    """Live ones of any organisation; for who wants to delist the model."""
    query = "SELECT count(*) AS count FROM offerings WHERE model_id = %s AND is_live"
    counted = await find_one(connection, _Count, query, (model_id,))
    return counted.count if counted else 0


def _view(row: _Row) -> OfferingView:
    return OfferingView(
        id=row.id,
        organization_id=row.organization_id,
        offering=_states.decode(row.state),
        flags=changes_in(row),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _offerings.fold(entries, connection, _fold)


def _fold(row: _Row | None, entry: Entry) -> _Row:
    before = _states.decode(row.state) if row else OFFERING.initial
    after = OFFERING.evolve(before, entry.event, entry.envelope.at)
    return replace(
        row or _first_row(entry),
        model_id=after.model_id,
        visibility=after.terms.visibility if after.terms else "",
        is_reachable=after.live and after.activation.operational,
        is_live=after.live,
        state=msgspec.json.encode(after),
        updated_at=entry.envelope.at,
        **changes_of(before.activation, after.activation, entry),
    )


def _first_row(entry: Entry) -> _Row:
    if not isinstance(entry.event, OfferingPublished):
        raise never_begun(entry)
    return _Row(
        id=OfferingId(entry.envelope.id),
        organization_id=entry.envelope.organization,
        model_id=ModelId(""),
        visibility="",
        is_reachable=False,
        is_live=False,
        state=b"",
        **NEVER_CHANGED,
        created_at=entry.envelope.at,
        updated_at=entry.envelope.at,
    )


OFFERINGS = Projection("offerings", 1, _TABLES, apply, aggregates=frozenset({"offering"}))
