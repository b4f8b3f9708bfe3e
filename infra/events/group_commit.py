"""Group commit: many writers share one sync to disk.

    append ──┬─ few are under way, no group is ──────────────> alone ──> position
             └─ else wait for one of them to come back ─┬─ few wait:  alone
                                                        └─ many wait: one atomic batch ──> a position each
                                                              └─ refused, or no answer: each alone

No timer waits: a group is whoever stood there when something came back, so a lone writer pays nothing. The surprising
rule: a group is only an attempt. One stale member spoils the batch for all, and a lost reply says nothing, so after any
failure each member is appended as if there had been no group; JetStreamLog finds out by its own ids what is stored.
Then grouping rests for a while, so that writers who fight over aggregates are not held up by doomed groups.
"""

import asyncio
from collections import deque
from collections.abc import Sequence

import structlog

from infra.events.jetstream import JetStreamLog
from infra.events.port import BATCH_MESSAGES_MAX, Append, LogUnavailableError, check_appends

_log = structlog.get_logger(__name__)

ALONE_MAX = 12
"""Appends under way by themselves before others wait; more do not make a disk any faster (figures: README)."""
GROUP_APPENDS_MIN = 12
"""Fewer are faster alone: on one replica a batch costs 2.2 ms, an append among others 0.2 ms."""
GROUP_BYTES_MAX = 4_000_000
MEMBER_MESSAGES_MAX = 100
MEMBER_BYTES_MAX = 100_000
"""What is larger is a batch in its own right, and goes alone."""
WAITING_APPENDS_MAX = 10_000
FIRST_REST_S = 0.05
LONGEST_REST_S = 5.0


class _Member:
    """One append that waits for its turn.

    Attributes:
        turn: its position when a group stored it; None when it may append alone now.
    """

    __slots__ = ("appends", "messages", "size_bytes", "turn")

    def __init__(self, appends: Sequence[Append], messages: int, size_bytes: int) -> None:
        self.appends = appends
        self.messages = messages
        self.size_bytes = size_bytes
        self.turn: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()


class GroupCommitLog:
    """An EventLog (see port.py) over a JetStreamLog; everything but `append` is the latter's own.

    Args:
        log: what stores and reads.
        alone_max: see ALONE_MAX.
        group_appends_min: see GROUP_APPENDS_MIN.
    """

    def __init__(
        self, log: JetStreamLog, *, alone_max: int = ALONE_MAX, group_appends_min: int = GROUP_APPENDS_MIN
    ) -> None:
        self._log = log
        self._alone_max = alone_max
        self._group_appends_min = group_appends_min
        self._alone = 0
        self._group: asyncio.Task[None] | None = None
        self._waiting: deque[_Member] = deque()
        self._rest_s = FIRST_REST_S
        self._rests_until_s = 0.0
        self.read = log.read
        self.last = log.last
        self.head = log.head
        self.follow = log.follow

    async def append(self, appends: Sequence[Append]) -> int:
        """See the port."""
        check_appends(appends)
        messages = sum(len(append.messages) for append in appends)
        size_bytes = sum(len(payload) for append in appends for _, payload in append.messages)
        if messages > MEMBER_MESSAGES_MAX or size_bytes > MEMBER_BYTES_MAX:
            return await self._log.append(appends)
        if self._waiting or not self._may_go_alone():
            position = await self._turn(_Member(appends, messages, size_bytes))
            if position is not None:
                return position
        else:
            self._alone += 1
        try:
            return await self._log.append(appends)
        finally:
            self._came_back()

    def _may_go_alone(self) -> bool:
        return self._resting() or (self._group is None and self._alone < self._alone_max)

    async def _turn(self, member: _Member) -> int | None:
        """Waits for what becomes of the member; see _Member.turn.

        Raises:
            LogUnavailableError: too many wait.
        """
        if len(self._waiting) >= WAITING_APPENDS_MAX:
            subject = member.appends[0].subject
            raise LogUnavailableError(f"append to {subject}: {WAITING_APPENDS_MAX} others wait for the log")
        self._waiting.append(member)
        try:
            return await member.turn
        except asyncio.CancelledError:
            if member.turn.done() and not member.turn.cancelled() and member.turn.result() is None:
                self._came_back()  # its turn and its end came at the same moment
            raise

    def _came_back(self) -> None:
        self._alone -= 1
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        if self._group is None and len(self._waiting) >= self._group_appends_min and not self._resting():
            group = self._gather()
            if len(group) >= self._group_appends_min:
                self._group = asyncio.create_task(self._commit(group), name="group-commit")
                return
            self._waiting.extendleft(reversed(group))
        while self._waiting and self._may_go_alone():
            self._send_alone(self._waiting.popleft())

    def _send_alone(self, member: _Member) -> None:
        if not member.turn.done():
            self._alone += 1
            member.turn.set_result(None)

    def _gather(self) -> list[_Member]:
        """Takes from the queue, in its order, those that fit into one batch: within its limits, no subject twice."""
        group: list[_Member] = []
        later: deque[_Member] = deque()
        subjects: set[str] = set()
        messages = size_bytes = 0
        for member in self._waiting:
            if member.turn.done():
                continue  # its caller gave up waiting
            wanted = {append.subject for append in member.appends}
            messages += member.messages
            size_bytes += member.size_bytes
            if messages <= BATCH_MESSAGES_MAX and size_bytes <= GROUP_BYTES_MAX and not wanted & subjects:
                group.append(member)
            else:
                later.append(member)
            subjects |= wanted
        self._waiting = later
        return group

    async def _commit(self, group: Sequence[_Member]) -> None:
        try:
            end = await self._log.append_once([append for member in group for append in member.appends])
        except asyncio.CancelledError:
            for member in group:
                member.turn.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it was, each member finds out what became of it
            self._rests_until_s = asyncio.get_running_loop().time() + self._rest_s
            _log.info("group_commit_failed", appends=len(group), reason=repr(error), rest_s=self._rest_s)
            self._rest_s = min(2 * self._rest_s, LONGEST_REST_S)
            for member in group:
                self._send_alone(member)
        else:
            self._rest_s = FIRST_REST_S
            _tell(group, end)
            await asyncio.sleep(0)  # whoever appends again at once goes with the next group
        finally:
            self._group = None
            self._serve_waiting()

    def _resting(self) -> bool:
        return asyncio.get_running_loop().time() < self._rests_until_s


def _tell(group: Sequence[_Member], end: int) -> None:
    """A batch is stored contiguously, in the order of its members."""
    position = end - sum(member.messages for member in group)
    for member in group:
        position += member.messages
        if not member.turn.done():
            member.turn.set_result(position)
