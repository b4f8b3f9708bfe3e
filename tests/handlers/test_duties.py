"""The standing duty that wakes what is not at rest; the others have a file of their own each."""

from domain.ids import InstanceId
from handlers.keep_instances_advancing import keep_instances_advancing
from handlers.ports import Unsettled, Waking
from tests.handlers.world import ACME, World


async def test_every_instance_that_is_not_at_rest_is_woken_page_by_page() -> None:
    world = World()
    world.unsettled = [Unsettled(ACME, InstanceId(f"instance-{n}")) for n in range(5)]
    wakings = await keep_instances_advancing(world.doors)
    assert wakings == [Waking("advance_instance", ACME, "instance", f"instance-{n}") for n in range(5)]
