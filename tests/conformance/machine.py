"""The `eventsourcing` library's recorders in memory are the oracle of ours: to the same operations, the same answers.

    operation ──┬──> POPOProcessRecorder ──┐
                └──> ours, by one of two ──┴──> equal results, or IntegrityError from both
                     factories that share a stream, so that what one remembers grows old

Two things are translated. Ids: theirs count events, ours are positions in the stream with gaps where tracking lies, so
the machine pairs them in order. Order: theirs lists an originator's events as inserted, the contract (and the library's
SQL recorders) by version, so theirs are sorted before `desc` and `limit` apply.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import ClassVar, TypeVar
from uuid import UUID

from eventsourcing.persistence import IntegrityError, Notification, ProcessRecorder, StoredEvent, Tracking
from eventsourcing.popo import POPOProcessRecorder
from eventsourcing.utils import Environment
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from infra.events.eventsourcing_module import Factory
from infra.events.eventsourcing_recorders import JetStreamProcessRecorder
from tests.conformance.cases import PLACE

T = TypeVar("T")

ORIGINATORS: Sequence[UUID | str] = (
    UUID("00000000-0000-4000-8000-000000000001"),
    UUID("00000000-0000-4000-8000-000000000002"),
    "plain-text_3",
    "a.b *>\u20ac\n=41",
    "",
)
UPSTREAMS = ("bank", "bank.accounts")
TOPICS = ("bank:Opened", "bank:Closed", "shop:Ordered")
HIGHEST = 12

originators = st.sampled_from(ORIGINATORS)
upstreams = st.sampled_from(UPSTREAMS)
bounds = st.none() | st.integers(-1, HIGHEST)
limits = st.none() | st.integers(1, 5)
new_events = st.tuples(
    originators,
    st.none() | st.integers(0, HIGHEST),  # a version, or the next one
    st.sampled_from(TOPICS),
    st.binary(max_size=20),
)
trackings = st.tuples(upstreams, st.none() | st.integers(0, HIGHEST))  # an id, or the next one


class RecorderMachine(RuleBasedStateMachine):
    """See the module; `recorder_class` is what is tried."""

    recorder_class: ClassVar[type[JetStreamProcessRecorder]] = JetStreamProcessRecorder
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        environment = Environment("Machine", PLACE.environment())
        environment[Factory.PROCESS_RECORDER_TOPIC] = f"{self.recorder_class.__module__}:{self.recorder_class.__name__}"
        self.factories = (Factory(environment), Factory(environment))
        self.ours = tuple(factory.process_recorder() for factory in self.factories)
        self.theirs = POPOProcessRecorder()
        self.positions: list[int] = []

    def teardown(self) -> None:
        for factory in self.factories:
            factory.close()

    @rule(by=st.booleans(), wanted=st.lists(new_events, max_size=6), upstream=st.none() | trackings)
    def insert(
        self,
        by: bool,
        wanted: list[tuple[UUID | str, int | None, str, bytes]],
        upstream: tuple[str, int | None] | None,
    ) -> None:
        events = self._events(wanted)
        tracking = self._tracking(*upstream) if upstream else None
        expected = _outcome(lambda: self.theirs.insert_events(events, tracking=tracking))
        found = _outcome(lambda: self._ours(by).insert_events(events, tracking=tracking))
        if isinstance(expected, type) or isinstance(found, type):
            assert found == expected
            return
        positions = list(found or ())
        assert len(positions) == len(events)
        if positions:
            assert positions == list(range(positions[0], positions[0] + len(events))), "one insert is contiguous"
            assert not self.positions or positions[0] > self.positions[-1]
        self.positions += positions
        for originator_id in {event.originator_id for event in events}:
            self._compare(originator_id, by=not by)

    @rule(by=st.booleans(), upstream=trackings)
    def insert_tracking(self, by: bool, upstream: tuple[str, int | None]) -> None:
        tracking = self._tracking(*upstream)
        expected = _outcome(lambda: self.theirs.insert_tracking(tracking))
        assert _outcome(lambda: self._ours(by).insert_tracking(tracking)) == expected

    @rule(by=st.booleans(), originator_id=originators, gt=bounds, lte=bounds, desc=st.booleans(), limit=limits)
    def select_events(
        self, by: bool, originator_id: UUID | str, gt: int | None, lte: int | None, desc: bool, limit: int | None
    ) -> None:
        self._compare(originator_id, by=by, gt=gt, lte=lte, desc=desc, limit=limit)

    @rule(
        by=st.booleans(),
        start=st.none() | st.integers(-1, 20),
        stop=st.none() | st.integers(0, 40),
        limit=st.integers(1, 5) | st.integers(6, 60),
        topics=st.sampled_from([(), TOPICS[:1], TOPICS[1:]]),
        inclusive=st.booleans(),
    )
    def select_notifications(
        self, by: bool, start: int | None, stop: int | None, limit: int, topics: Sequence[str], inclusive: bool
    ) -> None:
        theirs = self.theirs.select_notifications(start, limit, stop, topics, inclusive_of_start=inclusive)
        found = self._ours(by).select_notifications(
            self._position(start), limit, self._position(stop), topics, inclusive_of_start=inclusive
        )
        assert found == self._translated(theirs)

    @rule(by=st.booleans())
    def max_notification_id(self, by: bool) -> None:
        assert self._ours(by).max_notification_id() == self._position(self.theirs.max_notification_id())

    @rule(by=st.booleans(), application_name=upstreams, notification_id=st.none() | st.integers(0, HIGHEST))
    def tracked(self, by: bool, application_name: str, notification_id: int | None) -> None:
        ours = self._ours(by)
        assert ours.max_tracking_id(application_name) == self.theirs.max_tracking_id(application_name)
        assert ours.has_tracking_id(application_name, notification_id) == self.theirs.has_tracking_id(
            application_name, notification_id
        )

    @precondition(lambda self: self.positions)
    @rule(by=st.booleans(), known=st.integers(0, 60))
    def subscribe(self, by: bool, known: int) -> None:
        known %= len(self.positions)
        theirs = self.theirs.select_notifications(known, len(self.positions), inclusive_of_start=False)
        with self._ours(by).subscribe(gt=self._position(known) if known else None) as subscription:
            assert list(islice(subscription, len(theirs))) == self._translated(theirs)

    def _compare(
        self,
        originator_id: UUID | str,
        *,
        by: bool,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> None:
        theirs = list(self.theirs.select_events(originator_id, gt=gt, lte=lte))
        theirs.sort(key=lambda event: event.originator_version, reverse=desc)
        found = self._ours(by).select_events(originator_id, gt=gt, lte=lte, desc=desc, limit=limit)
        assert found == theirs[:limit]
        assert all(type(event.originator_id) is type(originator_id) for event in found)

    def _ours(self, by: bool) -> ProcessRecorder:
        type(self).steps += 1
        return self.ours[by]

    def _events(self, wanted: list[tuple[UUID | str, int | None, str, bytes]]) -> list[StoredEvent]:
        events: list[StoredEvent] = []
        for originator_id, version, topic, state in wanted:
            known = [*self.theirs.select_events(originator_id), *events]
            newest = max((e.originator_version for e in known if e.originator_id == originator_id), default=0)
            events.append(StoredEvent(originator_id, newest + 1 if version is None else version, topic, state))
        return events

    def _tracking(self, application_name: str, notification_id: int | None) -> Tracking:
        if notification_id is None:
            notification_id = 1 + (self.theirs.max_tracking_id(application_name) or 0)
        return Tracking(application_name, notification_id)

    def _position(self, theirs: int | None) -> int | None:
        """Our id for theirs; beyond the end as far beyond."""
        if theirs is None or theirs < 1:
            return theirs
        if theirs <= len(self.positions):
            return self.positions[theirs - 1]
        return theirs - len(self.positions) + (self.positions[-1] if self.positions else 0)

    def _translated(self, theirs: Sequence[Notification]) -> list[Notification]:
        return [
            Notification(
                each.originator_id, each.originator_version, each.topic, each.state, self.positions[each.id - 1]
            )
            for each in theirs
        ]


def _outcome(operation: Callable[[], T]) -> T | type[IntegrityError]:
    try:
        return operation()
    except IntegrityError:
        return IntegrityError
