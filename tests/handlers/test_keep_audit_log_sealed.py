"""The audit log is sealed every minute in which something was written, and sooner after a thousand entries."""

from datetime import timedelta

import pytest

from handlers.keep_audit_log_sealed import SEAL_EVERY, SEAL_EVERY_ENTRIES, keep_audit_log_sealed
from handlers.ports import AuditStanding
from tests.handlers.world import World

SECOND = timedelta(seconds=1)


@pytest.mark.parametrize(
    ("fresh", "ago", "sealed"),
    [
        (1, None, True),
        (1, SEAL_EVERY - SECOND, False),
        (1, SEAL_EVERY, True),
        (SEAL_EVERY_ENTRIES - 1, SECOND, False),
        (SEAL_EVERY_ENTRIES, SECOND, True),
        (0, 60 * SEAL_EVERY, False),
        (-500, 60 * SEAL_EVERY, False),
    ],
    ids=["first", "too soon", "a minute", "not a thousand", "a thousand", "nothing new", "tree being rebuilt"],
)
async def test_a_seal_is_made_when_it_is_due(fresh: int, ago: timedelta | None, *, sealed: bool) -> None:
    world = World()
    at = None if ago is None else world.now - ago
    world.sealer.standing_now = AuditStanding(entries=7000 + fresh, sealed=7000, sealed_at=at)
    assert await keep_audit_log_sealed(world.doors) == ()
    assert world.sealer.sealed == ([7000 + fresh] if sealed else [])


async def test_looking_twice_seals_once() -> None:
    world = World()
    world.sealer.standing_now = AuditStanding(entries=3, sealed=0, sealed_at=None)
    await keep_audit_log_sealed(world.doors)
    await keep_audit_log_sealed(world.doors)
    assert world.sealer.sealed == [3]
