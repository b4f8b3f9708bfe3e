"""Which instances may own a server, and where: for those who guard money; a part of instances.py."""

from typing import Any

import msgspec

from domain.ids import DeploymentId, InstanceId, OrganizationId
from domain.instance_state import Status
from projections.projection import Connection
from projections.query import MAX_PAGE_ROWS, find_all, page_rows

NOT_ENDED = "status NOT IN ('terminated', 'archived')"


class InstanceOwning(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that may own a server: which one, and where its agent is; both empty before that is known."""

    id: InstanceId
    organization_id: OrganizationId
    deployment_id: DeploymentId
    provider: str
    status: Status
    provider_instance_id: str
    agent_url: str


class _Places(msgspec.Struct, frozen=True):
    """What InstanceOwning needs of a state."""

    provider_instance_id: str
    agent_url: str


_places = msgspec.json.Decoder(_Places)


async def list_owning(
    connection: Connection,
    *,
    after: str = "",
    organization_id: str = "",
    provider: str = "",
    limit: int = MAX_PAGE_ROWS,
) -> list[InstanceOwning]:
    """Instances that have not ended, so that each may own a server, by id; `after` is the last page's last id.

    `organization_id`, `provider`: "" for all.
    """
    query = f"""
        SELECT id, organization_id, deployment_id, provider, status, state FROM instances
        WHERE {NOT_ENDED} AND id > %s AND (%s::text = '' OR organization_id = %s) AND (%s::text = '' OR provider = %s)
        ORDER BY id LIMIT %s
    """  # noqa: S608 - made of this file's constants
    parameters = (after, organization_id, organization_id, provider, provider, page_rows(limit))
    return await find_all(connection, _owning, query, parameters)


def _owning(*, state: bytes, **columns: Any) -> InstanceOwning:
    return InstanceOwning(**columns, **msgspec.structs.asdict(_places.decode(state)))
