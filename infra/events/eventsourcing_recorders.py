"""The `eventsourcing` library's recorders on JetStream: its synchronous interface, over the async core.

                 AggregateRecorder            TrackingRecorder
                   │ snapshots too              │ of which positions an application has processed
                 ApplicationRecorder ─────────── ProcessRecorder: new events and tracking in one atomic write
                   │ subscribe
                 JetStreamSubscription

A notification id is the position in the stream: consecutive within an insert, increasing for ever, with gaps where
tracking was recorded. The leader numbers as it commits, so no reader can see an id before a smaller one has appeared.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from eventsourcing.persistence import (
    AggregateRecorder,
    ApplicationRecorder,
    Notification,
    ProcessRecorder,
    StoredEvent,
    Subscription,
    Tracking,
    TrackingRecorder,
)

from infra.events.eventsourcing_datastore import JetStreamDatastore
from infra.events.eventsourcing_store import StreamStore
from infra.events.eventsourcing_subscription import JetStreamSubscription


class JetStreamRecorder:
    """What all recorders are made of.

    Args:
        datastore: runs the calls.
        store: the stream.
    """

    def __init__(self, datastore: JetStreamDatastore, store: StreamStore) -> None:
        self._datastore = datastore
        self._store = store


class JetStreamAggregateRecorder(JetStreamRecorder, AggregateRecorder):
    """Events (or snapshots) of aggregates. A version is taken once; gaps between versions are allowed."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:  # noqa: ARG002 - the library's signature
        """All or nothing; see StreamStore.insert for what is raised."""
        self._datastore.call(self._store.insert(stored_events))
        return None

    def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> Sequence[StoredEvent]:
        """By version; never stale."""
        return self._datastore.call(self._store.select_events(originator_id, gt=gt, lte=lte, desc=desc, limit=limit))


class JetStreamApplicationRecorder(JetStreamAggregateRecorder, ApplicationRecorder):
    """Events of aggregates, and all of them in the order in which they were recorded."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:  # noqa: ARG002 - the library's signature
        """All or nothing; returns a notification id for each event, consecutive."""
        return self._datastore.call(self._store.insert(stored_events))

    def select_notifications(
        self,
        start: int | None,
        limit: int,
        stop: int | None = None,
        topics: Sequence[str] = (),
        *,
        inclusive_of_start: bool = True,
    ) -> Sequence[Notification]:
        """In order, and never stale: what was inserted before is there."""
        first = 1 if start is None else start if inclusive_of_start else start + 1
        return self._datastore.call(self._store.select_notifications(first, limit, stop, topics))

    def max_notification_id(self) -> int | None:
        return self._datastore.call(self._store.max_notification_id())

    def subscribe(self, gt: int | None = None, topics: Sequence[str] = ()) -> Subscription[ApplicationRecorder]:
        """Notifications with id > gt, without end; stop it, or use it as a context manager."""
        return JetStreamSubscription(self, self._datastore, self._store, gt=gt, topics=topics)


class JetStreamTrackingRecorder(JetStreamRecorder, TrackingRecorder):
    """The last processed notification id of each upstream application; it only grows."""

    def insert_tracking(self, tracking: Tracking) -> None:
        self._datastore.call(self._store.insert((), tracking))

    def max_tracking_id(self, application_name: str) -> int | None:
        return self._datastore.call(self._store.max_tracking_id(application_name))


class JetStreamProcessRecorder(JetStreamTrackingRecorder, JetStreamApplicationRecorder, ProcessRecorder):
    """New events, and what they were made from, in one atomic write."""

    def insert_events(self, stored_events: Sequence[StoredEvent], **kwargs: Any) -> Sequence[int] | None:
        """All or nothing, with `tracking=` a Tracking or None; returns the notification ids of the events."""
        return self._datastore.call(self._store.insert(stored_events, kwargs.get("tracking")))
