"""Works off a durable consumer: each message is handled until it is acknowledged, by any of several processes.

    ensure consumer ──> pull as many as there is room for ──> handle each in a task of its own ──> ack, or later(delay)
          ^                        │ silence, status, lost connection
          └──── after a pause ─────┘

While a message is being handled the server hears so every HEARTBEAT_S; a process that dies falls silent, and the server
gives its messages to another. The surprising rule: a plain negative acknowledgement is sent again at once, so there is
only `later`, with a delay.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from infra.cancellation import heed_cancellation

_log = structlog.get_logger(__name__)

ACK_WAIT_S = 5.0
"""How long a silent process keeps its messages; then they are delivered again."""
HEARTBEAT_S = 1.5
ACK_TIMEOUT_S = 2.0
MAX_UNACKNOWLEDGED = 1000
"""In the hands of all processes together."""
WORKED_TOGETHER = 32
PULL_EXPIRES_S = 20.0
PULL_BEAT_S = 0.5
BEATS_MISSED = 4
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
DRAIN_S = 5.0
"""After a stop, running work gets this long to finish; what is left is delivered again."""
HANDED_BACK_S = 0.2
_NANOSECONDS = 1_000_000_000


class WorkItem:
    """One delivered message.

    Attributes:
        subject, payload: as stored.
        position: in its stream.
    """

    def __init__(self, message: Msg) -> None:
        self._message = message
        self.subject = message.subject
        self.payload = message.data
        self.position = message.metadata.sequence.stream

    async def done(self) -> None:
        """Never again, please. A lost acknowledgement only means that it is delivered once more."""
        try:
            await self._message.ack_sync(timeout=ACK_TIMEOUT_S)
        except (nats.errors.Error, OSError) as error:
            _log.info("acknowledgement_lost", position=self.position, error=repr(error))

    async def later(self, delay_s: float) -> None:
        """Again after `delay_s`; sooner when this wish gets lost."""
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._message.nak(delay=delay_s)

    async def still_working(self) -> None:
        with contextlib.suppress(nats.errors.Error, OSError):
            await self._message.in_progress()


Handle = Callable[[WorkItem], Awaitable[None]]


class WorkQueue:
    """One durable consumer of one stream.

    Args:
        nc: from connect_reader.
        stream: its name.
        durable: the consumer's name, for ever: it is where the position is kept.
        subjects: which messages; wildcards allowed.
        handle: ends with item.done() or item.later(); what it raises is a bug, and tried again.
    """

    def __init__(self, nc: Client, stream: str, durable: str, subjects: Sequence[str], handle: Handle) -> None:
        self._nc = nc
        self._stream = stream
        self._durable = durable
        self._subjects = tuple(subjects)
        self._handle = handle
        self._working: dict[asyncio.Task[None], WorkItem] = {}
        self._log = _log.bind(consumer=durable)

    async def run(self) -> None:
        """Until cancelled; then what runs may finish for DRAIN_S."""
        beating = asyncio.create_task(self._beat())
        try:
            await self._pull_for_ever()
        finally:
            await self._drain()
            beating.cancel()

    async def ensure(self) -> None:
        """Creates the consumer when it is missing; an existing one keeps its position.

        Raises:
            nats.errors.Error, nats.js.errors.Error: no answer, or the server refused.
        """
        config = ConsumerConfig(
            durable_name=self._durable,
            filter_subjects=list(self._subjects),
            deliver_policy=DeliverPolicy.ALL,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=ACK_WAIT_S,
            max_deliver=-1,
            max_ack_pending=MAX_UNACKNOWLEDGED,
        )
        await self._nc.jetstream().add_consumer(self._stream, config)

    async def _pull_for_ever(self) -> None:
        pause_s = 0.0
        while True:
            try:
                heed_cancellation()
                if pause_s:
                    await asyncio.sleep(pause_s)
                await self.ensure()
                while True:  # each round is one pull request; it ends by itself after PULL_EXPIRES_S at the latest
                    heed_cancellation()
                    await self._pull(await self._room())
                    pause_s = 0.0
            except (nats.errors.Error, OSError, _Interrupted) as reason:
                if self._nc.is_closed:
                    raise
                pause_s = min(LONGEST_PAUSE_S, max(FIRST_PAUSE_S, 2 * pause_s))
                self._log.info("work_interrupted", reason=repr(reason), again_in_s=pause_s)

    async def _room(self) -> int:
        while len(self._working) >= WORKED_TOGETHER:
            await asyncio.wait(self._working, return_when=asyncio.FIRST_COMPLETED)
        return WORKED_TOGETHER - len(self._working)

    async def _pull(self, batch: int) -> None:
        """One request, one inbox: what a forgotten request still delivers reaches nobody, and comes again."""
        arrived: asyncio.Queue[Msg] = asyncio.Queue()
        inbox = self._nc.new_inbox()
        subscription = await self._nc.subscribe(inbox, cb=arrived.put)
        try:
            request = {
                "batch": batch,
                "expires": int(PULL_EXPIRES_S * _NANOSECONDS),
                "idle_heartbeat": int(PULL_BEAT_S * _NANOSECONDS),
            }
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._durable}"
            await self._nc.publish(subject, msgspec.json.encode(request), reply=inbox)
            while batch > 0:
                heed_cancellation()
                message = await self._next(arrived)
                if message.reply.startswith("$JS.ACK."):
                    self._start(WorkItem(message))
                    batch -= 1
                elif _ends_request(message.headers or {}):
                    return
        finally:
            with contextlib.suppress(nats.errors.Error):
                await subscription.unsubscribe()

    async def _next(self, arrived: asyncio.Queue[Msg]) -> Msg:
        """The next message or status. Silence means that the request died, as it does with its connection."""
        reconnects = self._nc.stats["reconnects"]
        for _ in range(BEATS_MISSED):  # several short waits, not one long: while we compute, heartbeats wait unread
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PULL_BEAT_S):
                    return await arrived.get()
            if self._nc.stats["reconnects"] != reconnects:
                raise _Interrupted("the connection was lost")
        raise _Interrupted(f"{BEATS_MISSED} heartbeats missed")

    def _start(self, item: WorkItem) -> None:
        task = asyncio.create_task(self._work(item))
        self._working[task] = item
        task.add_done_callback(self._working.pop)

    async def _work(self, item: WorkItem) -> None:
        try:
            await self._handle(item)
        except asyncio.CancelledError:
            await item.later(HANDED_BACK_S)
            raise
        except Exception:  # noqa: BLE001 - one message's bug must not end the consumer of all
            self._log.exception("work_failed", subject=item.subject, position=item.position)
            await item.later(LONGEST_PAUSE_S)

    async def _beat(self) -> None:
        while True:
            heed_cancellation()
            await asyncio.sleep(HEARTBEAT_S)
            for item in list(self._working.values()):
                await item.still_working()

    async def _drain(self) -> None:
        if not self._working:
            return
        _, late = await asyncio.wait(set(self._working), timeout=DRAIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*late, return_exceptions=True)


class _Interrupted(Exception):  # noqa: N818 - says why a pull is given up; never leaves this file
    pass


def _ends_request(headers: dict[str, str]) -> bool:
    """100 is a heartbeat; 404 and 408 end a request as agreed.

    Raises:
        _Interrupted: anything else: no responders, consumer deleted, leadership change, server shutdown.
    """
    status = headers.get("Status", "")
    if status == "100":
        return False
    if status in {"404", "408"}:
        return True
    raise _Interrupted(f"status {status} {headers.get('Description', '')}")
