"""Stops every instance of a deployment that is no longer wanted; running answers finish first."""

from domain.decider import Rejected
from domain.deployment import DEPLOYMENT, DeploymentRequested, instance_ids
from domain.ids import DeploymentId
from domain.instance import INSTANCE
from domain.instance_commands import StopInstance
from domain.message import Context
from handlers.advance_instance import ACTOR
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Trigger

NAME = "stop_instances_on_deployment_stopped"


async def stop_instances_on_deployment_stopped(trigger: Trigger, doors: Doors) -> Outcome:
    loaded = await doors.load(DEPLOYMENT, trigger.organization, trigger.id)
    if loaded.state.stopped and loaded.state.request is not None:
        await stop_instances(loaded.state.request, trigger, doors)
    return Done(version=loaded.version)


async def stop_instances(request: DeploymentRequested, trigger: Trigger, doors: Doors) -> None:
    """Asks all of them to stop; one that was never requested has nothing to stop."""
    command = StopInstance(reason="deployment_stopped", drain_deadline_s=doors.settings.drain_deadline_s)
    context = Context(actor=ACTOR, correlation=trigger.correlation, cause=trigger.cause)
    for instance_id in instance_ids(DeploymentId(trigger.id), request.instances):
        try:
            await doors.dispatch(INSTANCE, trigger.organization, instance_id, command, context)
        except Rejected as refusal:
            if refusal.code != "instance_not_found":
                raise
