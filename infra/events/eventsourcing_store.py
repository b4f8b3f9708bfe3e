"""The async core of our persistence module for the `eventsourcing` library: its records on one JetStream stream.

    insert: heads of the originators ──> every version new? ──> one append (a publish or one atomic batch) ──> ids
              │ remembered, or one             │ no: IntegrityError      │ Conflict: somebody wrote
              │ read through the leader        │ (after a fresh look)    └──> look afresh, and again
              └────────────────────────────────┘

The library asks "is version v new?", JetStream asks "is n the last position on this subject?". So a head remembers both
of each originator. The surprising rule: what is remembered may be old, and that is safe, because an append on an old
head is refused; only a rejection must not rest on it, so before IntegrityError the leader is asked.
"""

import itertools
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol
from uuid import UUID

import msgspec
from eventsourcing.persistence import IntegrityError, Notification, OperationalError, StoredEvent, Tracking

from infra.events.eventsourcing_messages import (
    StoredMessage,
    Versions,
    decode_event,
    decode_tracking,
    encode_event,
    encode_tracking,
    event_subject,
    events_subject,
    is_event,
    tracking_subject,
)
from infra.events.port import FOLLOWS, Append, Conflict
from infra.events.reads import PAGE_MESSAGES, Stored

HEADS_MAX = 10_000
"""Originators whose head is remembered: some 3 MB. Another costs one read through the leader, 0.2 ms."""
ROUNDS_MAX = 100
"""Appends that may lose to others in a row. A writer of consecutive versions loses once, for its version is taken."""
WHOLE_STREAM = ">"


class Head(msgspec.Struct, frozen=True):
    """What an append on a subject must follow.

    Attributes:
        position: of the subject's last message; 0 before the first.
        versions: of the originator; for a tracking subject, `highest` is the notification id.
    """

    position: int = 0
    versions: Versions = Versions()


class RecordLog(Protocol):
    """What the store asks of a log; see JetStreamLog."""

    async def append(self, appends: Sequence[Append]) -> int: ...

    async def read_stored(self, subject: str, *, after: int = 0, limit: int | None = None) -> list[Stored]: ...

    async def last_stored(self, subject: str) -> Stored | None: ...


class StreamStore:
    """Stored events, notifications and tracking records in one stream.

    Args:
        log: on the stream; from one event loop only, like this object.
        stream: its name, which all subjects begin with.
    """

    def __init__(self, log: RecordLog, stream: str) -> None:
        self.stream = stream
        self._log = log
        self._heads: OrderedDict[str, Head] = OrderedDict()

    async def insert(self, events: Sequence[StoredEvent], tracking: Tracking | None = None) -> list[int]:
        """Stores all or nothing; returns the position of each event, consecutive and in order.

        Raises:
            IntegrityError: a version is stored already or stands twice; or the tracking id is not beyond the last.
            AppendRefusedError: the server can never store it: too large, or more than 1,000 records.
            LogUnavailableError: unreachable, or unknown within the budget.
        """
        if not events and tracking is None:
            return []
        _refuse_repeats(events)
        message_ids = [secrets.token_hex(16) for _ in range(len(events) + 1)]
        fresh = False
        for _ in range(ROUNDS_MAX):
            try:
                appends, heads = await self._plan(events, tracking, message_ids, fresh=fresh)
                last = await self._log.append(appends)
            except Conflict:
                fresh = True
            except IntegrityError:
                if fresh:
                    raise
                fresh = True
            else:
                self._remember_written(events, tracking, heads, last)
                return list(range(last - len(events) + 1, last + 1))
        raise OperationalError(f"{self.stream}: other writers were first {ROUNDS_MAX} times in a row")

    async def select_events(
        self,
        originator_id: UUID | str,
        *,
        gt: int | None = None,
        lte: int | None = None,
        desc: bool = False,
        limit: int | None = None,
    ) -> list[StoredEvent]:
        """Events of one originator by version, as the library asks for them; never stale."""
        subject = event_subject(self.stream, originator_id)
        if desc and limit == 1:
            newest = await self._newest(subject)
            if newest is None:
                return []
            version = newest.event.originator_version
            if version == newest.versions.highest and (lte is None or version <= lte):
                return [newest.event] if gt is None or version > gt else []
        found = [message.event for message in await self._read(subject, gt)]
        chosen = [
            event
            for event in found
            if (gt is None or event.originator_version > gt) and (lte is None or event.originator_version <= lte)
        ]
        chosen.sort(key=lambda event: event.originator_version, reverse=desc)
        return chosen[:limit]

    async def select_notifications(
        self, first: int, limit: int, stop: int | None = None, topics: Sequence[str] = ()
    ) -> list[Notification]:
        """At most `limit` events with first <= position <= stop, in order, of these topics if any; never stale."""
        found: list[Notification] = []
        after = max(first, 1) - 1
        while len(found) < limit and (stop is None or after < stop):  # each page moves on
            wanted = PAGE_MESSAGES if topics else limit - len(found)
            page = await self._log.read_stored(WHOLE_STREAM, after=after, limit=wanted)
            found += self.notifications(page, topics, stop=stop)
            if len(page) < wanted:
                break
            after = page[-1].position
        return found[:limit]

    def notifications(
        self, messages: Iterable[Stored], topics: Sequence[str], *, stop: int | None = None
    ) -> list[Notification]:
        """The events among messages; those of the topics, if any are named.

        Raises:
            UnreadableMessageError: something else wrote into the stream.
        """
        events = (
            self._decode(message).notification()
            for message in messages
            if is_event(self.stream, message.subject) and (stop is None or message.position <= stop)
        )
        return [event for event in events if not topics or event.topic in topics]

    async def max_notification_id(self) -> int | None:
        """Position of the newest event; None before the first."""
        newest = await self._log.last_stored(WHOLE_STREAM)
        if newest is not None and not is_event(self.stream, newest.subject):
            newest = await self._log.last_stored(events_subject(self.stream))
        return newest.position if newest else None

    async def max_tracking_id(self, application_name: str) -> int | None:
        """The notification id recorded last for an upstream application; None before the first."""
        head = await self._look_tracked(tracking_subject(self.stream, application_name))
        return head.versions.highest if head.position else None

    async def _plan(
        self, events: Sequence[StoredEvent], tracking: Tracking | None, message_ids: Sequence[str], *, fresh: bool
    ) -> tuple[list[Append], dict[str, Head]]:
        """What to append, on heads that are read anew when `fresh`.

        Raises:
            IntegrityError: it must not be appended.
        """
        ids = iter(message_ids)
        appends: list[Append] = []
        if tracking is not None:
            subject = tracking_subject(self.stream, tracking.application_name)
            tracked = (None if fresh else self._heads.get(subject)) or await self._look_tracked(subject)
            if tracked.position and tracking.notification_id <= tracked.versions.highest:
                raise IntegrityError(f"{tracking} is not beyond {tracked.versions.highest}, which is recorded already")
            appends.append(Append(subject, tracked.position, ((next(ids), encode_tracking(tracking)),)))
        heads: dict[str, Head] = {}
        for subject, group in itertools.groupby(events, lambda event: event_subject(self.stream, event.originator_id)):
            begun = subject in heads
            head = (
                heads[subject] if begun else (None if fresh else self._heads.get(subject)) or await self._look(subject)
            )
            versions, messages = head.versions, []
            for event in group:
                await self._refuse_stored(subject, event, versions)
                versions = versions.adding(event.originator_version)
                messages.append((next(ids), encode_event(event, versions)))
            heads[subject] = Head(head.position, versions)
            appends.append(Append(subject, FOLLOWS if begun else head.position, tuple(messages)))
        return appends, heads

    async def _refuse_stored(self, subject: str, event: StoredEvent, versions: Versions) -> None:
        stored = versions.have(event.originator_version)
        if stored is None:
            stored = any(
                message.event.originator_version == event.originator_version
                for message in await self._read(subject, None)
            )
        if stored:
            raise IntegrityError(f"version {event.originator_version} of {event.originator_id} is stored already")

    def _remember_written(
        self, events: Sequence[StoredEvent], tracking: Tracking | None, heads: dict[str, Head], last: int
    ) -> None:
        first = last - len(events) + 1
        at = {event_subject(self.stream, event.originator_id): first + n for n, event in enumerate(events)}
        for subject, head in heads.items():
            self._remember(subject, Head(at[subject], head.versions))
        if tracking is not None:
            subject = tracking_subject(self.stream, tracking.application_name)
            self._remember(subject, Head(first - 1, Versions(highest=tracking.notification_id)))

    def _remember(self, subject: str, head: Head) -> None:
        self._heads[subject] = head
        self._heads.move_to_end(subject)
        if len(self._heads) > HEADS_MAX:
            self._heads.popitem(last=False)

    async def _look(self, subject: str) -> Head:
        """The head of an originator, from the leader."""
        newest = await self._newest(subject)
        return Head(newest.position, newest.versions) if newest else Head()

    async def _look_tracked(self, subject: str) -> Head:
        last = await self._log.last_stored(subject)
        if last is None:
            return Head()
        head = Head(last.position, Versions(highest=decode_tracking(last)))
        self._remember(subject, head)
        return head

    async def _newest(self, subject: str) -> StoredMessage | None:
        last = await self._log.last_stored(subject)
        if last is None:
            return None
        newest = self._decode(last)
        self._remember(subject, Head(newest.position, newest.versions))
        return newest

    async def _read(self, subject: str, gt: int | None) -> list[StoredMessage]:
        """Messages of an originator; all whose version is greater than `gt` are among them."""
        head = self._heads.get(subject, Head())
        after = head.position if gt is not None and gt >= head.versions.highest else 0
        found = [self._decode(message) for message in await self._log.read_stored(subject, after=after)]
        if found:
            self._remember(subject, Head(found[-1].position, found[-1].versions))
        return found

    def _decode(self, message: Stored) -> StoredMessage:
        return decode_event(self.stream, message.position, message.subject, message.payload)


def _refuse_repeats(events: Sequence[StoredEvent]) -> None:
    if len({(str(event.originator_id), event.originator_version) for event in events}) < len(events):
        raise IntegrityError("a version of an originator stands twice in one insert")
