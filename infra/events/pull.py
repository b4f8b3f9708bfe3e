"""Follows a stream: every message after a position, in order, for ever, through crashes of the server.

    consumer from last + 1 ──> pull requests (two overlap) ──> buffer ──> batches
          ^                                                      │ silence, lost connection, status, skipped delivery
          └──────────────────────── again, after a delay ────────┘

The consumer is ephemeral and acknowledges nothing: the reader's own position is the only truth, so anything that looks
wrong is cured by a new consumer. The surprising rule: a pull request dies silently with its connection, so silence is
an error; the server owes a heartbeat.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from infra.cancellation import heed_cancellation
from infra.events import wire
from infra.events.port import GapError
from infra.events.reads import ApiError, ApiFault, last_position

_log = structlog.get_logger(__name__)

WINDOW_MESSAGES = 8000
"""Requested or buffered at most; refilled at half, so that the server never waits for us in a replay."""
WINDOW_BYTES = 16_000_000
"""Per request; what may be buffered is twice that."""
REQUEST_EXPIRES_S = 30.0
HEARTBEAT_S = 0.5
HEARTBEATS_MISSED = 3
QUIET_WAITS = 20
"""Times HEARTBEAT_S without a message, after which an unfiltered reader asks where the stream ends: a node whose file
is damaged beats on and delivers nothing."""
LEADER_LOOKS = 30
LEADER_PAUSE_S = 0.1
"""A leader that was just elected may not have applied yet what its predecessor acknowledged; then it looks short."""
INACTIVE_S = 60.0
"""The server forgets a consumer that nobody pulls from."""
API_TIMEOUT_S = 2.0
DELETE_TIMEOUT_S = 1.0
FIRST_RETRY_DELAY_S = 0.02
LONGEST_RETRY_DELAY_S = 1.0
_NANOSECONDS = 1_000_000_000


class StreamMessage(msgspec.Struct, frozen=True, gc=False):
    """A message as delivered; it cannot be part of a cycle, and the collector's look at millions would take a seventh.

    Attributes:
        position: in the stream.
        raw_headers: as they came; b"" when it has none.
        pending: how many matching messages the server had after it; 0 means the end was reached.
    """

    position: int
    subject: str
    payload: bytes
    raw_headers: bytes
    pending: int

    @property
    def headers(self) -> dict[str, str]:
        """Read when asked for: most readers need none, and reading them costs more than the message."""
        return wire.read_headers(self.raw_headers) if self.raw_headers else {}


class _Interrupted(Exception):  # noqa: N818 - says why a consumer is given up; never leaves this file
    pass


class _CreateReply(msgspec.Struct):
    name: str = ""
    error: ApiFault | None = None


@contextlib.asynccontextmanager
async def follow_messages(
    nc: Client,
    stream: str,
    *,
    after: int,
    subjects: Sequence[str] = (),
    batch: int = 500,
    contiguous: bool = False,
) -> AsyncIterator[AsyncIterator[list[StreamMessage]]]:
    """Endless non-empty batches of messages with position > after; delivers what is there at once.

    Args:
        nc: any connection; it may drop and come back.
        stream: its name.
        after: position already known.
        subjects: filters, wildcards allowed; empty means all.
        batch: most messages in one batch.
        contiguous: insist on every position. For unfiltered reading of a stream from which nothing is ever removed.

    Raises (while iterating):
        GapError: a position is missing, or the stream ends before `after` (it was lost or restored: stop).
        nats.errors.ConnectionClosedError: somebody closed the connection for good.
    """
    follower = _Follower(nc, stream, after, tuple(subjects), contiguous=contiguous)
    try:
        async with contextlib.aclosing(follower.batches(batch)) as batches:
            yield batches
    finally:
        await follower.close(deleting=True)


class _Follower:
    """Keeps a consumer alive, and the position that was delivered last."""

    def __init__(self, nc: Client, stream: str, after: int, subjects: tuple[str, ...], *, contiguous: bool) -> None:
        self._nc = nc
        self._stream = stream
        self._position = after
        self._subjects = subjects
        self._contiguous = contiguous
        self._consumer: _Consumer | None = None

    async def batches(self, batch: int) -> AsyncGenerator[list[StreamMessage], None]:
        delay_s = FIRST_RETRY_DELAY_S
        while True:  # endless by contract; each failure waits, longer each time
            heed_cancellation()
            try:
                if self._consumer is None:
                    self._consumer = await self._start_consumer()
                messages = await self._consumer.take(batch)
                if not messages:
                    await self._check_quiet()
                    continue
            except nats.errors.ConnectionClosedError:
                raise
            except (_Interrupted, nats.errors.Error, ApiError, OSError) as reason:
                _log.info("follow_interrupted", stream=self._stream, position=self._position, reason=repr(reason))
                await self.close()
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, LONGEST_RETRY_DELAY_S)
                continue
            delay_s = FIRST_RETRY_DELAY_S
            self._check(messages)
            self._position = messages[-1].position
            yield messages

    async def close(self, *, deleting: bool = False) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.close(deleting=deleting)

    async def _start_consumer(self) -> "_Consumer":
        end = await self._end()
        if end < self._position:
            raise GapError(
                f"{self._stream} ends at {end}, but position {self._position} has been seen: it lost messages"
            )
        config: dict[str, Any] = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._position + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(INACTIVE_S * _NANOSECONDS),
        }
        if self._subjects:
            config["filter_subjects"] = list(self._subjects)
        request = msgspec.json.encode({"stream_name": self._stream, "config": config})
        reply = await self._nc.request(f"$JS.API.CONSUMER.CREATE.{self._stream}", request, timeout=API_TIMEOUT_S)
        created = msgspec.json.decode(reply.data, type=_CreateReply)
        if created.error is not None:
            raise ApiError(created.error.code, created.error.err_code, created.error.description)
        consumer = _Consumer(self._nc, self._stream, created.name)
        await consumer.open()
        return consumer

    async def _end(self) -> int:
        """The stream's last position; waits a while for one that has been seen."""
        for _ in range(LEADER_LOOKS - 1):
            end = await last_position(self._nc, self._stream, timeout_s=API_TIMEOUT_S)
            if end >= self._position:
                return end
            await asyncio.sleep(LEADER_PAUSE_S)
        return await last_position(self._nc, self._stream, timeout_s=API_TIMEOUT_S)

    async def _check_quiet(self) -> None:
        """Raises _Interrupted when there is more than this consumer delivers."""
        if not self._contiguous:
            return  # how far its filter reaches, only the consumer knows
        end = await last_position(self._nc, self._stream, timeout_s=API_TIMEOUT_S)
        if end > self._position and self._consumer is not None and self._consumer.is_empty:
            raise _Interrupted(f"the stream ends at {end}, but nothing is delivered")

    def _check(self, messages: list[StreamMessage]) -> None:
        if not self._contiguous:
            return
        first, last = messages[0].position, messages[-1].position
        if first != self._position + 1 or last - first + 1 != len(messages):
            wanted = self._position + 1
            for message in messages:
                if message.position != wanted:
                    raise GapError(f"{self._stream} has no position {wanted}: after it comes {message.position}")
                wanted += 1


class _Consumer:
    """One ephemeral consumer and its pull requests, until the first doubt."""

    def __init__(self, nc: Client, stream: str, name: str) -> None:
        self._nc = nc
        self._next = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"
        self._delete = f"$JS.API.CONSUMER.DELETE.{stream}.{name}"
        self._inbox = nc.new_inbox()
        self._reconnects = nc.stats["reconnects"]
        self._subscription: Subscription | None = None
        self._buffer: deque[StreamMessage] = deque()
        self._requested = 0
        self._delivered = 0
        self._arrived = asyncio.Event()
        self._beats_missed = 0
        self._doubt: str | None = None

    async def open(self) -> None:
        self._subscription = await wire.subscribe(self._nc, self._inbox, self._on_message)
        await self._refill()

    @property
    def is_empty(self) -> bool:
        return not self._buffer

    async def take(self, batch: int) -> list[StreamMessage]:
        """At most `batch` messages, as soon as there is one; none after QUIET_WAITS without any.

        Raises:
            _Interrupted: this consumer cannot be trusted to deliver more; what it delivered is taken first.
        """
        for _ in range(QUIET_WAITS):
            if self._buffer:
                break
            self._check_alive()
            await self._refill()
            self._arrived.clear()
            self._beats_missed += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._arrived.wait()
        messages = [self._buffer.popleft() for _ in range(min(batch, len(self._buffer)))]
        if self._doubt is None:
            await self._refill()
        return messages

    async def close(self, *, deleting: bool) -> None:
        """Stops listening; the server forgets the consumer by itself after INACTIVE_S, unless deleted now."""
        try:
            if self._subscription is not None:
                await wire.unsubscribe(self._nc, self._subscription)
            if deleting and self._nc.is_connected:
                await self._nc.request(self._delete, timeout=DELETE_TIMEOUT_S)
        except nats.errors.Error as error:
            _log.debug("consumer_left_to_expire", error=repr(error))

    async def _refill(self) -> None:
        room = WINDOW_MESSAGES - self._requested - len(self._buffer)
        if room < WINDOW_MESSAGES // 2:
            return
        request = {
            "batch": room,
            "max_bytes": WINDOW_BYTES,
            "expires": int(REQUEST_EXPIRES_S * _NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT_S * _NANOSECONDS),
        }
        self._requested += room
        await self._nc.publish(self._next, msgspec.json.encode(request), reply=self._inbox)

    def _check_alive(self) -> None:
        """Counts waits without a sign, not seconds: while we compute, heartbeats wait unread in the socket."""
        if self._nc.is_closed:
            raise nats.errors.ConnectionClosedError
        if self._doubt is not None:
            raise _Interrupted(self._doubt)
        if self._nc.stats["reconnects"] != self._reconnects:
            raise _Interrupted("the connection was lost")
        if self._beats_missed > HEARTBEATS_MISSED:
            raise _Interrupted(f"{self._beats_missed} heartbeats missed")

    def _on_message(self, subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> None:
        self._beats_missed = 0
        if self._doubt is not None:
            return
        if not reply.startswith(b"$JS.ACK."):
            self._on_status(wire.read_headers(headers))
            return
        position, delivered, pending = _delivery(reply)
        if delivered != self._delivered + 1:
            self._doubt = f"delivery {delivered} came after {self._delivered}"
        else:
            self._delivered = delivered
            self._requested -= 1
            self._buffer.append(StreamMessage(position, subject.decode(), payload, headers, pending))
        self._arrived.set()

    def _on_status(self, headers: dict[str, str]) -> None:
        """100 is a heartbeat and says what was delivered before; 404, 408, 409 end a request and say what was left."""
        status, description = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":
            if int(headers.get("Nats-Last-Consumer", self._delivered)) != self._delivered:
                self._doubt = "a delivery did not arrive"
                self._arrived.set()
            return
        left = headers.get("Nats-Pending-Messages")
        if status in {"404", "408", "409"} and left is not None:
            self._requested -= int(left)
        else:  # no responders, consumer deleted, leadership change, server shutdown ...
            self._doubt = f"status {status} {description}"
        self._arrived.set()


def _delivery(reply: bytes) -> tuple[int, int, int]:
    """(stream sequence, consumer sequence, pending) of `$JS.ACK.[domain.account.]stream.consumer.n.S.C.time.P[.x]`."""
    parts = reply.split(b".")
    start = 5 if len(parts) == 9 else 7
    return int(parts[start]), int(parts[start + 1]), int(parts[start + 3])
