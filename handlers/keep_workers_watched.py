"""Notices a worker that has fallen silent, asks it itself, and records it as lost only when it does not answer either.

    last heartbeat too old ──> probe its agent ──> answers: left alone      no answer: WorkerLost

The surprising rule: many workers that fall silent at once are rarely dead; it is we who do not hear. So a look that
comes too late (this process was paused, or has just begun) only begins to listen, and while more than half of the
workers are silent, nothing is recorded for a grace, and then only a few at a time.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from domain.instance import INSTANCE
from domain.instance_commands import RecordWorkerLost
from domain.message import Context
from handlers.ports import Doors, Owning, Waking

PERIOD_S = 5.0
LATE_S = 3 * PERIOD_S
"""After a pause of this process as long as this, what it knows of others' silence is its own."""
MANY = 4
"""From so many watched workers on, more than half of them silent at once is taken for a fault of ours."""
MANY_GRACE_S = 300.0
LOST_SHARE = 0.1
"""After that grace, at most this share of the watched is recorded in one look, and always one."""
ASKED_TOGETHER = 32
"""Also the most probes of one look: one takes three seconds, and a look that lasts would make the next one late."""
MAX_PAGES = 40
WATCHED = frozenset({"starting", "ready", "draining"})
NEVER = datetime.min.replace(tzinfo=UTC)
CONTEXT = Context(actor="system:handlers", correlation="")

_log = structlog.get_logger(__name__)


@dataclass
class WorkerWatch:
    """The duty `keep_workers_watched` with its memory; a restart forgets it, and so only waits longer.

    Attributes:
        looked_at: when it last looked.
        watched: since when each worker is watched; before that its silence says nothing.
        answered: when a silent one last answered a probe.
        many_since: since when more than half are silent.
    """

    looked_at: datetime | None = None
    watched: dict[str, datetime] = field(default_factory=dict)
    answered: dict[str, datetime] = field(default_factory=dict)
    many_since: datetime | None = None

    async def __call__(self, doors: Doors) -> Sequence[Waking]:
        now = doors.clock()
        if self.looked_at is None or not timedelta() <= now - self.looked_at <= timedelta(seconds=LATE_S):
            self.watched, self.answered, self.many_since = {}, {}, None
        self.looked_at = None  # a look that fails counts as none: whoever was deaf begins to listen anew
        workers = await _workers(doors)
        self.watched = {one.instance_id: self.watched.get(one.instance_id, now) for one in workers}
        self.answered = {known: at for known, at in self.answered.items() if known in self.watched}
        silent = await self._silent(workers, doors, now)
        await self._ask(self._believed(silent, len(workers), now), doors, now)
        self.looked_at = now
        return ()

    async def _silent(self, workers: Sequence[Owning], doors: Doors, now: datetime) -> list[Owning]:
        limit = timedelta(seconds=doors.settings.worker_silent_s)
        turns = asyncio.Semaphore(ASKED_TOGETHER)

        async def is_silent(one: Owning) -> bool:
            since = self.watched[one.instance_id]
            if now - since < limit:
                return False
            async with turns:
                heard = await doors.last_heard(one.organization, one.instance_id)
            return now - max(heard or since, since) >= limit

        verdicts = await asyncio.gather(*(is_silent(one) for one in workers))
        return [one for one, silent in zip(workers, verdicts, strict=True) if silent]

    def _believed(self, silent: Sequence[Owning], watched: int, now: datetime) -> Sequence[Owning]:
        """Whose silence is taken for theirs."""
        if watched < MANY or 2 * len(silent) <= watched:
            self.many_since = None
            return silent
        if self.many_since is None:
            self.many_since = now
            _log.error("many_workers_silent", silent=len(silent), watched=watched, cure="look at NATS and at the API")
        if now - self.many_since < timedelta(seconds=MANY_GRACE_S):
            return ()
        return silent[: max(1, int(watched * LOST_SHARE))]

    async def _ask(self, silent: Sequence[Owning], doors: Doors, now: datetime) -> None:
        """The deadline of its drain ends a draining one; its worker's silence changes nothing."""
        pause = timedelta(seconds=doors.settings.worker_silent_s)
        due = [
            one
            for one in silent
            if one.status != "draining" and now - self.answered.get(one.instance_id, NEVER) >= pause
        ]
        answers = await asyncio.gather(*(_lose_unless_it_answers(one, doors) for one in due[:ASKED_TOGETHER]))
        self.answered |= {one.instance_id: now for one, answered in zip(due, answers, strict=False) if answered}


async def _workers(doors: Doors) -> list[Owning]:
    workers: list[Owning] = []
    after = ""
    for _ in range(MAX_PAGES):
        page = await doors.list_owning(after)
        if not page:
            break
        after = page[-1].instance_id
        workers += [one for one in page if one.status in WATCHED and one.agent_url]
    return workers


async def _lose_unless_it_answers(one: Owning, doors: Doors) -> bool:
    """Asks the address on record; only its state of now counts, for the list may be older."""
    state = (await doors.load(INSTANCE, one.organization, one.instance_id)).state
    if state.status not in WATCHED or not state.agent_url:
        return False
    if await doors.probe(state.agent_url):
        _log.warning("silent_worker_answers", instance=one.instance_id, cure="its heartbeats do not reach the API")
        return True
    reason = f"No heartbeat for {doors.settings.worker_silent_s:.0f} s, and its agent does not answer."
    await doors.dispatch(INSTANCE, one.organization, one.instance_id, RecordWorkerLost(reason=reason), CONTEXT)
    return False
