"""What is written down of refused attempts and of exports, and how much of it at most."""

from contextlib import suppress
from datetime import timedelta

from hypothesis import given as for_all
from hypothesis import strategies as st

from domain.access import (
    ACCESS,
    MAX_EXPORTS_PER_MINUTE,
    MAX_RECORDED_PER_MINUTE,
    MAX_TARGET_LENGTH,
    WINDOW,
    AttemptDenied,
    AuditLogExported,
    RecordDenied,
    RecordExport,
    access_id_of,
)
from domain.decider import Rejected
from tests.given import NOON, given

DENIED = AttemptDenied(action="POST /instances", target="/instances", code="insufficient_permissions", unrecorded=0)
EXPORTED = AuditLogExported(format="csv", filters={"type": "ApiKeyIssued"})


def _command(unrecorded: int = 0, target: str = DENIED.target) -> RecordDenied:
    return RecordDenied(action=DENIED.action, target=target, code=DENIED.code, unrecorded=unrecorded)


def test_an_attempt_is_recorded() -> None:
    given().when(_command(unrecorded=3)).then(
        AttemptDenied(action=DENIED.action, target=DENIED.target, code=DENIED.code, unrecorded=3)
    )


def test_a_long_target_is_cut() -> None:
    cut = AttemptDenied(action=DENIED.action, target="x" * MAX_TARGET_LENGTH, code=DENIED.code, unrecorded=0)
    given().when(_command(target="x" * 1000)).then(cut)


def test_too_many_attempts_of_one_minute_are_left_out() -> None:
    given(*[DENIED] * MAX_RECORDED_PER_MINUTE).when(_command()).then_nothing()
    given(*[DENIED] * (MAX_RECORDED_PER_MINUTE - 1)).when(_command()).then(DENIED)


def test_an_export_is_recorded_and_too_many_are_refused() -> None:
    command = RecordExport(format="csv", filters={"type": "ApiKeyIssued"})
    given(*[DENIED] * MAX_RECORDED_PER_MINUTE).when(command).then(EXPORTED)
    given(*[EXPORTED] * MAX_EXPORTS_PER_MINUTE).when(command).then_rejected("too_many_exports")


def test_each_organisation_has_an_aggregate_of_its_own() -> None:
    assert access_id_of("acme", "u-1") == access_id_of("acme", "u-1")
    assert len({access_id_of("acme", "u-1"), access_id_of("globex", "u-1"), access_id_of("acme", "u-2")}) == 3


@for_all(pauses_s=st.lists(st.integers(0, 90), max_size=200))
def test_no_minute_holds_more_than_its_share(pauses_s: list[int]) -> None:
    """Windows begin with their first event, so any minute touches at most two of them."""
    state, at, recorded, exported = ACCESS.initial, NOON, [], []
    for pause_s in pauses_s:
        at += timedelta(seconds=pause_s)
        for event in ACCESS.decide(state, _command(), at):
            state = ACCESS.evolve(state, event, at)
            recorded.append(at)
        with suppress(Rejected):
            for event in ACCESS.decide(state, RecordExport(format="csv", filters={}), at):
                state = ACCESS.evolve(state, event, at)
                exported.append(at)
    for first in recorded:
        assert sum(first <= one < first + WINDOW for one in recorded) <= 2 * MAX_RECORDED_PER_MINUTE
    for first in exported:
        assert sum(first <= one < first + WINDOW for one in exported) <= 2 * MAX_EXPORTS_PER_MINUTE
    assert bool(recorded) == bool(pauses_s)
