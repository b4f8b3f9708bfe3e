"""What an instance needs next, state by state."""

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from domain.activation import FLAGS, Flag
from domain.instance import INSTANCE, OVERDUE_S
from domain.instance_events import (
    BootstrapFailed,
    BootstrapPhaseDone,
    DrainStarted,
    InstanceActivated,
    InstanceDeactivated,
    InstanceStartupFailed,
    PortsOpened,
    ReinstallRequested,
    ServerCreateFailed,
    ServerDiscarded,
    ServerReinstalled,
    ServerReplacementRequested,
    ServerSeenGone,
    ServerStarted,
    SshReached,
    StartupResumed,
    TerminationOverdue,
    TerminationRequested,
    VolumeDiscovered,
    VolumeResized,
    VolumeResizeFailed,
    VolumesListed,
    WorkerDrained,
    WorkerLost,
    WorkerRegistered,
)
from domain.instance_steps import (
    ATTEMPT_LIMIT_S,
    BOOTSTRAP_RETRY_S,
    FAILED_KEPT_S,
    GONE_RECHECK_S,
    MAX_REPLACEMENTS,
    REPLACE_AFTER_S,
    SSH_FALLBACK_S,
    SSH_LIMIT_S,
    Abilities,
    CreateServer,
    DeleteServer,
    DeleteVolume,
    FindAddress,
    GiveUpAttempt,
    GiveUpStartup,
    InstallBySsh,
    ListVolumes,
    MarkOverdue,
    OpenPorts,
    RecordIntent,
    ReinstallServer,
    ReplaceServer,
    ResizeBootVolume,
    StartServer,
    Step,
    Terminate,
    Wait,
    next_step,
)
from tests.domain.test_instance import BOOTING, CREATED, INTENDED, PROVISIONING, READY, REQUESTED, SERVER, TERMINATED
from tests.examples import example
from tests.given import NOON, state_after


def step(*history: object, after_s: float = 0) -> Step:
    return next_step(state_after(INSTANCE, history), NOON + timedelta(seconds=after_s))


def test_the_intent_comes_before_the_server() -> None:
    assert step(REQUESTED) == RecordIntent()
    assert step(*PROVISIONING) == CreateServer("inventiv-worker-1-1")


@pytest.mark.parametrize("flags", [(), ("technical",), ("economic",)])
def test_nothing_is_rented_before_both_flags_are_set(flags: tuple[Flag, ...]) -> None:
    waiting = replace(REQUESTED, activated=flags)
    missing = [flag for flag in FLAGS if flag not in flags]
    assert step(waiting) == Wait(until=None)
    assert step(waiting, *(InstanceActivated(flag=flag) for flag in missing)) == RecordIntent()


def test_a_flag_taken_away_later_stops_no_server() -> None:
    assert step(*PROVISIONING, InstanceDeactivated(flag="economic")) == CreateServer("inventiv-worker-1-1")


def test_a_created_server_is_started_and_then_looked_up() -> None:
    assert step(*PROVISIONING, CREATED) == StartServer("srv-1")
    assert step(*PROVISIONING, CREATED, ServerStarted()) == FindAddress("srv-1")


def test_a_booting_server_gets_until_its_deadline() -> None:
    assert step(*BOOTING) == Wait(NOON + timedelta(seconds=300))
    assert step(*BOOTING, after_s=299.9) == Wait(NOON + timedelta(seconds=300))
    assert step(*BOOTING, after_s=300) == GiveUpStartup(after_s=300)


def test_a_lost_worker_gets_five_minutes_to_come_back() -> None:
    lost_at = NOON + timedelta(hours=3)
    state = INSTANCE.evolve(state_after(INSTANCE, READY), WorkerLost(reason="silent"), lost_at)
    assert next_step(state, lost_at) == Wait(lost_at + timedelta(seconds=300))


def test_a_wanted_reinstall_is_done_before_anything_is_waited_for() -> None:
    assert step(*READY, ReinstallRequested()) == ReinstallServer("srv-1")
    assert step(*READY, ReinstallRequested(), ServerReinstalled()) == Wait(NOON + timedelta(seconds=300))


def test_a_ready_instance_wants_nothing() -> None:
    assert step(*READY) == Wait(until=None)


def test_a_drain_ends_when_drained_or_overdue() -> None:
    draining = (*READY, DrainStarted(reason="user", deadline_s=60))
    assert step(*draining) == Wait(NOON + timedelta(seconds=60))
    assert step(*draining, WorkerDrained()) == Terminate("user")
    assert step(*draining, after_s=60) == Terminate("user")


def test_termination_deletes_by_id_or_by_name() -> None:
    assert step(*SERVER, TerminationRequested(reason="user")) == DeleteServer("srv-1", "inventiv-worker-1-1")
    assert step(*PROVISIONING, TerminationRequested(reason="user")) == DeleteServer("", "inventiv-worker-1-1")


def test_the_second_look_waits_a_moment() -> None:
    once = (*SERVER, TerminationRequested(reason="user"), ServerSeenGone())
    assert step(*once) == Wait(NOON + timedelta(seconds=GONE_RECHECK_S))
    assert step(*once, after_s=GONE_RECHECK_S) == DeleteServer("srv-1", "inventiv-worker-1-1")


def test_what_ended_wants_nothing_any_more() -> None:
    assert step(*TERMINATED) == Wait(until=None)


def test_what_failed_can_be_looked_at_for_half_an_hour_and_then_ends() -> None:
    failed = (*BOOTING, InstanceStartupFailed(code="STARTUP_TIMEOUT", message="late"))
    assert step(*failed) == Wait(NOON + timedelta(seconds=FAILED_KEPT_S))
    assert step(*failed, after_s=FAILED_KEPT_S) == Terminate("startup_failed_cleanup")
    assert step(*failed, StartupResumed()) == Wait(NOON + timedelta(seconds=300))
    assert step(*PROVISIONING, example(ServerCreateFailed), after_s=FAILED_KEPT_S) == Terminate(
        "provisioning_failed_cleanup"
    )


def test_a_lost_worker_that_does_not_come_back_is_replaced_three_times_at_most() -> None:
    lost = (*READY, WorkerLost(reason="silent"))
    assert step(*lost, after_s=REPLACE_AFTER_S) == ReplaceServer(after_s=REPLACE_AFTER_S)
    given_up = replace(state_after(INSTANCE, lost), replacements=MAX_REPLACEMENTS)
    late = NOON + timedelta(seconds=REPLACE_AFTER_S)
    assert next_step(given_up, late) == GiveUpStartup(after_s=REPLACE_AFTER_S, code="RECOVERY_TIMEOUT")


def test_an_attempt_has_a_deadline_of_its_own() -> None:
    for history in (PROVISIONING, (*PROVISIONING, CREATED), SERVER):
        assert step(*history, after_s=ATTEMPT_LIMIT_S) == GiveUpAttempt(after_s=ATTEMPT_LIMIT_S)


RENTED = Abilities(has_volumes=True, has_ports=True, has_ssh=True, list_lag_s=5)
CREATED_WITH_DISK = (replace(REQUESTED, disk_gb=200), INTENDED, CREATED)
LISTED = (*CREATED_WITH_DISK, example(VolumeDiscovered), VolumesListed())
BOOTED = (replace(REQUESTED, startup_timeout_s=3600), *BOOTING[1:], example(PortsOpened))


def rented(*history: object, after_s: float = 0, **abilities: Any) -> Step:
    state = state_after(INSTANCE, history)
    return next_step(state, NOON + timedelta(seconds=after_s), replace(RENTED, **abilities))


def test_volumes_are_on_record_and_resized_before_power_on() -> None:
    assert rented(*CREATED_WITH_DISK) == ListVolumes("srv-1")
    assert rented(*LISTED) == ResizeBootVolume("vol-1", 200)
    assert rented(*LISTED, example(VolumeResized)) == StartServer("srv-1")
    assert rented(*PROVISIONING, CREATED, example(VolumeDiscovered), VolumesListed()) == StartServer("srv-1")


def test_a_volume_that_keeps_its_size_keeps_no_server_from_starting() -> None:
    assert rented(*LISTED, example(VolumeResizeFailed)) == StartServer("srv-1")


def test_a_provider_without_volumes_and_firewall_is_not_asked_for_them() -> None:
    assert step(*CREATED_WITH_DISK) == StartServer("srv-1")
    assert step(*BOOTING) == Wait(NOON + timedelta(seconds=300))


def test_ports_are_opened_when_the_server_has_its_address() -> None:
    assert rented(*BOOTING) == OpenPorts("srv-1")
    assert rented(*BOOTED) == Wait(NOON + timedelta(seconds=SSH_FALLBACK_S))


def test_a_machine_that_installs_itself_is_installed_by_ssh_when_it_never_reported_a_phase() -> None:
    assert rented(*BOOTED, after_s=SSH_FALLBACK_S) == InstallBySsh("127.8.0.1")
    reported = (*BOOTED, BootstrapPhaseDone(phase="start"))
    assert rented(*reported, after_s=SSH_FALLBACK_S) == Wait(NOON + timedelta(seconds=3600))
    assert rented(*BOOTED, after_s=SSH_FALLBACK_S, has_ssh=False) == Wait(NOON + timedelta(seconds=3600))


def test_a_machine_that_does_not_is_installed_at_once_and_must_be_reached_in_time() -> None:
    assert rented(*BOOTED, installs_itself=False) == InstallBySsh("127.8.0.1")
    assert rented(*BOOTED, installs_itself=False, after_s=SSH_LIMIT_S) == GiveUpStartup(
        SSH_LIMIT_S, "SSH_NOT_ACCESSIBLE"
    )
    reached = (*BOOTED, SshReached())
    assert rented(*reached, installs_itself=False, after_s=SSH_LIMIT_S) == InstallBySsh("127.8.0.1")


def test_an_installation_that_was_cut_off_is_taken_up_again_and_one_that_failed_after_a_while() -> None:
    begun = (*BOOTED, SshReached(), BootstrapPhaseDone(phase="docker_install"))
    assert rented(*begun) == InstallBySsh("127.8.0.1")
    failed = (*begun, example(BootstrapFailed))
    assert rented(*failed) == Wait(NOON + timedelta(seconds=BOOTSTRAP_RETRY_S))
    assert rented(*failed, after_s=BOOTSTRAP_RETRY_S) == InstallBySsh("127.8.0.1")


def test_an_installed_machine_is_left_to_its_worker() -> None:
    done = (*BOOTED, SshReached(), BootstrapPhaseDone(phase="done"))
    assert rented(*done, after_s=1000) == Wait(NOON + timedelta(seconds=3600))
    assert rented(*BOOTED, example(WorkerRegistered), after_s=1000) == Wait(NOON + timedelta(seconds=3600))


ENDING = (*SERVER, example(VolumeDiscovered), VolumesListed(), TerminationRequested(reason="user"))


def test_what_is_attached_when_the_end_begins_is_listed_once_more() -> None:
    assert rented(*ENDING) == ListVolumes("srv-1")
    assert rented(*ENDING, VolumesListed()) == DeleteServer("srv-1", "inventiv-worker-1-1")


def test_volumes_are_deleted_when_their_server_was_seen_gone_twice() -> None:
    once = (*ENDING, VolumesListed(), ServerSeenGone())
    assert rented(*once) == Wait(NOON + timedelta(seconds=5)), "the provider's listing lag"
    assert rented(*once, after_s=5) == DeleteServer("srv-1", "inventiv-worker-1-1")
    assert rented(*once, ServerSeenGone()) == DeleteVolume("vol-1")


def test_what_is_discarded_is_cleared_away_like_what_ends() -> None:
    replaced = (*READY, WorkerLost(reason="silent"), ServerReplacementRequested(reason="lost"))
    assert step(*replaced) == DeleteServer("srv-1", "inventiv-worker-1-1")
    assert rented(*replaced) == ListVolumes("srv-1")
    assert step(*replaced, ServerSeenGone(), ServerSeenGone(), example(ServerDiscarded)) == RecordIntent()


def test_an_end_that_takes_too_long_is_marked_once() -> None:
    ending = (*SERVER, TerminationRequested(reason="user"))
    assert step(*ending, after_s=OVERDUE_S) == MarkOverdue()
    assert step(*ending, TerminationOverdue(after_s=OVERDUE_S), after_s=OVERDUE_S) == DeleteServer(
        "srv-1", "inventiv-worker-1-1"
    )
