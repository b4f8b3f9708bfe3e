"""The laws of an instance, in the order of SPEC 2.2's table of transitions."""

from typing import Any

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.decider import Rejected
from domain.instance import INSTANCE
from domain.instance_commands import (
    DRAIN_DEADLINE_S,
    GONE_CONFIRMATION_S,
    ArchiveInstance,
    FailStartup,
    InstanceCommand,
    IntendServerCreate,
    ObserveWorker,
    RecordAddress,
    RecordServerCreated,
    RecordServerCreateFailed,
    RecordServerGone,
    RecordServerReinstalled,
    RecordServerStarted,
    RecordServerStartFailed,
    RecordSshReached,
    RecordVolumeDeleted,
    RecordWorkerLost,
    RegisterWorker,
    RequestInstance,
    RequestReinstall,
    RequestTermination,
    StopInstance,
)
from domain.instance_events import (
    AddressAssigned,
    BootstrapPhaseDone,
    DrainStarted,
    EngineAnswered,
    EngineWarmedUp,
    InstanceArchived,
    InstanceBooted,
    InstanceReady,
    InstanceRequested,
    InstanceStartupFailed,
    InstanceTerminated,
    ModelLoaded,
    PortsOpened,
    ReinstallRequested,
    ServerCreated,
    ServerCreateFailed,
    ServerCreateIntended,
    ServerDiscarded,
    ServerReinstalled,
    ServerReplacementRequested,
    ServerSeenGone,
    ServerStarted,
    ServerStartFailed,
    SshReached,
    StartupResumed,
    TerminationRequested,
    VolumeDeleted,
    VolumeDiscovered,
    VolumeResized,
    WorkerDrained,
    WorkerLost,
    WorkerRegistered,
    WorkerTokenConfirmed,
)
from domain.instance_state import Instance
from domain.instance_worker import DRAIN_GRACE_S
from tests.examples import COMMAND_EXAMPLES, example
from tests.given import COMMANDS, NOON, given, state_after

REQUESTED = example(InstanceRequested)
INTENDED = example(ServerCreateIntended)
CREATED = example(ServerCreated)
ADDRESS = example(AddressAssigned)
REGISTERED = example(WorkerRegistered)
VOLUME = example(VolumeDiscovered)
HEALTHY = ObserveWorker(
    status="ready", engine_up=True, model_loaded=True, warmed_up=True, queue_depth=0, agent_sha256="b" * 64
)

PROVISIONING = (REQUESTED, INTENDED)
SERVER = (*PROVISIONING, CREATED, ServerStarted())
BOOTING = (*SERVER, ADDRESS, InstanceBooted())
STARTING = (*BOOTING, REGISTERED, WorkerTokenConfirmed())
READY = (*STARTING, EngineAnswered(), ModelLoaded(endpoints=(), context_tokens=0), EngineWarmedUp(), InstanceReady())
DRAINING = (*READY, DrainStarted(reason="user", deadline_s=300))
TERMINATING = (*READY, TerminationRequested(reason="user"))
TERMINATED = (*TERMINATING, ServerSeenGone(), ServerSeenGone(), InstanceTerminated(reason="user"))
STARTUP_TIMED_OUT = (*BOOTING, InstanceStartupFailed(code="STARTUP_TIMEOUT", message="Not ready after 300 s."))

HISTORIES: dict[str, tuple[Any, ...]] = {
    "provisioning": PROVISIONING,
    "provisioning_failed": (*PROVISIONING, example(ServerCreateFailed)),
    "booting": BOOTING,
    "installing": (*BOOTING, SshReached()),
    "starting": STARTING,
    "ready": READY,
    "draining": DRAINING,
    "unavailable": (*READY, WorkerLost(reason="silent")),
    "terminating": TERMINATING,
    "terminated": TERMINATED,
    "archived": (*TERMINATED, InstanceArchived()),
    "startup_failed": STARTUP_TIMED_OUT,
}


@pytest.mark.parametrize("status", HISTORIES)
def test_each_history_leads_to_its_state(status: str) -> None:
    assert state_after(INSTANCE, HISTORIES[status]).status == status


def test_a_request_begins_provisioning() -> None:
    given().when(example(RequestInstance)).then(REQUESTED)


def test_the_same_request_twice_is_one() -> None:
    given(REQUESTED).when(example(RequestInstance)).then_nothing()


@pytest.mark.parametrize("command", [c for c in COMMAND_EXAMPLES if type(c) in InstanceCommand.__args__])
def test_nothing_can_be_said_of_an_instance_that_was_never_requested(command: object) -> None:
    if not isinstance(command, RequestInstance):
        given().when(command).then_rejected("instance_not_found")


def test_the_intent_to_create_is_written_first() -> None:
    given(REQUESTED).when(IntendServerCreate(server_name="inventiv-worker-1-1")).then(INTENDED)


def test_one_intent_is_enough() -> None:
    given(*PROVISIONING).when(IntendServerCreate(server_name="other")).then_nothing()


def test_no_server_is_intended_once_termination_is_wanted() -> None:
    given(REQUESTED, TerminationRequested(reason="user")).when(IntendServerCreate(server_name="x")).then_rejected(
        "instance_not_provisioning"
    )


def test_a_created_server_is_recorded_once() -> None:
    given(*PROVISIONING).when(RecordServerCreated(provider_instance_id="srv-1")).then(CREATED)
    given(*PROVISIONING, CREATED).when(RecordServerCreated(provider_instance_id="srv-1")).then_nothing()


def test_a_second_server_is_never_accepted() -> None:
    given(*PROVISIONING, CREATED).when(RecordServerCreated(provider_instance_id="srv-2")).then_rejected(
        "another_server_recorded"
    )


def test_a_server_created_while_termination_was_asked_is_recorded_so_that_it_can_be_deleted() -> None:
    given(*PROVISIONING, TerminationRequested(reason="user")).when(
        RecordServerCreated(provider_instance_id="srv-1")
    ).then(CREATED)


def test_a_refusal_of_the_provider_fails_provisioning() -> None:
    given(*PROVISIONING).when(
        RecordServerCreateFailed(code="PROVIDER_CREATE_FAILED", message="The provider said no.")
    ).then(example(ServerCreateFailed))


def test_a_refusal_after_the_server_stands_is_ignored() -> None:
    given(*PROVISIONING, CREATED).when(RecordServerCreateFailed(code="X", message="late")).then_nothing()


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("PROVIDER_OUT_OF_STOCK", "provider_out_of_stock"),
        ("PROVIDER_START_TIMEOUT", "provider_start_timeout_cleanup"),
        ("PROVIDER_START_FAILED", "provider_start_failed_cleanup"),
    ],
)
def test_a_server_that_does_not_start_is_cleaned_up(code: str, reason: str) -> None:
    given(*PROVISIONING, CREATED).when(RecordServerStartFailed(code=code, message="No.")).then(
        ServerStartFailed(code=code, message="No."), TerminationRequested(reason=reason)
    )


def test_an_address_ends_provisioning() -> None:
    given(*SERVER).when(RecordAddress(ip_address="127.8.0.1")).then(ADDRESS, InstanceBooted())


def test_an_address_needs_a_created_server() -> None:
    given(*PROVISIONING).when(RecordAddress(ip_address="127.8.0.1")).then_rejected("server_not_created")


def test_late_news_of_provisioning_cannot_undo_termination() -> None:
    ending = (*PROVISIONING, CREATED, TerminationRequested(reason="user"))
    given(*ending).when(RecordServerStarted()).then_nothing()
    given(*ending).when(RecordAddress(ip_address="127.8.0.1")).then_nothing()


def test_an_open_ssh_port_begins_installation() -> None:
    given(*BOOTING).when(RecordSshReached()).then(SshReached())
    given(*READY).when(RecordSshReached()).then_nothing()


@pytest.mark.parametrize("status", ["booting", "installing"])
def test_a_registered_worker_is_starting(status: str) -> None:
    given(*HISTORIES[status]).when(example(RegisterWorker)).then(REGISTERED)
    assert state_after(INSTANCE, (*HISTORIES[status], REGISTERED)).status == "starting"


def test_a_worker_may_register_again_until_it_has_used_its_token() -> None:
    again = replace(example(RegisterWorker), token_sha256="f" * 64)
    given(*BOOTING, REGISTERED).when(again).then(replace(REGISTERED, token_sha256="f" * 64))
    given(*STARTING).when(again).then_rejected("token_already_exists")


@pytest.mark.parametrize("status", ["terminating", "terminated", "archived"])
def test_no_worker_registers_on_an_ending_instance(status: str) -> None:
    given(*HISTORIES[status]).when(example(RegisterWorker)).then_rejected("instance_gone")


def test_the_first_heartbeat_spends_the_bootstrap_token() -> None:
    waiting = replace(HEALTHY, status="starting", engine_up=False, model_loaded=False, warmed_up=False)
    given(*BOOTING, REGISTERED).when(waiting).then(WorkerTokenConfirmed())
    given(*STARTING).when(waiting).then_nothing()


def test_milestones_are_reported_once_each() -> None:
    loaded = replace(HEALTHY, status="starting", warmed_up=False)
    given(*STARTING).when(loaded).then(EngineAnswered(), ModelLoaded(endpoints=(), context_tokens=0))
    given(*STARTING, EngineAnswered(), ModelLoaded(endpoints=(), context_tokens=0)).when(loaded).then_nothing()


def test_what_the_engine_answers_is_told_with_the_model_and_forgotten_with_the_server() -> None:
    told = ModelLoaded(endpoints=("chat", "embeddings"), context_tokens=4096)
    given(*STARTING).when(replace(HEALTHY, endpoints=told.endpoints, context_tokens=4096)).then(
        EngineAnswered(), told, EngineWarmedUp(), InstanceReady()
    )
    for then, known in (((), (told.endpoints, 4096)), ((ReinstallRequested(),), ((), 0))):
        after = state_after(INSTANCE, [*STARTING, told, *then])
        assert (after.endpoints, after.context_tokens) == known


@pytest.mark.parametrize("status", ["starting", "unavailable"])
def test_good_health_makes_ready(status: str) -> None:
    outcome = given(*HISTORIES[status]).when(HEALTHY)
    assert outcome.events[-1:] == [InstanceReady()]


def test_a_model_that_is_not_loaded_is_not_ready() -> None:
    outcome = given(*STARTING).when(replace(HEALTHY, model_loaded=False))
    assert InstanceReady() not in outcome.events


def test_a_heartbeat_of_a_ready_worker_is_no_news() -> None:
    given(*READY).when(HEALTHY).then_nothing()


def test_a_wrong_agent_build_fails_the_startup() -> None:
    outcome = given(*STARTING).when(replace(HEALTHY, expected_agent_sha256="0" * 64))
    assert [type(e) for e in outcome.events] == [InstanceStartupFailed]
    assert outcome.events[0].code == "AGENT_CHECKSUM_FAILED"


@pytest.mark.parametrize("status", ["booting", "installing", "starting", "unavailable"])
def test_a_startup_that_takes_too_long_fails(status: str) -> None:
    given(*HISTORIES[status]).when(FailStartup(code="STARTUP_TIMEOUT", message="Not ready after 300 s.")).then(
        InstanceStartupFailed(code="STARTUP_TIMEOUT", message="Not ready after 300 s.")
    )


def test_a_ready_instance_cannot_fail_its_startup_any_more() -> None:
    given(*READY).when(FailStartup(code="STARTUP_TIMEOUT", message="late")).then_nothing()


def test_a_late_worker_revives_a_timed_out_startup() -> None:
    given(*STARTUP_TIMED_OUT).when(example(RegisterWorker)).then(StartupResumed(), REGISTERED)


def test_another_startup_failure_is_not_revived() -> None:
    failed = (*STARTING, InstanceStartupFailed(code="AGENT_CHECKSUM_FAILED", message="no"))
    given(*failed).when(HEALTHY).then_nothing()


def test_a_silent_worker_makes_a_ready_instance_unavailable() -> None:
    given(*READY).when(RecordWorkerLost(reason="silent")).then(WorkerLost(reason="silent"))
    given(*BOOTING).when(RecordWorkerLost(reason="silent")).then_nothing()


def test_stopping_a_ready_instance_drains_it_first() -> None:
    given(*READY).when(StopInstance(reason="user")).then(DrainStarted(reason="user", deadline_s=DRAIN_DEADLINE_S))


def test_stopping_twice_is_stopping_once() -> None:
    given(*DRAINING).when(StopInstance(reason="user")).then_nothing()
    given(*TERMINATING).when(StopInstance(reason="user")).then_nothing()


def test_a_draining_worker_is_drained_when_idle_and_every_gateway_knows() -> None:
    given(*DRAINING).later(DRAIN_GRACE_S).when(HEALTHY).then(WorkerDrained())


def test_an_idle_heartbeat_within_the_grace_does_not_end_the_drain() -> None:
    given(*DRAINING).later(DRAIN_GRACE_S - 0.1).when(HEALTHY).then_nothing()


def test_a_busy_worker_is_not_drained() -> None:
    given(*DRAINING).later(60).when(replace(HEALTHY, queue_depth=1)).then_nothing()


@pytest.mark.parametrize("status", sorted(set(HISTORIES) - {"terminating", "terminated", "archived"}))
def test_termination_is_possible_from_every_state_that_has_not_ended(status: str) -> None:
    outcome = given(*HISTORIES[status]).when(RequestTermination(reason="user"))
    assert outcome.events[0] == TerminationRequested(reason="user")


def test_what_never_had_a_server_ends_at_once() -> None:
    given(REQUESTED).when(RequestTermination(reason="user")).then(
        TerminationRequested(reason="user"), InstanceTerminated(reason="no_provider_resource")
    )


def test_an_unknown_creation_is_not_ended_before_it_is_looked_for() -> None:
    given(*PROVISIONING).when(RequestTermination(reason="user")).then(TerminationRequested(reason="user"))


def test_a_server_must_be_seen_gone_twice() -> None:
    given(*TERMINATING).when(RecordServerGone()).then(ServerSeenGone())
    given(*TERMINATING, ServerSeenGone()).when(RecordServerGone()).then_nothing()
    given(*TERMINATING, ServerSeenGone()).later(GONE_CONFIRMATION_S).when(RecordServerGone()).then(
        ServerSeenGone(), InstanceTerminated(reason="user")
    )


def test_a_volume_that_must_go_keeps_the_instance_terminating() -> None:
    with_volume = (*SERVER, VOLUME, TerminationRequested(reason="user"), ServerSeenGone())
    given(*with_volume).later(60).when(RecordServerGone()).then(ServerSeenGone())
    assert state_after(INSTANCE, (*with_volume, ServerSeenGone())).error_code == "VOLUMES_DELETE_PENDING"
    given(*with_volume, ServerSeenGone()).later(60).when(RecordVolumeDeleted(provider_volume_id="vol-1")).then(
        VolumeDeleted(provider_volume_id="vol-1"), InstanceTerminated(reason="user")
    )


def test_a_server_deleted_at_the_provider_ends_the_instance() -> None:
    given(*READY, ServerSeenGone()).later(60).when(RecordServerGone()).then(
        ServerSeenGone(), InstanceTerminated(reason="provider_deleted", deleted_by_provider=True)
    )


def test_an_uncreated_server_is_not_gone() -> None:
    given(*PROVISIONING).when(RecordServerGone()).then_nothing()


def test_only_a_terminated_instance_is_archived() -> None:
    given(*TERMINATED).when(ArchiveInstance()).then(InstanceArchived())
    given(*READY).when(ArchiveInstance()).then_rejected("instance_not_terminated")
    given(*HISTORIES["archived"]).when(ArchiveInstance()).then_nothing()


def test_a_reinstall_boots_again() -> None:
    given(*READY).when(RequestReinstall()).then(ReinstallRequested())
    after = state_after(INSTANCE, (*READY, ReinstallRequested()))
    assert (after.status, after.progress_percent, after.token_confirmed) == ("booting", 45, False)


def test_a_reinstall_is_done_once() -> None:
    wanted = (*READY, ReinstallRequested())
    given(*wanted).when(RequestReinstall()).then_nothing()
    given(*wanted).when(RecordServerReinstalled()).then(ServerReinstalled())
    given(*wanted, ServerReinstalled()).when(RecordServerReinstalled()).then_nothing()


def test_a_reinstall_that_failed_can_be_asked_for_again() -> None:
    failed = (*READY, ReinstallRequested(), InstanceStartupFailed(code="PROVIDER_REINSTALL_FAILED", message="No."))
    given(*failed).when(RequestReinstall()).then(ReinstallRequested())


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("terminating", "instance_terminating"),
        ("terminated", "instance_terminated"),
        ("archived", "instance_terminated"),
        ("provisioning", "instance_unreachable"),
    ],
)
def test_what_is_ending_or_has_no_address_is_not_reinstalled(status: str, code: str) -> None:
    given(*HISTORIES[status]).when(RequestReinstall()).then_rejected(code)


def test_progress_follows_the_milestones_of_the_newer_scale() -> None:
    steps: tuple[tuple[Any, int], ...] = (
        (REQUESTED, 5),
        (INTENDED, 5),
        (CREATED, 20),
        (VOLUME, 20),
        (VolumeResized(provider_volume_id="vol-1", size_gb=200), 25),
        (ServerStarted(), 30),
        (ADDRESS, 40),
        (PortsOpened(ports=(8000,)), 45),
        (InstanceBooted(), 45),
        (SshReached(), 50),
        (BootstrapPhaseDone(phase="docker_install"), 55),
        (BootstrapPhaseDone(phase="done"), 60),
        (REGISTERED, 60),
        (EngineAnswered(), 70),
        (ModelLoaded(endpoints=(), context_tokens=0), 80),
        (EngineWarmedUp(), 95),
        (InstanceReady(), 100),
    )
    state: Instance = INSTANCE.initial
    seen = []
    for event, _ in steps:
        state = INSTANCE.evolve(state, event, NOON)
        seen.append(state.progress_percent)
    assert seen == [percent for _, percent in steps]


@pytest.mark.parametrize("status", ["terminating", "terminated", "archived", "provisioning_failed", "startup_failed"])
def test_what_ends_or_failed_shows_no_progress(status: str) -> None:
    assert state_after(INSTANCE, HISTORIES[status]).progress_percent == 0


INSTANCE_COMMANDS = [c for c in COMMAND_EXAMPLES if COMMANDS[type(c)] is INSTANCE]
SITUATIONS = st.lists(st.sampled_from(INSTANCE_COMMANDS), max_size=40)


@forall(SITUATIONS)
def test_any_conversation_keeps_the_laws(commands: list[Any]) -> None:
    state: Instance = INSTANCE.initial
    ended = False
    for command in [example(RequestInstance), *commands]:
        before = state
        try:
            events = INSTANCE.decide(state, command, NOON)
        except Rejected:
            continue
        for event in events:
            state = INSTANCE.evolve(state, event, NOON)
        afresh = any(isinstance(e, ReinstallRequested | ServerReplacementRequested | ServerDiscarded) for e in events)
        assert afresh or state.milestone_percent >= before.milestone_percent
        assert state.provider_instance_id in {before.provider_instance_id, "srv-1", ""}
        assert not ended or state.status in {"terminated", "archived"}
        ended = state.status in {"terminated", "archived"}


@forall(SITUATIONS)
def test_news_told_twice_is_told_once(commands: list[Any]) -> None:
    state: Instance = INSTANCE.initial
    for command in [example(RequestInstance), *commands]:
        try:
            events = INSTANCE.decide(state, command, NOON)
            for event in events:
                state = INSTANCE.evolve(state, event, NOON)
            again = INSTANCE.decide(state, command, NOON)
        except Rejected:
            continue
        assert list(again) == [], (command, again)
