"""What an instance needs next, state by state."""

from datetime import timedelta

import pytest
from msgspec.structs import replace

from domain.activation import FLAGS, Flag
from domain.instance import INSTANCE
from domain.instance_events import (
    DrainStarted,
    InstanceActivated,
    InstanceDeactivated,
    InstanceStartupFailed,
    ReinstallRequested,
    ServerReinstalled,
    ServerSeenGone,
    ServerStarted,
    StartupResumed,
    TerminationRequested,
    WorkerDrained,
    WorkerLost,
)
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
from tests.domain.test_instance import BOOTING, CREATED, PROVISIONING, READY, REQUESTED, SERVER, TERMINATED
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


def test_a_lost_worker_gets_as_long_to_come_back() -> None:
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


def test_what_ended_or_failed_waits_for_a_person() -> None:
    failed = InstanceStartupFailed(code="STARTUP_TIMEOUT", message="late")
    assert step(*TERMINATED) == Wait(until=None)
    assert step(*BOOTING, failed) == Wait(until=None)
    assert step(*BOOTING, failed, StartupResumed()) == Wait(NOON + timedelta(seconds=300))
