"""Random operations give the same answers as the `eventsourcing` library's own recorders; a planted bug does not."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from eventsourcing.persistence import IntegrityError, Notification, StoredEvent, Tracking
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from infra.events.eventsourcing_recorders import JetStreamProcessRecorder
from tests.conformance.cases import PLACE
from tests.conformance.machine import RecorderMachine
from tests.conformance.servers import servers

SETTINGS = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck), database=None
)
UNTIL_THE_FIRST = settings(SETTINGS, max_examples=200, phases=[Phase.generate], report_multiple_bugs=False)
"""Whether it fails is asked, not what the smallest example is."""


@pytest.fixture(scope="module", autouse=True)
def place() -> Iterator[None]:
    with servers(1) as url:
        PLACE.url, PLACE.replicas = url, 1
        yield


def test_random_operations_give_the_answers_of_the_librarys_own_recorders() -> None:
    run_state_machine_as_test(RecorderMachine, settings=SETTINGS)


class Renumbers(JetStreamProcessRecorder):
    """Takes a version that is taken for the next free one: no version check."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        try:
            return super().insert_events(stored_events, **kwargs)
        except IntegrityError:
            free = 1000 + (self.max_notification_id() or 0)
            moved = [
                StoredEvent(event.originator_id, free + n, event.topic, event.state)
                for n, event in enumerate(stored_events)
            ]
            return super().insert_events(moved)


class DropsTheFifth(JetStreamProcessRecorder):
    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        ids = super().insert_events(stored_events[:4], **kwargs)
        return [*ids, *(ids[-1] + 1 for _ in stored_events[4:])] if ids else ids


class TracksApart(JetStreamProcessRecorder):
    """Events and tracking in two writes."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        tracking: Tracking | None = kwargs.get("tracking")
        if tracking is not None:
            self.insert_tracking(tracking)
        return super().insert_events(stored_events)


class ReadsOnePage(JetStreamProcessRecorder):
    """Filters by topic what it found within the limit."""

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        found = super().select_notifications(start, limit, stop, inclusive_of_start=inclusive_of_start)
        return [event for event in found if not topics or event.topic in topics]


class NeverForgets(JetStreamProcessRecorder):
    """Answers a question that was asked before from memory."""

    def select_events(self, originator_id: Any, **kwargs: Any) -> Sequence[StoredEvent]:
        remembered = self.__dict__.setdefault("remembered", {})
        key = (originator_id, *sorted(kwargs.items()))
        if key not in remembered:
            remembered[key] = super().select_events(originator_id, **kwargs)
        found: Sequence[StoredEvent] = remembered[key]
        return found


@pytest.mark.parametrize("planted", [Renumbers, DropsTheFifth, TracksApart, ReadsOnePage, NeverForgets])
def test_control_the_machine_finds_a_planted_bug(planted: type[JetStreamProcessRecorder]) -> None:
    machine = type("PlantedMachine", (RecorderMachine,), {"recorder_class": planted})
    with pytest.raises(AssertionError):
        run_state_machine_as_test(machine, settings=UNTIL_THE_FIRST)
