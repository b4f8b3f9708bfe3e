"""An endless iterator over an application's events, for the `eventsourcing` library: catches up, then waits for more.

    next ──> found already? ──> take a batch on the loop (blocks at the end of the stream) ──> notifications
    stop ──> cancels the waiting, lets the server forget the consumer; from any thread, at any time, more than once

It follows the whole stream, so that a missing position is noticed, and leaves out here what is no event or of another
topic.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, suppress
from threading import Lock

from eventsourcing.persistence import ApplicationRecorder, InterfaceError, Notification, Subscription

from infra.events.eventsourcing_datastore import JetStreamDatastore
from infra.events.eventsourcing_store import StreamStore
from infra.events.pull import StreamMessage, follow_messages
from infra.events.reads import Stored

BATCH_MESSAGES = 500


class JetStreamSubscription(Subscription[ApplicationRecorder]):
    """See the module.

    Args:
        recorder: whose events.
        datastore: its own, and `store` its stream.
        gt: notification id already known.
        topics: of the events wanted; empty means all.
    """

    def __init__(
        self,
        recorder: ApplicationRecorder,
        datastore: JetStreamDatastore,
        store: StreamStore,
        *,
        gt: int | None,
        topics: Sequence[str],
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._datastore = datastore
        self._store = store
        self._lock = Lock()  # between the thread that iterates and the one that stops
        self._waiting: Future[list[Notification]] | None = None
        self._found: deque[Notification] = deque()
        self._turn = asyncio.Lock()  # between taking and ending, on the loop
        self._following: AbstractAsyncContextManager[AsyncIterator[list[StreamMessage]]] | None = None
        self._batches: AsyncIterator[list[StreamMessage]] | None = None
        datastore.call(datastore.reader())  # now, because cancelling half a connection would leak it

    def __next__(self) -> Notification:
        """Blocks until there is one.

        Raises:
            StopIteration: stopped.
            InternalError: the stream lost messages.
            InterfaceError: the factory was closed.
        """
        while not self._has_been_stopped:  # endless by contract; each round waits for the server
            if self._found:
                return self._found.popleft()
            self._found.extend(self._take())
        raise StopIteration

    def stop(self) -> None:
        with self._lock:
            super().stop()
            if self._waiting is not None:
                self._waiting.cancel()
        with suppress(InterfaceError):  # closed: nothing is left to end
            self._datastore.submit(self._end())

    def _take(self) -> list[Notification]:
        with self._lock:
            if self._has_been_stopped:
                return []
            self._waiting = self._datastore.submit(self._next_batch())
        try:
            return self._datastore.wait(self._waiting, None)
        except InterfaceError:
            if self._is_stopped():  # by another thread meanwhile
                return []
            raise

    def _is_stopped(self) -> bool:
        return self._has_been_stopped

    async def _next_batch(self) -> list[Notification]:
        async with self._turn:
            if self._batches is None:
                self._following = follow_messages(
                    await self._datastore.reader(),
                    self._store.stream,
                    after=self._last_notification_id or 0,
                    batch=BATCH_MESSAGES,
                    contiguous=True,
                )
                self._batches = await self._following.__aenter__()
            batch = await anext(self._batches)
            return self._store.notifications((_stored(message) for message in batch), self._topics)

    async def _end(self) -> None:
        async with self._turn:
            following, self._following = self._following, None
            if following is not None:
                await following.__aexit__(None, None, None)


def _stored(message: StreamMessage) -> Stored:
    return Stored(message.position, message.subject, message.payload)
