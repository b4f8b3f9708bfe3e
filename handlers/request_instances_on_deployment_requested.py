"""Requests the N instances of a deployment. Their ids derive from the deployment's, so asking twice asks once.

The surprising rule: it looks at the deployment again when it has finished. Whoever stopped it meanwhile may have found
fewer instances than exist now.
"""

from domain.deployment import DEPLOYMENT, DeploymentRequested, instance_ids
from domain.ids import DeploymentId
from domain.instance import INSTANCE
from domain.instance_commands import RequestInstance
from domain.message import Context
from handlers.advance_instance import ACTOR
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Trigger
from handlers.stop_instances_on_deployment_stopped import stop_instances

NAME = "request_instances_on_deployment_requested"


async def request_instances_on_deployment_requested(trigger: Trigger, doors: Doors) -> Outcome:
    loaded = await doors.load(DEPLOYMENT, trigger.organization, trigger.id)
    request = loaded.state.request
    if request is None or loaded.state.refusal is not None:
        return Done(version=loaded.version)
    if not loaded.state.stopped:
        await _request_instances(request, trigger, doors)
        loaded = await doors.load(DEPLOYMENT, trigger.organization, trigger.id)
    if loaded.state.stopped:
        await stop_instances(request, trigger, doors)
    return Done(version=loaded.version)


async def _request_instances(request: DeploymentRequested, trigger: Trigger, doors: Doors) -> None:
    deployment_id = DeploymentId(trigger.id)
    context = Context(actor=ACTOR, correlation=trigger.correlation, cause=trigger.cause)
    for ordinal, instance_id in enumerate(instance_ids(deployment_id, request.instances), start=1):
        command = RequestInstance(
            deployment_id=deployment_id,
            ordinal=ordinal,
            model_code=request.model_code,
            engine=request.engine,
            provider=request.provider,
            zone=request.zone,
            instance_type=request.instance_type,
            gpu_count=request.gpu_count,
            vram_per_gpu_gb=request.vram_per_gpu_gb,
            price_eur_micros_per_hour=request.price_eur_micros_per_hour,
            startup_timeout_s=request.startup_timeout_s,
            activated=request.activated,
            alternatives=request.alternatives,
            disk_gb=request.disk_gb,
            context_tokens=request.context_tokens,
        )
        await doors.dispatch(INSTANCE, trigger.organization, instance_id, command, context)
