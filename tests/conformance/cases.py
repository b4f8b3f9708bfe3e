"""The `eventsourcing` library's own shipped test cases, bound to our persistence module, unmodified.

Each binding says where recorders come from, and nothing else. The library checks its AES cipher in passing, in an
implementation whose package we do not have; it has a second one on `cryptography`, which stands in under the first's
name. It must do so before the library's cases are imported.
"""

import os
import secrets
import sys
import unittest
from collections.abc import Sequence
from dataclasses import dataclass
from unittest import mock
from uuid import NAMESPACE_URL, uuid5

import eventsourcing.cryptography
import msgspec
from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    ProcessRecorder,
    StoredEvent,
    Tracking,
    TrackingRecorder,
)
from eventsourcing.utils import Environment

from infra.events.eventsourcing_module import Factory
from infra.events.eventsourcing_recorders import (
    JetStreamAggregateRecorder,
    JetStreamApplicationRecorder,
    JetStreamProcessRecorder,
    JetStreamTrackingRecorder,
)

sys.modules.setdefault("eventsourcing.cipher", eventsourcing.cryptography)

from eventsourcing.tests import application, persistence, projection  # noqa: E402 - the cipher first

COUNTERS = uuid5(NAMESPACE_URL, "/views/event-counters")


@dataclass
class Place:
    """Where the cases run; set before they do."""

    url: str = ""
    replicas: int = 1

    def environment(self) -> dict[str, str]:
        """For one case: streams of its own."""
        return {
            "PERSISTENCE_MODULE": Factory.__module__,
            "NATS_URL": self.url,
            "NATS_REPLICAS": str(self.replicas),
            "NATS_STREAM_PREFIX": f"T{secrets.token_hex(4)}",
        }


PLACE = Place()


class OnOurFactory(unittest.TestCase):
    def factory(self) -> Factory:
        factory = Factory(Environment("Conformance", PLACE.environment()))
        self.addCleanup(factory.close)
        return factory


class AggregateRecorderCase(OnOurFactory, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory().aggregate_recorder()


class SnapshotRecorderCase(OnOurFactory, persistence.AggregateRecorderTestCase):
    def create_recorder(self) -> AggregateRecorder:
        return self.factory().aggregate_recorder("snapshots")


class ApplicationRecorderCase(OnOurFactory, persistence.ApplicationRecorderTestCase[ApplicationRecorder]):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory().application_recorder()

    def test_insert_subscribe(self) -> None:
        self.optional_test_insert_subscribe()


class ProcessAsApplicationRecorderCase(ApplicationRecorderCase):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory().process_recorder()


class TrackingRecorderCase(OnOurFactory, persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> TrackingRecorder:
        return self.factory().tracking_recorder()


class ProcessAsTrackingRecorderCase(OnOurFactory, persistence.TrackingRecorderTestCase):
    def create_recorder(self) -> TrackingRecorder:
        return self.factory().process_recorder()


class ProcessRecorderCase(OnOurFactory, persistence.ProcessRecorderTestCase):
    def create_recorder(self) -> ProcessRecorder:
        return self.factory().process_recorder()


class NonInterleavingNotificationIDsCase(OnOurFactory, persistence.NonInterleavingNotificationIDsBaseCase):
    def create_recorder(self) -> ApplicationRecorder:
        return self.factory().application_recorder()


class EventCounters(JetStreamProcessRecorder, projection.EventCountersView):
    """The library's example of a view, in the same stream as its tracking: each change is a version of one record."""

    def get_created_event_counter(self) -> int:
        return self._counts()[1]

    def get_subsequent_event_counter(self) -> int:
        return self._counts()[2]

    def incr_created_event_counter(self, tracking: Tracking) -> None:
        self._increment(tracking, created=1)

    def incr_subsequent_event_counter(self, tracking: Tracking) -> None:
        self._increment(tracking, subsequent=1)

    def _increment(self, tracking: Tracking, created: int = 0, subsequent: int = 0) -> None:
        version, created_before, subsequent_before = self._counts()
        counts = msgspec.json.encode((created_before + created, subsequent_before + subsequent))
        self.insert_events([StoredEvent(COUNTERS, version + 1, "counts", counts)], tracking=tracking)

    def _counts(self) -> tuple[int, int, int]:
        """(version, created, subsequent)"""
        found = self.select_events(COUNTERS, desc=True, limit=1)
        if not found:
            return 0, 0, 0
        return found[0].originator_version, *msgspec.json.decode(found[0].state, type=tuple[int, int])


class FactoryCase(persistence.InfrastructureFactoryTestCase[Factory]):
    def setUp(self) -> None:
        self.env = Environment("Conformance", PLACE.environment())
        super().setUp()

    def expected_factory_class(self) -> type[Factory]:
        return Factory

    def expected_aggregate_recorder_class(self) -> type[AggregateRecorder]:
        return JetStreamAggregateRecorder

    def expected_application_recorder_class(self) -> type[ApplicationRecorder]:
        return JetStreamApplicationRecorder

    def expected_tracking_recorder_class(self) -> type[TrackingRecorder]:
        return JetStreamTrackingRecorder

    def tracking_recorder_subclass(self) -> type[TrackingRecorder]:
        return EventCounters

    def expected_process_recorder_class(self) -> type[ProcessRecorder]:
        return JetStreamProcessRecorder


class OnOurEnvironment(unittest.TestCase):
    """For the cases that let the library read the environment variables of the process."""

    def setUp(self) -> None:
        patched = mock.patch.dict(os.environ, PLACE.environment())
        patched.start()
        self.addCleanup(patched.stop)
        super().setUp()


class ExampleApplicationCase(OnOurEnvironment, application.ExampleApplicationTestCase):
    expected_factory_topic = f"{Factory.__module__}:Factory"


class ApplicationCase(OnOurEnvironment, application.ApplicationTestCase):
    pass


class EventCountersViewCase(OnOurFactory, projection.EventCountersViewTestCase):
    def construct_event_counters_view(self) -> projection.EventCountersView:
        view = self.factory().tracking_recorder(EventCounters)
        assert isinstance(view, EventCounters)
        return view


class AggregateEventCountersProjectionCase(OnOurEnvironment, projection.AggregateEventCountersProjectionTestCase):
    view_class = EventCounters


class EventSourcedProjectionCase(OnOurEnvironment, projection.EventSourcedProjectionTestCase):
    pass


BINDINGS: Sequence[type[unittest.TestCase]] = (
    AggregateRecorderCase,
    SnapshotRecorderCase,
    ApplicationRecorderCase,
    ProcessAsApplicationRecorderCase,
    TrackingRecorderCase,
    ProcessAsTrackingRecorderCase,
    ProcessRecorderCase,
    NonInterleavingNotificationIDsCase,
    FactoryCase,
    ExampleApplicationCase,
    ApplicationCase,
    EventCountersViewCase,
    AggregateEventCountersProjectionCase,
    EventSourcedProjectionCase,
)


def bound_cases() -> list[unittest.TestCase]:
    """Each case once; run it with `case.run(result)`."""
    names = unittest.defaultTestLoader.getTestCaseNames
    return [binding(name) for binding in BINDINGS for name in names(binding)]


def title(case: unittest.TestCase) -> str:
    """ApplicationRecorderCase.test_insert_select"""
    return case.id().removeprefix(f"{__name__}.")


def failures_of(case: unittest.TestCase) -> list[str]:
    """Runs it; what went wrong, with the traceback. A case that was skipped did not pass."""
    result = unittest.TestResult()
    case.run(result)
    wrong = [trace for _, trace in [*result.failures, *result.errors]]
    return wrong + [f"skipped: {reason}" for _, reason in result.skipped]
