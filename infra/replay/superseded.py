"""Tables that nobody reads any more: those of older versions, and what interrupted rebuilds have left.

An older version may go only when the newest one has read as far: until then it may still be what readers see. A process
of the older release that still runs then would begin to build it again.
"""

import msgspec

from infra.replay.checkpoints import known_checkpoints
from projections.checkpoint import Checkpoint
from projections.projection import BESIDE, Connection
from projections.registry import PROJECTIONS

_NEWEST = {projection.name: projection.version for projection in PROJECTIONS}


class Leftovers(msgspec.Struct, frozen=True, kw_only=True):
    """Checkpoints, and so schemas.

    Attributes:
        unfinished: of rebuilds that were interrupted, or are under way now.
        droppable: of older versions whose successor has caught up.
        needed: of older versions whose successor has not.
    """

    unfinished: tuple[Checkpoint, ...]
    droppable: tuple[Checkpoint, ...]
    needed: tuple[Checkpoint, ...]


async def find_leftovers(connection: Connection) -> Leftovers:
    known = await known_checkpoints(connection)
    newest = {c.name: c for c in known if _NEWEST.get(c.name) == c.version}
    older = [c for c in known if c.name in _NEWEST and c.version < _NEWEST[c.name]]

    def is_reached(checkpoint: Checkpoint) -> bool:
        successor = newest.get(checkpoint.name)
        return successor is not None and successor.position >= max(checkpoint.position, successor.shown_from)

    return Leftovers(
        unfinished=tuple(c for c in known if c.name.removesuffix(BESIDE) in _NEWEST and c.name.endswith(BESIDE)),
        droppable=tuple(c for c in older if is_reached(c)),
        needed=tuple(c for c in older if not is_reached(c)),
    )
