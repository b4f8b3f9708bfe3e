"""How an organisation's accounts at providers are: when they were last looked at, what was found, what went wrong.

provider_account's events ──> one row an account: reconciliation, catalogue, and the last trouble of each, in the
                              provider's own words, until it works again
"""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.ids import OrganizationId
from domain.provider_account_events import (
    CatalogueSynced,
    CatalogueSyncFailed,
    CatalogueSyncRequested,
    DeletionHalted,
    MissedServerSettled,
    ProviderAccountEvent,
    ReconciliationCompleted,
    ReconciliationFailed,
    ReconciliationRequested,
    ServerMissed,
    StrayCleared,
    StrayDeleteIntended,
    StraySeen,
    UnrecordedServerSeen,
    is_mended_by,
)
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all
from projections.table import Table

_TABLES = """
CREATE TABLE provider_accounts (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    provider text NOT NULL,
    reconcile_requested_at timestamptz,
    reconciled_at timestamptz,
    servers bigint,
    volumes bigint,
    strays bigint,
    unrecorded bigint,
    missed bigint,
    strays_deleted bigint NOT NULL,
    halted_at timestamptz,
    failed_at timestamptz,
    failed_call text NOT NULL,
    failure_kind text NOT NULL,
    failure text NOT NULL,
    sync_requested_at timestamptz,
    synced_at timestamptz,
    sync_failed_at timestamptz,
    sync_failure_kind text NOT NULL,
    sync_failure text NOT NULL,
    position bigint NOT NULL
);
CREATE INDEX provider_accounts_by_organization ON provider_accounts (organization_id, provider)
"""


class ProviderAccountView(msgspec.Struct, frozen=True, kw_only=True):
    """One account. Counts are of the last recorded look (None: never); a trouble stands until it is over.

    Attributes:
        reconcile_requested_at: of a request that is not answered yet; likewise sync_requested_at.
        unrecorded: servers and volumes signed by us of which no record knows: they are never deleted by us.
        strays_deleted: in all.
        halted_at: when deletions were last halted, because they were too many.
        failed_call: what the provider was asked, e.g. "list_servers"; `failure` in its own words.
        position: of its last event.
    """

    id: str
    organization_id: OrganizationId
    provider: str
    reconcile_requested_at: datetime | None = None
    reconciled_at: datetime | None = None
    servers: int | None = None
    volumes: int | None = None
    strays: int | None = None
    unrecorded: int | None = None
    missed: int | None = None
    strays_deleted: int = 0
    halted_at: datetime | None = None
    failed_at: datetime | None = None
    failed_call: str = ""
    failure_kind: str = ""
    failure: str = ""
    sync_requested_at: datetime | None = None
    synced_at: datetime | None = None
    sync_failed_at: datetime | None = None
    sync_failure_kind: str = ""
    sync_failure: str = ""
    position: int


_accounts = Table("provider_accounts", ProviderAccountView, key=("id",))


async def list_provider_accounts(connection: Connection, organization_id: str) -> list[ProviderAccountView]:
    """Those that something is known of, by provider."""
    query = "SELECT * FROM provider_accounts WHERE organization_id = %s ORDER BY provider LIMIT %s"
    return await find_all(connection, ProviderAccountView, query, (organization_id, MAX_LIST_ROWS))


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _accounts.fold(entries, connection, _next)


def _next(row: ProviderAccountView | None, entry: Entry) -> ProviderAccountView:
    event: ProviderAccountEvent = entry.event
    known = row or ProviderAccountView(
        id=entry.envelope.id, organization_id=entry.envelope.organization, provider=event.provider, position=0
    )
    return _after(replace(known, position=entry.position), event, entry.envelope.at)


def _after(row: ProviderAccountView, event: ProviderAccountEvent, at: datetime) -> ProviderAccountView:
    match event:
        case ReconciliationRequested():
            return replace(row, reconcile_requested_at=at)
        case ReconciliationCompleted():
            return _completed(row, event, at)
        case ReconciliationFailed():
            return replace(
                row,
                reconcile_requested_at=None if event.answered else row.reconcile_requested_at,
                failed_at=at,
                failed_call=event.call,
                failure_kind=event.kind,
                failure=event.message,
            )
        case StrayDeleteIntended():
            return replace(row, strays_deleted=row.strays_deleted + 1)
        case DeletionHalted():
            return replace(row, halted_at=at)
        case CatalogueSyncRequested():
            return replace(row, sync_requested_at=at)
        case CatalogueSynced():
            mended = replace(row, sync_failed_at=None, sync_failure_kind="", sync_failure="")
            return replace(mended, synced_at=at, sync_requested_at=None)
        case CatalogueSyncFailed():
            failed = replace(row, sync_failed_at=at, sync_failure_kind=event.kind, sync_failure=event.message)
            return replace(failed, sync_requested_at=None)
        case StraySeen() | StrayCleared() | UnrecordedServerSeen() | ServerMissed() | MissedServerSettled():
            return row  # counted by the look that found them
        case _:
            assert_never(event)


def _completed(row: ProviderAccountView, event: ReconciliationCompleted, at: datetime) -> ProviderAccountView:
    if row.failed_call and is_mended_by(row.failed_call, event):
        row = replace(row, failed_at=None, failed_call="", failure_kind="", failure="")
    return replace(
        row,
        reconcile_requested_at=None if event.answered else row.reconcile_requested_at,
        reconciled_at=at,
        servers=event.servers,
        volumes=event.volumes,
        strays=event.strays,
        unrecorded=event.unrecorded,
        missed=event.missed,
    )


PROVIDER_ACCOUNTS = Projection("provider_accounts", 1, _TABLES, apply, aggregates=frozenset({"provider_account"}))
