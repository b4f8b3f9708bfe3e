"""Each instance's timeline: one row an event, in words, with the status before and after; a part of instances.py."""

from datetime import datetime

import msgspec

from domain.ids import InstanceId, OrganizationId
from domain.instance_state import Instance, Status
from projections.instance_words import words_of
from projections.projection import Connection, Entry
from projections.query import MAX_LIST_ROWS, find_all
from projections.table import Table

MILESTONE_TABLE = """
CREATE TABLE instance_milestones (
    position bigint PRIMARY KEY,
    organization_id text NOT NULL,
    instance_id text NOT NULL,
    at timestamptz NOT NULL,
    type text NOT NULL,
    action text NOT NULL,
    category text NOT NULL,
    failed boolean NOT NULL,
    words text NOT NULL,
    actor text NOT NULL,
    status_before text NOT NULL,
    status_after text NOT NULL,
    progress_percent bigint NOT NULL
);
CREATE INDEX instance_milestones_by_instance ON instance_milestones (instance_id, position)
"""


class MilestoneView(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an instance, told (see instance_words.py); a row of the table as well."""

    position: int
    organization_id: OrganizationId
    instance_id: InstanceId
    at: datetime
    type: str
    action: str
    category: str
    failed: bool
    words: str
    actor: str
    status_before: Status
    status_after: Status
    progress_percent: int


MILESTONES = Table("instance_milestones", MilestoneView, key=("position",))


async def list_milestones(connection: Connection, organization_id: str, instance_id: str) -> list[MilestoneView]:
    """The instance's timeline, oldest first, its newest MAX_LIST_ROWS events; empty for a neighbour's."""
    query = """
        SELECT * FROM instance_milestones WHERE organization_id = %s AND instance_id = %s
        ORDER BY position DESC LIMIT %s
    """
    found = await find_all(connection, MilestoneView, query, (organization_id, instance_id, MAX_LIST_ROWS))
    return found[::-1]


def milestone_of(entry: Entry, before: Instance, after: Instance) -> MilestoneView:
    words = words_of(entry.event)
    return MilestoneView(
        position=entry.position,
        organization_id=entry.envelope.organization,
        instance_id=InstanceId(entry.envelope.id),
        at=entry.envelope.at,
        type=entry.envelope.type,
        action=words.action,
        category=words.category,
        failed=words.failed,
        words=words.sentence,
        actor=entry.envelope.actor,
        status_before=before.status,
        status_after=after.status,
        progress_percent=after.progress_percent,
    )
