"""Seals the audit log every minute in which something was written, and sooner after a thousand entries.

One seal covers all entries before it, so a burst of many thousands gets one, not many.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from handlers.ports import AuditStanding, Doors, Waking

PERIOD_S = 5.0
SEAL_EVERY = timedelta(seconds=60)
SEAL_EVERY_ENTRIES = 1000


async def keep_audit_log_sealed(doors: Doors) -> Sequence[Waking]:
    standing, now = await doors.sealer.standing(), doors.clock()
    if _is_due(standing, now):
        await doors.sealer.seal(standing.entries, now)
    return ()


def _is_due(standing: AuditStanding, now: datetime) -> bool:
    """Never while the tree is behind its seals: it is being rebuilt."""
    fresh = standing.entries - standing.sealed
    if fresh <= 0:
        return False
    waited = standing.sealed_at is None or now - standing.sealed_at >= SEAL_EVERY
    return waited or fresh >= SEAL_EVERY_ENTRIES
