"""Decisions about what runs on an instance's server: its installation, its worker, the worker's tokens and health.

    bootstrap token ──register──> own token ──first heartbeat──> confirmed ──rotate──> offered ──used──> confirmed

A host reports as often as it likes; only what is new becomes an event. The surprising rule: a worker that had been
given up as too late, or as lost, is welcome back, unless its server was already given up for another.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from domain.decider import Rejected
from domain.instance_commands import (
    FailStartup,
    ObserveWorker,
    RecordBootstrapFailed,
    RecordBootstrapPhase,
    RecordSshReached,
    RecordWorkerLost,
    RegisterWorker,
    RotateWorkerToken,
    WorkerCommand,
)
from domain.instance_events import (
    MAX_BOOTSTRAP_WORDS,
    MAX_PROVIDER_WORDS,
    BootstrapFailed,
    BootstrapPhaseDone,
    EngineAnswered,
    EngineWarmedUp,
    InstanceEvent,
    InstanceReady,
    InstanceStartupFailed,
    ModelLoaded,
    SshReached,
    StartupResumed,
    WorkerDrained,
    WorkerLost,
    WorkerRegistered,
    WorkerTokenConfirmed,
    WorkerTokenRotated,
)
from domain.instance_state import COMING_UP, ENDED, Instance

DRAIN_GRACE_S = 2
"""A worker counts as drained only this long after the drain began: every gateway has read the event by then."""

Events = Sequence[InstanceEvent]


def decide_worker(state: Instance, command: WorkerCommand, at: datetime) -> Events:
    match command:
        case RecordSshReached():
            return [SshReached()] if state.status == "booting" else []
        case RecordBootstrapPhase():
            return _bootstrap_phase(state, command)
        case RecordBootstrapFailed():
            return _bootstrap_failed(state, command)
        case RegisterWorker():
            return _register(state, command)
        case RotateWorkerToken():
            return _rotate(state, command)
        case ObserveWorker():
            return _observe(state, command, at)
        case RecordWorkerLost():
            return [WorkerLost(reason=command.reason)] if state.status in {"ready", "starting"} else []
        case FailStartup():
            return _fail_startup(state, command)
        case _:
            assert_never(command)


def _bootstrap_phase(state: Instance, command: RecordBootstrapPhase) -> Events:
    if state.status not in {"booting", "installing"}:
        return []
    if state.bootstrap_phase == command.phase and state.bootstrap_failed_at is None:
        return []
    return [BootstrapPhaseDone(phase=command.phase)]


def _bootstrap_failed(state: Instance, command: RecordBootstrapFailed) -> Events:
    if state.status not in {"booting", "installing"} or state.bootstrap_failed_at is not None:
        return []
    return [BootstrapFailed(phase=command.phase, message=command.message[-MAX_BOOTSTRAP_WORDS:])]


def _register(state: Instance, command: RegisterWorker) -> Events:
    """The bootstrap token lives until the agent has used its own, so an agent that died in between can ask again."""
    if state.status in {*ENDED, "terminating"} or state.discarding:
        raise Rejected("instance_gone", "This instance is ending, or has given this server up; the agent may stop.")
    if state.worker_id is not None and state.token_confirmed:
        raise Rejected("token_already_exists", "This instance's worker already holds a token.")
    if state.token_sha256 == command.token_sha256:
        return []
    registered = WorkerRegistered(**{f: getattr(command, f) for f in WorkerRegistered.__struct_fields__})
    return [*_late_arrival(state), registered]


def _rotate(state: Instance, command: RotateWorkerToken) -> Events:
    """An offer that was not taken yet is replaced by the next one."""
    if state.worker_id is None or not state.token_confirmed:
        raise Rejected("worker_not_registered", "This instance has no worker that uses a token of its own.")
    if state.status in {*ENDED, "terminating"}:
        raise Rejected("instance_gone", "This instance is ending; its worker needs no new token.")
    if command.token_sha256 in {state.token_sha256, state.next_token_sha256}:
        return []
    return [WorkerTokenRotated(token_sha256=command.token_sha256, token_prefix=command.token_prefix)]


def _late_arrival(state: Instance) -> list[InstanceEvent]:
    too_late = state.status == "startup_failed" and state.error_code == "STARTUP_TIMEOUT"
    return [StartupResumed()] if too_late else []


def _observe(state: Instance, command: ObserveWorker, at: datetime) -> Events:
    if state.status in ENDED or state.discarding:
        raise Rejected("instance_gone", "This instance has ended, or has given this server up; the agent may stop.")
    news = _token_news(state, command)
    if _wrong_build(command) and state.status in COMING_UP:
        message = f"The agent reports build {command.agent_sha256[:12]}, not {command.expected_agent_sha256[:12]}."
        return [*news, InstanceStartupFailed(code="AGENT_CHECKSUM_FAILED", message=message)]
    resumed = _late_arrival(state)
    news += resumed
    if state.status in COMING_UP or resumed:
        news += _milestones(state, command)
        if command.status == "ready" and command.model_loaded and command.warmed_up:
            news.append(InstanceReady())
    elif state.status == "draining" and not state.drained and _is_idle(state, command, at):
        news.append(WorkerDrained())
    elif state.status == "ready" and not command.model_loaded:
        news.append(WorkerLost(reason="The engine no longer answers for the model."))
    return news


def _token_news(state: Instance, command: ObserveWorker) -> list[InstanceEvent]:
    uses_the_new_one = bool(state.next_token_sha256) and command.token_sha256 == state.next_token_sha256
    return [WorkerTokenConfirmed()] if uses_the_new_one or not state.token_confirmed else []


def _wrong_build(command: ObserveWorker) -> bool:
    return bool(command.expected_agent_sha256) and command.agent_sha256 != command.expected_agent_sha256


def _milestones(state: Instance, command: ObserveWorker) -> list[InstanceEvent]:
    news: list[InstanceEvent] = []
    if command.engine_up and not state.engine_answered:
        news.append(EngineAnswered())
    if command.model_loaded and not state.model_loaded:
        news.append(ModelLoaded(endpoints=command.endpoints, context_tokens=command.context_tokens))
    if command.warmed_up and not state.warmed_up:
        news.append(EngineWarmedUp())
    return news


def _is_idle(state: Instance, command: ObserveWorker, at: datetime) -> bool:
    if state.drain_started_at is None or command.queue_depth > 0:
        return False
    return at - state.drain_started_at >= timedelta(seconds=DRAIN_GRACE_S)


def _fail_startup(state: Instance, command: FailStartup) -> Events:
    if state.status not in COMING_UP:
        return []
    return [InstanceStartupFailed(code=command.code, message=command.message[:MAX_PROVIDER_WORDS])]
