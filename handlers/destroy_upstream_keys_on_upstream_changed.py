"""Destroys the keys that a foreign upstream does not use any more: all of them once its deployment was stopped.

The surprising rule: a key that was kept after the current one stays. It is stored before the event that names it, so it
may be one whose event is about to come; what really was left behind, keep_upstream_keys_matching_deployments finds.
"""

from domain.deployment import DEPLOYMENT
from domain.ids import DeploymentId
from domain.upstream import credential_id_of
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Trigger

NAME = "destroy_upstream_keys_on_upstream_changed"


async def destroy_upstream_keys_on_upstream_changed(trigger: Trigger, doors: Doors) -> Outcome:
    loaded = await doors.load(DEPLOYMENT, trigger.organization, trigger.id)
    if loaded.state.upstream is not None:
        standing = loaded.state.standing_upstream
        current = credential_id_of(trigger.id, standing.key_digest) if standing else ""
        await doors.upstream_keys.destroy(trigger.organization, DeploymentId(trigger.id), but=current)
    return Done(version=loaded.version)
