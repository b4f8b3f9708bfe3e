"""Wakes every instance that is not at rest, so that a lost wake-up never matters for longer than one period."""

from collections.abc import Sequence

from domain.instance import INSTANCE
from handlers.advance_instance import NAME as ADVANCE_INSTANCE
from handlers.ports import Doors, Waking

PERIOD_S = 30.0
MAX_PAGES = 20
"""Pages of one sweep: with the read model's 500 rows a page, ten thousand instances on their way at once."""


async def keep_instances_advancing(doors: Doors) -> Sequence[Waking]:
    wakings: list[Waking] = []
    after = ""
    for _ in range(MAX_PAGES):
        page = await doors.list_unsettled(after)
        if not page:
            break
        after = page[-1].instance_id
        wakings += [Waking(ADVANCE_INSTANCE, u.organization, INSTANCE.aggregate, u.instance_id) for u in page]
    return wakings
