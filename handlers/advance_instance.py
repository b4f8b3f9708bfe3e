"""Drives one instance: asks the domain for the next step, does it through a port, records what came of it.

    any event, a timer, the sweep ──> load ──> next_step ──> do it ──> record ──> load ... until Wait

It acts on the loaded truth, never on the event that woke it, so a doubled, late or lost waking changes nothing. The
steps at a provider, and why an intent never gets two servers, are in instance_steps_in_cloud.py. The surprising rule:
a provider that is not certain is asked again for as long as it takes; only the domain's deadlines end an attempt.
"""

from typing import assert_never

from msgspec.structs import replace

from domain.instance import INSTANCE
from domain.instance_commands import (
    FailStartup,
    InstanceCommand,
    IntendServerCreate,
    RecordOverdue,
    RecordProviderTrouble,
    RecordServerCreateFailed,
    RecordServerStartFailed,
    RequestReplacement,
    RequestTermination,
)
from domain.instance_state import COMING_UP, START_TIMEOUT, Instance
from domain.instance_steps import (
    GONE_RECHECK_S,
    Abilities,
    CloudStep,
    DomainStep,
    GiveUpAttempt,
    GiveUpStartup,
    InstallBySsh,
    MarkOverdue,
    RecordIntent,
    ReplaceServer,
    Step,
    Terminate,
    Wait,
    deadline_of,
    next_step,
)
from domain.message import Context
from handlers.cloud_ports import Cloud
from handlers.install_by_ssh import install_by_ssh
from handlers.instance_look import Look, ProviderTroubleError, look_for_server
from handlers.instance_steps_in_cloud import Finding, take_in_cloud
from handlers.outcome import Done, Outcome, Park, RetryAfter, pause_s
from handlers.ports import Doors, Trigger
from handlers.server_tags import server_name

NAME = "advance_instance"
ACTOR = "system:handlers"
MAX_STEPS = 32
"""Steps in one waking; a life without trouble has fewer than twenty."""
MAX_RETRY_AFTER_S = 600.0
"""A provider that asks for a longer pause is asked again all the same."""
NO_ACCOUNT_PAUSE_S = 60.0
"""Between two looks whether credentials have come back."""


async def advance_instance(trigger: Trigger, doors: Doors) -> Outcome:
    context = Context(actor=ACTOR, correlation=trigger.correlation, cause=trigger.cause)
    cloud: Cloud | None = None
    intended_now = False
    for _ in range(MAX_STEPS):
        loaded = await doors.load(INSTANCE, trigger.organization, trigger.id)
        look = Look(state=loaded.state, trigger=trigger, doors=doors, intended_now=intended_now)
        if cloud is None and _asks_its_provider(loaded.state):
            cloud = await doors.clouds.of(look.organization, look.request.provider)
        step = next_step(loaded.state, look.now, abilities_of(cloud))
        if isinstance(step, Wait):
            return Done(version=loaded.version, again_at=step.until)
        try:
            finding = await _take(step, look, cloud)
        except ProviderTroubleError as trouble:
            return await _put_off(trouble, look, context)
        if isinstance(finding, Park):
            return finding
        if isinstance(finding, RetryAfter):
            return RetryAfter(_until_deadline(finding.seconds, look), finding.reason, loaded.version)
        receipt = await doors.dispatch(INSTANCE, trigger.organization, trigger.id, finding, context)
        if not receipt.events and receipt.version == loaded.version:
            return RetryAfter(GONE_RECHECK_S, f"{type(finding).__name__} changed nothing yet", receipt.version)
        if receipt.events:
            context = replace(context, cause=receipt.event_ids[-1])
            trigger = replace(trigger, attempt=0)  # it moved: pauses that had grown were about what is done now
        intended_now = isinstance(finding, IntendServerCreate) and bool(receipt.events)
    return RetryAfter(pause_s(trigger.attempt), f"not at rest after {MAX_STEPS} steps")


def abilities_of(cloud: Cloud | None) -> Abilities:
    if cloud is None:
        return Abilities()
    return Abilities(
        has_volumes=cloud.volumes is not None,
        has_ports=cloud.ports is not None,
        has_ssh=cloud.traits.reached_by_ssh,
        installs_itself=cloud.traits.installs_itself,
        list_lag_s=cloud.traits.list_lag_s,
    )


def _asks_its_provider(state: Instance) -> bool:
    """Others are driven by their worker, or by nobody: no need to open an account for each of their events."""
    if state.request is None:
        return False
    if state.status in COMING_UP:
        return state.worker_id is None or state.reinstall_wanted or not state.ports_open
    return state.status in {"provisioning", "terminating"}


async def _take(step: Step, look: Look, cloud: Cloud | None) -> Finding:
    """What was found, as the command that records it."""
    match step:
        case RecordIntent():
            return await _intend(look, cloud)
        case InstallBySsh():
            return await install_by_ssh(step, look)
        case GiveUpAttempt() | GiveUpStartup() | ReplaceServer() | Terminate() | MarkOverdue():
            return _decided(step)
        case Wait():
            raise AssertionError("waiting is no deed")
        case _:
            return await _take_in_cloud(step, look, cloud)


def _decided(step: DomainStep) -> InstanceCommand:
    match step:
        case GiveUpAttempt():
            return RecordServerStartFailed(code=START_TIMEOUT, message=f"No address within {step.after_s} s.")
        case GiveUpStartup():
            return FailStartup(code=step.code, message=_GIVEN_UP.get(step.code, _NOT_READY).format(step.after_s))
        case ReplaceServer():
            return RequestReplacement(reason=f"Its worker was lost, and did not come back within {step.after_s} s.")
        case Terminate():
            return RequestTermination(reason=step.reason)
        case MarkOverdue():
            return RecordOverdue()
        case _:
            assert_never(step)


_NOT_READY = "The worker was not ready within {} s."
_GIVEN_UP = {
    "SSH_NOT_ACCESSIBLE": "The server did not answer on SSH within {} s.",
    "RECOVERY_TIMEOUT": "The worker was lost again, and did not come back within {} s; no further server is tried.",
}


async def _intend(look: Look, cloud: Cloud | None) -> InstanceCommand:
    """Looks first: a provider that does not answer now would only use up attempts."""
    provider = look.request.provider
    if cloud is None:
        message = f"There is no account at provider {provider}: its credentials are missing, or it is unknown."
        return RecordServerCreateFailed(code="MISSING_PROVIDER_CREDENTIALS", message=message)
    place = look.state.place_of(look.state.next_choice)
    name = server_name(look.trigger.id, look.state.attempt + 1)
    await look_for_server(cloud, name=name, zone=place.zone if place else "")
    return IntendServerCreate(server_name=name)


async def _take_in_cloud(step: CloudStep, look: Look, cloud: Cloud | None) -> Finding:
    if cloud is None:  # a server may exist there: it is asked for until somebody gives credentials again
        words = f"There is no account at provider {look.request.provider} any more; its credentials are missing."
        raise ProviderTroubleError("open_account", "auth", words, retry_after_s=NO_ACCOUNT_PAUSE_S)
    return await take_in_cloud(step, look, cloud)


async def _put_off(trouble: ProviderTroubleError, look: Look, context: Context) -> RetryAfter:
    """Says what the provider said, once, and tries again after a growing pause, or the one that it asked for."""
    told = RecordProviderTrouble(call=trouble.call, kind=trouble.kind, message=trouble.message)
    trigger = look.trigger
    finding = trouble.finding or told
    receipt = await look.doors.dispatch(INSTANCE, trigger.organization, trigger.id, finding, context)
    seconds = max(pause_s(trigger.attempt), min(trouble.retry_after_s, MAX_RETRY_AFTER_S))
    reason = f"{trouble.call}: {trouble.message}"
    return RetryAfter(_until_deadline(seconds, look), reason, receipt.version)


def _until_deadline(seconds: float, look: Look) -> float:
    deadline = deadline_of(look.state)
    if deadline is None or deadline <= look.now:
        return seconds
    return min(seconds, (deadline - look.now).total_seconds())
