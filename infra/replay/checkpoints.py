"""How far every reader of the streams is, read in one look; nobody may be further than his stream goes."""

from collections.abc import Sequence

from infra.events.streams import EVENTS
from projections.checkpoint import Checkpoint, list_checkpoints
from projections.projection import BESIDE, Connection
from projections.registry import PROJECTIONS

_STREAMS = {projection.name: projection.stream for projection in PROJECTIONS}


async def known_checkpoints(connection: Connection) -> list[Checkpoint]:
    """All of them; none in a Postgres that no projection has seen yet."""
    cursor = await connection.execute("SELECT to_regclass('platform.checkpoints')")
    row = await cursor.fetchone()
    return await list_checkpoints(connection) if row is not None and row[0] is not None else []


def stream_of(checkpoint: Checkpoint) -> str:
    """Which stream it counts; a read model that this release does not know counts events, as all but one do."""
    return _STREAMS.get(checkpoint.name.removesuffix(BESIDE), EVENTS)


def furthest(checkpoints: Sequence[Checkpoint], name: str) -> Checkpoint | None:
    """Of all versions of a read model the one that has read most; while a new one is built, that is the old one."""
    return max((c for c in checkpoints if c.name == name), key=lambda c: c.position, default=None)
