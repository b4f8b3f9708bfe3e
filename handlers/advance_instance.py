"""Drives one instance: asks the domain for the next step, does it through the Cloud, records what came of it.

    any event, a timer, the sweep ──> load ──> next_step ──> do it ──> record ──> load ... until Wait

It acts on the loaded truth, never on the event that woke it, so a doubled, late or lost waking changes nothing. A
server is created only after its intent is on record, and only when a look by its fixed name has certainly not found it.
"""

from typing import assert_never

from msgspec.structs import replace

from domain.ids import InstanceId, OrganizationId
from domain.instance import INSTANCE
from domain.instance_commands import (
    FailStartup,
    InstanceCommand,
    IntendServerCreate,
    RecordAddress,
    RecordServerCreated,
    RecordServerCreateFailed,
    RecordServerGone,
    RecordServerReinstalled,
    RecordServerStarted,
    RecordServerStartFailed,
    RequestTermination,
)
from domain.instance_events import InstanceRequested
from domain.instance_state import Instance
from domain.instance_steps import (
    GONE_RECHECK_S,
    CreateServer,
    DeleteServer,
    FindAddress,
    GiveUpStartup,
    RecordIntent,
    ReinstallServer,
    StartServer,
    Step,
    Terminate,
    Wait,
    next_step,
)
from domain.message import Context
from handlers.cloud_ports import Absent, Cloud, CloudRefusedError, Present, ServerRequest, Unknown
from handlers.outcome import Done, Outcome, Park, RetryAfter, pause_s
from handlers.ports import Doors, Trigger
from handlers.server_tags import Owner, server_name, tags_of

CloudStep = CreateServer | StartServer | FindAddress | ReinstallServer | DeleteServer

NAME = "advance_instance"
ACTOR = "system:handlers"
MAX_STEPS = 32
"""Steps in one waking; the whole life of an instance has fewer than ten."""
ADDRESS_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0, 144.0)
"""Between two looks for an address: SPEC 2.5's list, with quicker looks first for providers that have it at once."""
MEGABYTES_PER_GB = 1024


async def advance_instance(trigger: Trigger, doors: Doors) -> Outcome:
    context = Context(actor=ACTOR, correlation=trigger.correlation, cause=trigger.cause)
    for _ in range(MAX_STEPS):
        loaded = await doors.load(INSTANCE, trigger.organization, trigger.id)
        step = next_step(loaded.state, doors.clock())
        if isinstance(step, Wait):
            return Done(version=loaded.version, again_at=step.until)
        finding = await _do(step, loaded.state, trigger, doors)
        if isinstance(finding, Park):
            return finding
        if isinstance(finding, RetryAfter):
            return RetryAfter(finding.seconds, finding.reason, loaded.version)
        receipt = await doors.dispatch(INSTANCE, trigger.organization, trigger.id, finding, context)
        if not receipt.events:
            return RetryAfter(GONE_RECHECK_S, f"{type(finding).__name__} changed nothing yet", receipt.version)
        context = replace(context, cause=receipt.event_ids[-1])
    return RetryAfter(pause_s(trigger.attempt), f"not at rest after {MAX_STEPS} steps")


async def _do(step: Step, state: Instance, trigger: Trigger, doors: Doors) -> InstanceCommand | RetryAfter | Park:
    """Takes one step; what was found, as the command that records it."""
    match step:
        case RecordIntent():
            return await _intend(state, trigger, doors)
        case GiveUpStartup():
            return FailStartup(code="STARTUP_TIMEOUT", message=f"The worker was not ready within {step.after_s} s.")
        case Terminate():
            return RequestTermination(reason=step.reason)
        case CreateServer() | StartServer() | FindAddress() | ReinstallServer() | DeleteServer():
            return await _do_in_cloud(step, state, trigger, doors)
        case Wait():
            raise AssertionError("waiting is no deed")
        case _:
            assert_never(step)


async def _intend(state: Instance, trigger: Trigger, doors: Doors) -> InstanceCommand:
    provider = _provider(state)
    if await doors.clouds.of(trigger.organization, provider) is None:
        message = f"No adapter is configured for provider {provider}."
        return RecordServerCreateFailed(code="MISSING_PROVIDER_CREDENTIALS", message=message)
    return IntendServerCreate(server_name=server_name(trigger.id, state.attempt + 1))


async def _do_in_cloud(
    step: CloudStep, state: Instance, trigger: Trigger, doors: Doors
) -> InstanceCommand | RetryAfter | Park:
    cloud = await doors.clouds.of(trigger.organization, _provider(state))
    if cloud is None:  # a server may exist there: this must not be forgotten
        return Park(f"No adapter is configured for provider {_provider(state)}.")
    match step:
        case CreateServer():
            return await _create(state, trigger, doors, cloud)
        case StartServer():
            return await _start(step, cloud)
        case FindAddress():
            return await _find_address(step, trigger.attempt, cloud)
        case ReinstallServer():
            return await _reinstall(step, cloud)
        case DeleteServer():
            return await _delete(step, trigger.attempt, cloud)
        case _:
            assert_never(step)


def _provider(state: Instance) -> str:
    assert state.request is not None, "only a requested instance has steps"  # noqa: S101 - the impossible
    return state.request.provider


async def _create(state: Instance, trigger: Trigger, doors: Doors, cloud: Cloud) -> InstanceCommand | RetryAfter:
    """Looks first: an earlier call may have created the server although its answer never arrived."""
    found = await cloud.find_server(name=state.server_name)
    match found:
        case Present(server):
            return RecordServerCreated(provider_instance_id=server.provider_instance_id)
        case Unknown(reason):
            return RetryAfter(pause_s(trigger.attempt), reason)
        case Absent():
            try:
                server = await cloud.create_server(_server_request(state, trigger, doors))
            except CloudRefusedError as refused:
                return RecordServerCreateFailed(code=refused.code, message=refused.message)
            return RecordServerCreated(provider_instance_id=server.provider_instance_id)
        case _:
            assert_never(found)


async def _start(step: StartServer, cloud: Cloud) -> InstanceCommand:
    try:
        await cloud.start_server(step.provider_instance_id)
    except CloudRefusedError as refused:
        return RecordServerStartFailed(code=refused.code, message=refused.message)
    return RecordServerStarted()


async def _reinstall(step: ReinstallServer, cloud: Cloud) -> InstanceCommand:
    try:
        await cloud.reinstall_server(step.provider_instance_id)
    except CloudRefusedError as refused:
        return FailStartup(code=refused.code, message=refused.message)
    return RecordServerReinstalled()


async def _find_address(step: FindAddress, attempt: int, cloud: Cloud) -> InstanceCommand | RetryAfter:
    found = await cloud.find_server(provider_instance_id=step.provider_instance_id)
    match found:
        case Present(server) if server.ip_address:
            return RecordAddress(ip_address=server.ip_address)
        case Present():
            pause = ADDRESS_PAUSES_S[min(attempt, len(ADDRESS_PAUSES_S) - 1)]
            return RetryAfter(pause, "the server has no address yet")
        case Unknown(reason):
            return RetryAfter(pause_s(attempt), reason)
        case Absent():
            return RecordServerGone()
        case _:
            assert_never(found)


async def _delete(step: DeleteServer, attempt: int, cloud: Cloud) -> InstanceCommand | RetryAfter:
    """Deletes, then looks. A server found by name is recorded first, so that everybody knows what is being deleted."""
    if not step.provider_instance_id:
        found = await cloud.find_server(name=step.server_name)
        if isinstance(found, Present):
            return RecordServerCreated(provider_instance_id=found.server.provider_instance_id)
    else:
        await cloud.delete_server(step.provider_instance_id)
        found = await cloud.find_server(provider_instance_id=step.provider_instance_id)
    match found:
        case Absent():
            return RecordServerGone()
        case Unknown(reason):
            return RetryAfter(pause_s(attempt), reason)
        case Present():
            return RetryAfter(max(GONE_RECHECK_S, pause_s(attempt)), "the server is still being deleted")
        case _:
            assert_never(found)


def _server_request(state: Instance, trigger: Trigger, doors: Doors) -> ServerRequest:
    request = state.request
    assert request is not None, "only a requested instance has steps"  # noqa: S101 - the impossible
    owner = Owner(OrganizationId(trigger.organization), InstanceId(trigger.id), state.attempt)
    return ServerRequest(
        name=state.server_name,
        tags=tags_of(owner, doors.signer),
        zone=request.zone,
        instance_type=request.instance_type,
        agent_environment=_agent_environment(request, owner, doors),
    )


def _agent_environment(request: InstanceRequested, owner: Owner, doors: Doors) -> dict[str, str]:
    """SPEC 3.1. The bootstrap token is derived, so a repeated creation carries the same one."""
    simulated = request.engine == "simulated"
    return {
        "CONTROL_PLANE_URL": doors.settings.control_plane_url,
        "INSTANCE_ID": owner.instance_id,
        "MODEL_ID": request.model_code,
        "WORKER_AUTH_TOKEN": doors.secrets.bootstrap_token(owner.instance_id, owner.attempt),
        "WORKER_ENGINE": request.engine,
        "WORKER_HEARTBEAT_INTERVAL_S": str(doors.settings.heartbeat_interval_s),
        "WORKER_SIMULATE_GPU_COUNT": str(request.gpu_count if simulated else 0),
        "WORKER_SIMULATE_GPU_VRAM_MB": str(max(1, request.vram_per_gpu_gb) * MEGABYTES_PER_GB),
    }
