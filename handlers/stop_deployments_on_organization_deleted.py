"""Stops what a deleted organisation still wants: a deployment that came between the last check and the deletion.

The surprising rule: it looks once more after a while. A request that was let in just before the deletion may be
recorded just after it, and nobody would be left who could stop it.
"""

from datetime import timedelta

from domain.deployment import DEPLOYMENT, StopDeployment
from domain.message import Context
from domain.organization import ORGANIZATION
from handlers.advance_instance import ACTOR
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Trigger

NAME = "stop_deployments_on_organization_deleted"
SETTLE_S = 45.0
"""Longer than a request can be on its way: an append is tried for 20 s, a read waits for less."""
LOOK_AGAIN_S = 1.0


async def stop_deployments_on_organization_deleted(trigger: Trigger, doors: Doors) -> Outcome:
    loaded = await doors.load(ORGANIZATION, trigger.organization, trigger.id)
    deleted_at = loaded.state.deleted_at
    if deleted_at is None:
        return Done(version=loaded.version)
    standing = await doors.list_standing(trigger.organization, position=loaded.position)
    context = Context(actor=ACTOR, correlation=trigger.correlation, cause=trigger.cause)
    for deployment_id in standing:
        await doors.dispatch(DEPLOYMENT, trigger.organization, deployment_id, StopDeployment(), context)
    now, settled_at = doors.clock(), deleted_at + timedelta(seconds=SETTLE_S)
    if standing:  # a page of them; the next look finds the rest, or none
        return Done(version=loaded.version, again_at=now + timedelta(seconds=LOOK_AGAIN_S))
    return Done(version=loaded.version, again_at=settled_at if now < settled_at else None)
