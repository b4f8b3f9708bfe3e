"""Shares: what stands between a provider and a consumer about one offering. Both sides see the row, nobody else does.

    provider (`organization_id`) ── list_given, find_given          consumer ── list_taken, find_taken

A row keeps the domain's own fold. The surprising rule: a share names nobody of the other side. Who set a flag is the
provider's affair and not shown to the consumer; who began a trial is the consumer's, and not kept at all.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec.structs import replace

from domain.ids import OfferingId, OrganizationId, ShareId
from domain.share import SHARE, Share, TrialStarted
from projections.fingerprint import fingerprint
from projections.flags import FLAG_COLUMNS, NEVER_CHANGED, FlagChanges, changes_in, changes_of
from projections.projection import THEIR_ORGANIZATION, Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all, find_one
from projections.table import Table, never_begun

_TABLES = f"""
-- states are {fingerprint(Share)}
CREATE TABLE shares (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    consumer_organization_id text NOT NULL,
    offering_id text NOT NULL,
    state bytea NOT NULL,
    {FLAG_COLUMNS.strip()},
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX shares_by_provider ON shares (organization_id, updated_at);
CREATE INDEX shares_by_consumer ON shares (consumer_organization_id, updated_at)
"""


class ShareView(msgspec.Struct, frozen=True, kw_only=True):
    """One share; `share` as the domain folds it, `organization_id` the provider's."""

    id: ShareId
    organization_id: OrganizationId
    consumer_organization_id: OrganizationId
    offering_id: OfferingId
    share: Share
    flags: FlagChanges
    created_at: datetime
    updated_at: datetime


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    id: ShareId
    organization_id: OrganizationId
    consumer_organization_id: OrganizationId
    offering_id: OfferingId
    state: bytes
    technical_by: str
    technical_at: datetime | None
    economic_by: str
    economic_at: datetime | None
    created_at: datetime
    updated_at: datetime


_shares = Table("shares", _Row, key=("id",))
_states = msgspec.json.Decoder(Share)


async def list_given(connection: Connection, organization_id: str) -> list[ShareView]:
    """What the organisation gives, or is asked for; newest change first, at most MAX_LIST_ROWS."""
    query = "SELECT * FROM shares WHERE organization_id = %s ORDER BY updated_at DESC, id LIMIT %s"
    return [_view(row) for row in await find_all(connection, _Row, query, (organization_id, MAX_LIST_ROWS))]


async def list_taken(connection: Connection, organization_id: str) -> list[ShareView]:
    """What the organisation was given, or asked for; newest change first, at most MAX_LIST_ROWS."""
    query = "SELECT * FROM shares WHERE consumer_organization_id = %s ORDER BY updated_at DESC, id LIMIT %s"
    return [_view(row) for row in await find_all(connection, _Row, query, (organization_id, MAX_LIST_ROWS))]


async def find_given(connection: Connection, organization_id: str, share_id: str) -> ShareView | None:
    """None for what another organisation gives, as for what does not exist."""
    query = "SELECT * FROM shares WHERE organization_id = %s AND id = %s"
    row = await find_one(connection, _Row, query, (organization_id, share_id))
    return _view(row) if row else None


async def find_taken(connection: Connection, organization_id: str, share_id: str) -> ShareView | None:
    """As the consumer sees it; None when it is another's."""
    query = "SELECT * FROM shares WHERE consumer_organization_id = %s AND id = %s"
    row = await find_one(connection, _Row, query, (organization_id, share_id))
    return _view(row) if row else None


def _view(row: _Row) -> ShareView:
    return ShareView(
        id=row.id,
        organization_id=row.organization_id,
        consumer_organization_id=row.consumer_organization_id,
        offering_id=row.offering_id,
        share=_states.decode(row.state),
        flags=changes_in(row),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _shares.fold(entries, connection, _fold)


def _fold(row: _Row | None, entry: Entry) -> _Row:
    before = _states.decode(row.state) if row else SHARE.initial
    after = SHARE.evolve(before, entry.event, entry.envelope.at)
    # Who begins a trial is the consumer's person, whom the provider must not learn of; nobody set the flags by hand.
    by = "" if isinstance(entry.event, TrialStarted) else None
    return replace(
        row or _first_row(entry, after),
        state=msgspec.json.encode(after),
        updated_at=entry.envelope.at,
        **changes_of(before.activation, after.activation, entry, actor=by),
    )


def _first_row(entry: Entry, first: Share) -> _Row:
    if not first.offering_id:
        raise never_begun(entry)
    return _Row(
        id=ShareId(entry.envelope.id),
        organization_id=entry.envelope.organization,
        consumer_organization_id=first.consumer,
        offering_id=first.offering_id,
        state=b"",
        **NEVER_CHANGED,
        created_at=entry.envelope.at,
        updated_at=entry.envelope.at,
    )


SHARES = Projection(
    "shares",
    1,
    _TABLES,
    apply,
    aggregates=frozenset({"share"}),
    visible={"shares": f"{THEIR_ORGANIZATION} IN (organization_id, consumer_organization_id)"},
)
