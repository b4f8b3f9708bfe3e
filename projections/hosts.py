"""Hosts: the machines that organisations enrolled for the provider `bare_metal`; a withdrawn one has no row.

What a row does not know is whether its host is free: that stands on the host itself.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from domain.host import HOST, Host, HostFacts, HostId
from domain.ids import OrganizationId
from projections.fingerprint import fingerprint
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all, find_one
from projections.table import Table, never_begun

_TABLES = f"""
-- states are {fingerprint(Host)}
CREATE TABLE hosts (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    state bytea NOT NULL,
    name text NOT NULL,
    is_enrolled boolean NOT NULL,
    enrolled_at timestamptz NOT NULL
);
CREATE INDEX hosts_by_organization ON hosts (organization_id, name) WHERE is_enrolled
"""


class HostView(msgspec.Struct, frozen=True, kw_only=True):
    """One enrolled host; its offer is `zone`, `instance_type` and the figures of its facts."""

    id: HostId
    organization_id: OrganizationId
    address: str
    ssh_port: int
    facts: HostFacts
    enrolled_at: datetime


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    id: HostId
    organization_id: OrganizationId
    state: bytes
    name: str
    is_enrolled: bool
    enrolled_at: datetime


_hosts = Table("hosts", _Row, key=("id",))
_states = msgspec.json.Decoder(Host)


async def list_hosts(connection: Connection, organization_id: str) -> list[HostView]:
    """Those that are enrolled now, by name; at most MAX_LIST_ROWS."""
    query = "SELECT * FROM hosts WHERE organization_id = %s AND is_enrolled ORDER BY name, id LIMIT %s"
    return _views(await find_all(connection, _Row, query, (organization_id, MAX_LIST_ROWS)))


async def find_host(connection: Connection, organization_id: str, host_id: str) -> HostView | None:
    """None for another organisation's, as for what does not exist."""
    query = "SELECT * FROM hosts WHERE organization_id = %s AND id = %s AND is_enrolled"
    row = await find_one(connection, _Row, query, (organization_id, host_id))
    return next(iter(_views([row] if row else [])), None)


def _views(rows: Sequence[_Row]) -> list[HostView]:
    views = []
    for row in rows:
        host = _states.decode(row.state)
        if host.facts is not None:
            views.append(
                HostView(
                    id=row.id,
                    organization_id=row.organization_id,
                    address=host.address,
                    ssh_port=host.ssh_port,
                    facts=host.facts,
                    enrolled_at=row.enrolled_at,
                )
            )
    return views


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _hosts.fold(entries, connection, _fold)


def _fold(row: _Row | None, entry: Entry) -> _Row:
    before = _states.decode(row.state) if row else HOST.initial
    after = HOST.evolve(before, entry.event, entry.envelope.at)
    if not after.address:
        raise never_begun(entry)
    begins = before.facts is None and after.facts is not None
    return _Row(
        id=HostId(entry.envelope.id),
        organization_id=entry.envelope.organization,
        state=msgspec.json.encode(after),
        name=after.facts.name if after.facts else "",
        is_enrolled=after.facts is not None,
        enrolled_at=entry.envelope.at if begins or row is None else row.enrolled_at,
    )


HOSTS = Projection("hosts", 1, _TABLES, apply, aggregates=frozenset({"host"}))
