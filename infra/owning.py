"""Instances that may own a server, for the duties that guard money: never from a read side that lags behind the log.

    checkpoint of `instances` ──> the log's head ──> wait until the rows are there ──> a page of them

The surprising rule: the checkpoint is read before the head. A read model that has read further than the log reaches
tells that the log has lost its tail, and then no record is to be trusted.
"""

from collections.abc import Awaitable, Callable, Sequence

from handlers.ports import Owning
from projections.checkpoint import list_checkpoints
from projections.instance_owning import list_owning
from projections.instances import INSTANCES
from projections.projection import Connection, Read


class RecordsBehindError(OSError):
    """The log ends before what was read from it."""


class OwningInstances:
    """Implements ListOwning.

    Args:
        read: the read models of all organisations.
        head: position of the log's newest event.
    """

    def __init__(self, read: Read, head: Callable[[], Awaitable[int]]) -> None:
        self._read = read
        self._head = head

    async def __call__(
        self, after: str, /, *, organization: str = "", provider: str = "", current: bool = False
    ) -> Sequence[Owning]:
        """See the port."""
        position = await self._whole_head() if current else 0
        async with self._read(INSTANCES.name, position=position) as connection:
            found = await list_owning(connection, after=after, organization_id=organization, provider=provider)
        return [
            Owning(
                organization=one.organization_id,
                instance_id=one.id,
                provider=one.provider,
                status=one.status,
                provider_instance_id=one.provider_instance_id,
                agent_url=one.agent_url,
            )
            for one in found
        ]

    async def _whole_head(self) -> int:
        async with self._read(INSTANCES.name) as connection:
            reached = await _reached(connection)
        head = await self._head()
        if reached > head:
            raise RecordsBehindError(f"the log ends at {head:,}, but {INSTANCES.name} has read up to {reached:,}")
        return head


async def _reached(connection: Connection) -> int:
    known = {checkpoint.schema: checkpoint.position for checkpoint in await list_checkpoints(connection)}
    return known.get(INSTANCES.schema, 0)
