"""What the action log tells of an instance's events beyond the audit log: its status before and after, and where it is.

Asked of the read model `instances`, whose milestones stand at the same positions as the audit log's rows.
"""

from collections.abc import Sequence

import msgspec

from projections.projection import Connection
from projections.query import find_all


class InstanceAction(msgspec.Struct, frozen=True, kw_only=True):
    """One event of an instance. `words`: as its timeline tells it."""

    position: int
    words: str
    status_before: str
    status_after: str
    provider: str
    instance_type: str


async def find_instance_actions(
    connection: Connection, organization_id: str, positions: Sequence[int]
) -> dict[int, InstanceAction]:
    """By position, those that are an instance's of this organisation."""
    query = """
        SELECT m.position, m.words, m.status_before, m.status_after, i.provider, i.instance_type
        FROM instance_milestones AS m JOIN instances AS i ON i.id = m.instance_id
        WHERE m.organization_id = %s AND m.position = ANY(%s)
    """
    found = await find_all(connection, InstanceAction, query, (organization_id, list(positions)))
    return {action.position: action for action in found}
