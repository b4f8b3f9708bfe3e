"""Gives an owner's host back in time: what runs on it drains before the slot ends.

    now ──────────── slot ends - drain deadline ──> StopInstance ──> drains, terminates ──> slot ends, host free

A host without slots serves always. The surprising rule: an instance is stopped, not moved. It comes back with the next
deployment; nothing here starts one when a slot opens.
"""

from collections.abc import Sequence

from domain.decider import Rejected
from domain.host import HOST, PROVIDER, open_for_s
from domain.instance import INSTANCE
from domain.instance_commands import StopInstance
from domain.instance_state import Status
from domain.message import Context
from handlers.ports import Doors, Owning, Waking

PERIOD_S = 30.0
MAX_PAGES = 40
REASON = "host_slot_ended"
STOPPING: frozenset[Status] = frozenset({"draining", "terminating"})
CONTEXT = Context(actor="system:handlers", correlation="")


async def keep_hosts_within_slots(doors: Doors) -> Sequence[Waking]:
    after = ""
    for _ in range(MAX_PAGES):
        page = await doors.list_owning(after, provider=PROVIDER)
        if not page:
            break
        after = page[-1].instance_id
        for one in page:
            await _stop_in_time(one, doors)
    return ()


async def _stop_in_time(one: Owning, doors: Doors) -> None:
    host_id = one.provider_instance_id.partition("/")[0]
    if not host_id or one.status in STOPPING:
        return
    facts = (await doors.load(HOST, one.organization, host_id)).state.facts
    deadline_s = doors.settings.drain_deadline_s
    if facts is None or open_for_s(facts.slots, doors.clock()) > deadline_s:
        return
    command = StopInstance(reason=REASON, drain_deadline_s=deadline_s)
    try:
        await doors.dispatch(INSTANCE, one.organization, one.instance_id, command, CONTEXT)
    except Rejected as refusal:
        if refusal.code != "instance_not_found":
            raise
