"""The laws of an instance's servers: other places, replacements, volumes, what a provider said."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain.instance import INSTANCE, OVERDUE_S
from domain.instance_commands import (
    IntendServerCreate,
    RecordBootstrapFailed,
    RecordBootstrapPhase,
    RecordOverdue,
    RecordProviderTrouble,
    RecordServerCreated,
    RecordServerCreateFailed,
    RecordServerGone,
    RecordServerStarted,
    RecordServerStartFailed,
    RecordVolumeDeleted,
    RecordVolumeResizeFailed,
    RecordVolumes,
    RegisterWorker,
    RequestReinstall,
    RequestReplacement,
    RequestTermination,
    RotateWorkerToken,
    StopInstance,
)
from domain.instance_events import (
    MAX_PROVIDER_WORDS,
    BootstrapFailed,
    BootstrapPhaseDone,
    InstanceReady,
    InstanceTerminated,
    ProviderCallFailed,
    ServerCreated,
    ServerCreateFailed,
    ServerCreateIntended,
    ServerDiscarded,
    ServerReplacementRequested,
    ServerSeenGone,
    ServerStartFailed,
    StartupResumed,
    TerminationOverdue,
    TerminationRequested,
    VolumeDeleted,
    VolumeResizeFailed,
    VolumesListed,
    WorkerLost,
    WorkerTokenConfirmed,
    WorkerTokenRotated,
)
from domain.instance_evolve import SIGHTING_COUNTS_S
from domain.instance_state import CREATE_UNANSWERED, RATE_LIMITED, TRIES_IN_ONE_PLACE, Instance
from tests.domain.test_instance import (
    BOOTING,
    CREATED,
    DRAINING,
    HEALTHY,
    HISTORIES,
    INTENDED,
    READY,
    REQUESTED,
    TERMINATING,
    VOLUME,
)
from tests.examples import ELSEWHERE, example
from tests.given import given, state_after

OTHERS = (ELSEWHERE, replace(ELSEWHERE, zone="fr-par-1"))
WANTED = (replace(REQUESTED, alternatives=OTHERS), INTENDED)
CREATED_THERE = (*WANTED, CREATED)
NO_STOCK = ServerCreateFailed(attempt=1, code="PROVIDER_OUT_OF_STOCK", message="No L4 left.")
NOT_STARTED = ServerStartFailed(code="PROVIDER_OUT_OF_STOCK", message="No L4 left.")
DISCARDING = (*CREATED_THERE, NOT_STARTED)
LOST = (*READY, WorkerLost(reason="silent"))
REPLACING = (*LOST, ServerReplacementRequested(reason="Lost for 300 s."))
DISCARDED = ServerDiscarded(attempt=1, provider_instance_id="srv-1")
TWICE_GONE = (ServerSeenGone(), ServerSeenGone())


def after(*history: object) -> Instance:
    state = state_after(INSTANCE, history)
    assert isinstance(state, Instance)
    return state


def second(choice: int) -> ServerCreateIntended:
    return ServerCreateIntended(attempt=2, server_name="inventiv-worker-1-2", choice=choice)


INTEND_AGAIN = IntendServerCreate(server_name="inventiv-worker-1-2")


@pytest.mark.parametrize("code", ["PROVIDER_OUT_OF_STOCK", "PROVIDER_QUOTA_EXCEEDED"])
def test_no_room_at_create_tries_the_next_place(code: str) -> None:
    failed = replace(NO_STOCK, code=code)
    given(*WANTED).when(RecordServerCreateFailed(code=code, message=failed.message)).then(failed)
    state = after(*WANTED, failed)
    assert (state.status, state.may_own_a_server, state.error_code) == ("provisioning", False, code)
    given(*WANTED, failed).when(INTEND_AGAIN).then(second(choice=1))
    assert after(*WANTED, failed, second(choice=1)).place == ELSEWHERE


def test_when_no_place_is_left_provisioning_has_failed() -> None:
    last = (*WANTED, NO_STOCK, second(choice=2))
    assert after(*last, replace(NO_STOCK, attempt=2)).status == "provisioning_failed"


def test_another_refusal_tries_no_other_place() -> None:
    assert after(*WANTED, replace(NO_STOCK, code="PROVIDER_AUTH_FAILED")).status == "provisioning_failed"


@pytest.mark.parametrize("code", [CREATE_UNANSWERED, RATE_LIMITED])
def test_an_unanswered_create_is_tried_some_times_in_one_place_and_then_in_the_next(code: str) -> None:
    history: list[Any] = [WANTED[0]]
    for attempt in range(1, TRIES_IN_ONE_PLACE[code] + 1):
        state = after(*history)
        assert (state.status, state.next_choice) == ("provisioning", 0)
        history += [
            ServerCreateIntended(attempt=attempt, server_name=f"s-{attempt}"),
            ServerCreateFailed(attempt=attempt, code=code, message="no answer"),
        ]
    assert (after(*history).status, after(*history).next_choice) == ("provisioning", 1)


def test_an_attempt_that_is_abandoned_owns_no_server_that_may_appear_later() -> None:
    state = after(*WANTED, ServerCreateFailed(attempt=1, code=CREATE_UNANSWERED, message="no answer"))
    assert not state.may_own_a_server
    given(*WANTED, replace(NO_STOCK, code=CREATE_UNANSWERED)).when(
        RecordServerCreated(provider_instance_id="srv-1")
    ).then_nothing()


@pytest.mark.parametrize(
    "news",
    [
        RecordServerCreated(provider_instance_id="srv-1", attempt=1),
        RecordServerCreateFailed(code="PROVIDER_AUTH_FAILED", message="no", attempt=1),
        RecordServerGone(attempt=1),
    ],
)
def test_what_a_slower_look_learns_of_an_attempt_that_is_over_changes_nothing(news: Any) -> None:
    abandoned = ServerCreateFailed(attempt=1, code=CREATE_UNANSWERED, message="no answer")
    ending = TerminationRequested(reason="user")
    for present in ((*WANTED, abandoned, second(choice=0)), (*WANTED, abandoned, second(choice=0), ending)):
        given(*present).when(news).then_nothing()
    of_now = RecordServerCreated(provider_instance_id="srv-2", attempt=2)
    given(*WANTED, abandoned, second(choice=0)).when(of_now).then(
        ServerCreated(attempt=2, provider_instance_id="srv-2")
    )


@pytest.mark.parametrize("code", ["PROVIDER_OUT_OF_STOCK", "PROVIDER_QUOTA_EXCEEDED", "PROVIDER_START_TIMEOUT"])
def test_a_server_that_does_not_start_makes_room_for_the_next_place(code: str) -> None:
    given(*CREATED_THERE).when(RecordServerStartFailed(code=code, message="No L4 left.")).then(
        replace(NOT_STARTED, code=code)
    )
    state = after(*CREATED_THERE, replace(NOT_STARTED, code=code))
    assert (state.status, state.discarding, state.may_own_a_server) == ("provisioning", True, True)


def test_a_discarded_server_is_seen_gone_twice_and_its_volumes_go_before_the_next_attempt() -> None:
    discarding = (*CREATED_THERE, VOLUME, VolumesListed(), NOT_STARTED)
    given(*discarding).when(INTEND_AGAIN).then_nothing()
    given(*discarding).when(RecordServerGone()).then(ServerSeenGone())
    given(*discarding, ServerSeenGone()).later(60).when(RecordServerGone()).then(ServerSeenGone())
    given(*discarding, *TWICE_GONE).when(RecordVolumeDeleted(provider_volume_id="vol-1")).then(
        VolumeDeleted(provider_volume_id="vol-1"), DISCARDED
    )
    done = (*discarding, *TWICE_GONE, VolumeDeleted(provider_volume_id="vol-1"), DISCARDED)
    assert not after(*done).may_own_a_server
    given(*done).when(INTEND_AGAIN).then(second(choice=1))


def test_late_news_of_a_discarded_server_is_no_news() -> None:
    given(*DISCARDING).when(RecordServerStarted()).then_nothing()
    given(*DISCARDING).when(RecordServerStartFailed(code="PROVIDER_OUT_OF_STOCK", message="No.")).then_nothing()
    given(*DISCARDING).when(RequestReinstall()).then_rejected("instance_unreachable")


def test_a_kept_volume_survives_its_attempt() -> None:
    kept = replace(VOLUME, provider_volume_id="data", delete_on_terminate=False)
    state = after(*CREATED_THERE, kept, NOT_STARTED, *TWICE_GONE, DISCARDED)
    assert list(state.volumes) == ["data"]


@pytest.mark.parametrize("history", [WANTED, (*WANTED, NO_STOCK), DISCARDING, REPLACING], ids=len)
def test_whoever_asks_for_the_end_wins_over_every_alternative(history: tuple[Any, ...]) -> None:
    for asks in (RequestTermination(reason="user"), StopInstance(reason="user")):
        outcome = given(*history).when(asks)
        assert outcome.events[0] == TerminationRequested(reason="user")
        ending = (*history, *outcome.events)
        assert after(*ending).status in {"terminating", "terminated"}
        assert not [e for e in given(*ending).when(RecordServerGone()).events if isinstance(e, ServerDiscarded)]
        assert not given(*ending).when(RecordServerCreateFailed(code="PROVIDER_OUT_OF_STOCK", message="")).events


def test_between_two_attempts_an_instance_ends_at_once() -> None:
    for history in ((*WANTED, NO_STOCK), (*DISCARDING, *TWICE_GONE, DISCARDED)):
        given(*history).when(RequestTermination(reason="user")).then(
            TerminationRequested(reason="user"), InstanceTerminated(reason="no_provider_resource")
        )


@pytest.mark.parametrize("status", ["booting", "installing", "starting", "unavailable", "startup_failed"])
def test_a_lost_or_failed_server_is_replaced(status: str) -> None:
    wanted = ServerReplacementRequested(reason="Lost for 300 s.")
    given(*HISTORIES[status]).when(RequestReplacement(reason=wanted.reason)).then(wanted)
    state = after(*HISTORIES[status], wanted)
    assert (state.status, state.discarding, state.progress_percent) == ("provisioning", True, 5)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        ("ready", "instance_not_lost"),
        ("draining", "instance_not_lost"),
        ("provisioning_failed", "instance_not_lost"),
        ("terminating", "instance_terminating"),
        ("terminated", "instance_terminated"),
    ],
)
def test_a_server_that_works_or_is_ending_is_not_replaced(status: str, code: str) -> None:
    given(*HISTORIES[status]).when(RequestReplacement(reason="lost")).then_rejected(code)


def test_a_replacement_begins_with_the_place_that_was_asked_for() -> None:
    given(*REPLACING).when(RequestReplacement(reason="again")).then_nothing()
    given(*REPLACING, *TWICE_GONE, DISCARDED).when(INTEND_AGAIN).then(second(choice=0))


def test_a_replaced_worker_is_sent_home() -> None:
    given(*REPLACING).when(HEALTHY).then_rejected("instance_gone")
    given(*REPLACING).when(example(RegisterWorker)).then_rejected("instance_gone")


def test_a_late_heartbeat_revives_what_was_not_replaced_yet() -> None:
    assert given(*LOST).when(HEALTHY).events[-1] == InstanceReady()
    timed_out = HISTORIES["startup_failed"]
    assert given(*timed_out).when(HEALTHY).events[1] == StartupResumed()


def test_replacements_are_counted_until_one_is_ready() -> None:
    assert after(*REPLACING).replacements == 1
    assert after(*REPLACING, *TWICE_GONE, DISCARDED, second(0), *READY[2:]).replacements == 0


def test_two_sightings_lie_as_far_apart_as_the_listing_lags() -> None:
    once = (*TERMINATING, ServerSeenGone())
    given(*once).later(29).when(RecordServerGone(confirm_after_s=30)).then_nothing()
    given(*once).later(30).when(RecordServerGone(confirm_after_s=30)).then(
        ServerSeenGone(), InstanceTerminated(reason="user")
    )


def test_an_old_sighting_counts_no_more() -> None:
    given(*READY, ServerSeenGone()).later(SIGHTING_COUNTS_S + 1).when(RecordServerGone()).then(ServerSeenGone())


def test_a_server_deleted_by_somebody_else_does_not_leave_its_volumes_behind() -> None:
    vanished = (*READY, VOLUME, ServerSeenGone())
    given(*vanished).later(60).when(RecordServerGone()).then(
        ServerSeenGone(), TerminationRequested(reason="provider_deleted")
    )
    ending = (*vanished, ServerSeenGone(), TerminationRequested(reason="provider_deleted"))
    given(*ending).when(RecordVolumeDeleted(provider_volume_id="vol-1")).then(
        VolumeDeleted(provider_volume_id="vol-1"),
        InstanceTerminated(reason="provider_deleted", deleted_by_provider=True),
    )


def test_volumes_are_told_once_and_the_list_once() -> None:
    news = example(RecordVolumes)
    given(*CREATED_THERE).when(news).then(VOLUME, VolumesListed())
    given(*CREATED_THERE, VOLUME, VolumesListed()).when(news).then_nothing()
    given(*CREATED_THERE, VOLUME, VolumesListed(), TerminationRequested(reason="user")).when(news).then(VolumesListed())


def test_a_resize_that_failed_is_said_once() -> None:
    news = example(RecordVolumeResizeFailed)
    told = example(VolumeResizeFailed)
    given(*CREATED_THERE, VOLUME).when(news).then(told)
    given(*CREATED_THERE, VOLUME, told).when(news).then_nothing()


def test_the_same_trouble_is_told_again_only_when_something_has_moved() -> None:
    news, told = example(RecordProviderTrouble), example(ProviderCallFailed)
    given(*WANTED).when(news).then(told)
    given(*WANTED, told).when(news).then_nothing()
    given(*WANTED, told).when(replace(news, kind="auth")).then(replace(told, kind="auth"))
    given(*WANTED, told, CREATED).when(news).then(told)


def test_a_providers_words_are_kept_short() -> None:
    (told,) = given(*WANTED).when(RecordProviderTrouble(call="c", kind="k", message="x" * 10_000)).events
    assert len(told.message) == MAX_PROVIDER_WORDS


def test_an_end_that_takes_too_long_is_told_once() -> None:
    told = TerminationOverdue(after_s=OVERDUE_S)
    given(*TERMINATING).later(OVERDUE_S - 1).when(RecordOverdue()).then_nothing()
    given(*TERMINATING).later(OVERDUE_S).when(RecordOverdue()).then(told)
    given(*TERMINATING, told).later(OVERDUE_S).when(RecordOverdue()).then_nothing()
    given(*DRAINING).later(OVERDUE_S).when(RecordOverdue()).then_nothing()


def test_an_installation_reports_its_phases_and_one_failure_until_it_goes_on() -> None:
    start = RecordBootstrapPhase(phase="start")
    given(*BOOTING).when(start).then(BootstrapPhaseDone(phase="start"))
    installing = (*BOOTING, BootstrapPhaseDone(phase="start"))
    assert after(*installing).status == "installing"
    given(*installing).when(example(RecordBootstrapFailed)).then(example(BootstrapFailed))
    failed = (*installing, example(BootstrapFailed))
    given(*failed).when(RecordBootstrapFailed(phase="start", message="again")).then_nothing()
    given(*failed).when(start).then(BootstrapPhaseDone(phase="start"))
    assert after(*failed, BootstrapPhaseDone(phase="start")).bootstrap_failed_at is None


ROTATE, ROTATED = example(RotateWorkerToken), example(WorkerTokenRotated)


def test_a_rotated_token_counts_when_it_is_used_and_the_old_one_until_then() -> None:
    given(*READY).when(ROTATE).then(ROTATED)
    given(*READY, ROTATED).when(ROTATE).then_nothing()
    given(*READY, ROTATED).when(replace(HEALTHY, token_sha256="a" * 64)).then_nothing()
    given(*READY, ROTATED).when(replace(HEALTHY, token_sha256="e" * 64)).then(WorkerTokenConfirmed())
    state = after(*READY, ROTATED)
    assert (state.token_sha256, state.next_token_sha256) == ("a" * 64, "e" * 64)
    state = after(*READY, ROTATED, WorkerTokenConfirmed())
    assert (state.token_sha256, state.next_token_sha256) == ("e" * 64, "")


def test_only_a_worker_with_a_token_of_its_own_gets_another() -> None:
    given(*BOOTING).when(ROTATE).then_rejected("worker_not_registered")
    given(*TERMINATING).when(ROTATE).then_rejected("instance_gone")


def test_histories_from_before_there_were_alternatives_mean_what_they_meant() -> None:
    """ServerStartFailed was followed by TerminationRequested, and discarded nothing."""
    assert not after(REQUESTED, INTENDED, CREATED, NOT_STARTED).discarding
    assert after(REQUESTED, INTENDED, NO_STOCK).status == "provisioning_failed"
