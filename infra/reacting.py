"""Runs the table of handlers/subscriptions.py: which wake-up reaches which reaction, and what its answer leads to.

    EVENTS  evt.*.<aggregate>.* ──┐                         ┌─ Done        remember the version; perhaps a timer
    TIMERS  due.> ────────────────┼──> gate ──> reaction ───┼─ RetryAfter  a timer
    PARKED  a wanted retry ───────┤    one at a time        ├─ Park        a message on PARKED
    duties  what they found ──────┘    per aggregate        └─ Stop        the reaction rests until a restart

Every "again later" is one durable timer per reaction and aggregate, and the message is acknowledged. The surprising
reason: a negatively acknowledged message stays in its consumer's hands, so a thousand of them would stop the healthy.
Only when nothing durable can be written, because Postgres or NATS is away, the message itself comes again, delayed.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import uniform
from typing import Protocol, assert_never

import msgspec
import structlog
from msgspec.structs import replace
from nats.aio.client import Client

from domain.ids import OrganizationId
from domain.message import Envelope, subject_of
from handlers.outcome import MAX_ATTEMPTS, Done, Outcome, Park, RetryAfter, Stop, is_own_fault, outcome_of, pause_s
from handlers.ports import Doors, Trigger, Waking
from handlers.subscriptions import Duty, Reaction
from infra.cancellation import heed_cancellation
from infra.events.codec import decode_envelope
from infra.events.port import EventLog
from infra.events.streams import EVENTS, PARKED, TIMERS
from infra.gate import Standing
from infra.ledgered_doors import ledgered
from infra.parking import PARKED_SUBJECTS, ParkedWork, decode_parked
from infra.work_queue import WorkItem, WorkQueue

REMEMBERED_VERSIONS = 50_000
"""Settled versions kept in memory: a reaction's own events, which come back to it, then cost nothing."""
BUSY_PAUSE_S = 0.2
"""Another process is looking at this aggregate, and has most likely settled this event with it."""
AWAY_PAUSE_S = 1.0
STOPPED_PAUSE_S = 60.0
WOKEN_TOGETHER = 16
DUTY_JITTER = 0.1
"""Share of a period, so that processes started together drift apart."""

_log = structlog.get_logger(__name__)


class Timers(Protocol):
    """Durable wake-ups: one per key, a new one replaces it. Raises OSError when it may not be stored."""

    async def schedule(self, key: str, at: datetime, body: bytes) -> None: ...


class Turn(Protocol):
    """The right to look at one aggregate; see infra/gate.py."""

    @property
    def standing(self) -> Standing: ...

    async def settle(self, standing: Standing) -> None: ...


class Turns(Protocol):
    """Gives that right to one at a time; None while another process has it. See infra/gate.py."""

    def hold(self, reaction: str, aggregate: str, aggregate_id: str, /) -> AbstractAsyncContextManager[Turn | None]: ...


class ParkingPlace(Protocol):
    """What the runtime asks of infra/parking.py."""

    async def park(self, work: ParkedWork) -> None: ...

    async def find(self, parked_id: str) -> ParkedWork | None: ...

    async def remove(self, parked_id: str) -> None: ...


@dataclass(frozen=True)
class Stores:
    """What reactions stand on."""

    log: EventLog
    gate: Turns
    parking: ParkingPlace
    timers: Timers


class BusyElsewhereError(OSError):
    """Another process looks at this aggregate now."""


class ReactionStoppedError(Exception):
    """This reaction rests in this process: going on would do harm. The log says why; a restart begins again."""


class Reactor:
    """Looks at aggregates, one at a time each, and settles what their reactions answer."""

    def __init__(self, reactions: Sequence[Reaction], doors: Doors, stores: Stores) -> None:
        self.reactions = {reaction.name: reaction for reaction in reactions}
        self.doors = doors
        self._stores = stores
        self._settled: OrderedDict[str, int] = OrderedDict()
        self._stopped: set[str] = set()

    async def tell(self, reaction: Reaction, envelope: Envelope, position: int) -> None:
        """An event arrived; nothing happens when its version is settled already.

        Raises:
            OSError: it could not be looked at now (another process does, or a store is away).
            ReactionStoppedError: see the class.
        """
        await self._look(reaction, _trigger(envelope), position, told=envelope.version)

    async def wake(self, waking: Waking) -> None:
        """Looks without a new event; the aggregate's newest one counts as the cause. Raises like tell."""
        reaction = self.reactions.get(waking.reaction)
        if reaction is None:  # a timer of a reaction that this release no longer has
            _log.warning("unknown_reaction_woken", reaction=waking.reaction, id=waking.id)
            return
        newest = await self._stores.log.last(subject_of(waking.organization, waking.aggregate, waking.id))
        if newest is not None:
            await self._look(reaction, _trigger(newest.envelope), newest.position, told=None)

    async def _look(self, reaction: Reaction, trigger: Trigger, position: int, *, told: int | None) -> None:
        """One guarded look; `told` is the version of the event that asks for it, None when no event does."""
        key = _key(reaction, trigger)
        if reaction.name in self._stopped:
            raise ReactionStoppedError(reaction.name)
        if told is not None and self._settled.get(key, 0) >= told:
            return
        async with self._stores.gate.hold(reaction.name, trigger.aggregate, trigger.id) as held:
            if held is None:
                raise BusyElsewhereError(key)
            self._remember(key, held.standing.version)
            if told is not None and held.standing.version >= told:
                return
            parked = await self._stores.parking.find(key)
            if parked is not None and parked.holds_back(told):
                return
            if trigger.version < held.standing.version:  # another look went on while this one waited for its turn
                trigger, position = await self._newest(trigger)
            outcome, fault = await self._react(reaction, trigger, held.standing)
            standing = await self._settle(reaction, trigger, position, held.standing, outcome, fault)
            if parked is not None and isinstance(outcome, Done):
                await self._stores.parking.remove(key)
            await held.settle(standing)
            self._remember(key, standing.version)

    async def _newest(self, trigger: Trigger) -> tuple[Trigger, int]:
        newest = await self._stores.log.last(subject_of(trigger.organization, trigger.aggregate, trigger.id))
        return (_trigger(newest.envelope), newest.position) if newest else (trigger, 0)

    async def _react(
        self, reaction: Reaction, trigger: Trigger, standing: Standing
    ) -> tuple[Outcome, Exception | None]:
        """The answer, and the fault that it stands for, if it does."""
        if trigger.version < standing.version:
            return Stop(f"the log ends at version {trigger.version} after {standing.version} was seen: lost?"), None
        try:
            told = replace(trigger, attempt=_tries(trigger, standing), done=standing.done)
            return await reaction.react(told, ledgered(self.doors, reaction.name, trigger)), None
        except Exception as fault:  # noqa: BLE001 - whatever it is, this aggregate alone waits for it
            _log.warning(
                "reaction_failed",
                reaction=reaction.name,
                id=trigger.id,
                exc_info=fault if is_own_fault(fault) else None,
            )
            outcome = outcome_of(
                fault, version=trigger.version, attempt=standing.attempt, own_faults=standing.own_faults
            )
            return outcome, fault

    async def _settle(
        self,
        reaction: Reaction,
        trigger: Trigger,
        position: int,
        before: Standing,
        outcome: Outcome,
        fault: Exception | None,
    ) -> Standing:
        """Makes the answer durable; returns the standing to be written after that."""
        log = _log.bind(reaction=reaction.name, aggregate=trigger.aggregate, id=trigger.id)
        match outcome:
            case Done(version=version, again_at=again_at):
                if again_at is not None:
                    await self._schedule(reaction, trigger, again_at)
                # After a refusal the event that moved the state is on its way; nothing says that deeds were done.
                return Standing(version=max(version, trigger.version), done=version if fault is None else before.done)
            case RetryAfter(seconds, reason, version):
                log.info("reaction_put_off", seconds=round(seconds, 2), reason=reason)
                await self._schedule(reaction, trigger, self.doors.clock() + timedelta(seconds=seconds))
                return Standing(
                    version=max(version, trigger.version),
                    attempt=1 if version > trigger.version else _tries(trigger, before) + 1,
                    own_faults=before.own_faults + (fault is not None and is_own_fault(fault)),
                    done=before.done,
                )
            case Park(reason):
                log.error("reaction_parked", reason=reason, cure="inventiv events parked")
                await self._stores.parking.park(self._parked(reaction, trigger, position, before, reason))
                # A wanted retry is one try: it parks again at once, rather than after MAX_ATTEMPTS more.
                return Standing(version=trigger.version, own_faults=MAX_ATTEMPTS - 1, done=before.done)
            case Stop(reason):
                log.error("reaction_stopped", reason=reason, cure="mend it, then restart the handlers")
                self._stopped.add(reaction.name)
                raise ReactionStoppedError(reason)
            case _:
                assert_never(outcome)

    async def _schedule(self, reaction: Reaction, trigger: Trigger, at: datetime) -> None:
        waking = Waking(reaction.name, trigger.organization, trigger.aggregate, trigger.id)
        await self._stores.timers.schedule(_key(reaction, trigger), at, msgspec.json.encode(waking))

    def _parked(self, reaction: Reaction, trigger: Trigger, position: int, before: Standing, reason: str) -> ParkedWork:
        return ParkedWork(
            state="parked",
            reaction=reaction.name,
            aggregate=trigger.aggregate,
            aggregate_id=trigger.id,
            organization=trigger.organization,
            version=trigger.version,
            event_id=trigger.cause,
            position=position,
            reason=reason,
            attempts=before.attempt + 1,
            at=self.doors.clock(),
        )

    def _remember(self, key: str, version: int) -> None:
        self._settled[key] = max(version, self._settled.get(key, 0))
        self._settled.move_to_end(key)
        if len(self._settled) > REMEMBERED_VERSIONS:
            self._settled.popitem(last=False)


async def run_reactions(reactor: Reactor, nc: Client) -> None:
    """Follows the three streams that wake reactions, until cancelled."""

    def queue_of(reaction: Reaction) -> WorkQueue:
        async def handle(item: WorkItem) -> None:
            envelope = decode_envelope(item.payload)
            if envelope.type in reaction.events:
                await _answer(item, reactor.tell(reaction, envelope, item.position))
            else:
                await item.done()

        return WorkQueue(nc, EVENTS, reaction.name, [subject_of("*", reaction.aggregate, "*")], handle)

    async def on_timer(item: WorkItem) -> None:
        await _answer(item, reactor.wake(msgspec.json.decode(item.payload, type=Waking)))

    async def on_parked(item: WorkItem) -> None:
        work = decode_parked(item.payload)
        if work.state == "retrying":
            waking = Waking(work.reaction, OrganizationId(work.organization), work.aggregate, work.aggregate_id)
            await _answer(item, reactor.wake(waking))
        else:
            await item.done()

    queues = [queue_of(reaction) for reaction in reactor.reactions.values()]
    queues.append(WorkQueue(nc, TIMERS, "reaction_timers", ["due.>"], on_timer))
    queues.append(WorkQueue(nc, PARKED, "reaction_retries", [PARKED_SUBJECTS], on_parked))
    async with asyncio.TaskGroup() as group:
        for queue in queues:
            group.create_task(queue.run())


async def keep_duty(duty: Duty, reactor: Reactor, gate: Turns) -> None:
    """Performs a duty every period, in one process at a time, until cancelled; a failed look is soon repeated."""
    failures = 0
    while True:
        heed_cancellation()
        try:
            async with gate.hold("duty", duty.name, "-") as held:
                if held is not None:
                    await _wake_all(reactor, await duty.perform(ledgered(reactor.doors, duty.name)))
            failures = 0
        except Exception as fault:  # noqa: BLE001 - a promise is kept by trying again
            failures += 1
            _log.warning("duty_failed", duty=duty.name, error=repr(fault))
        period_s = min(duty.period_s, pause_s(failures)) if failures else duty.period_s
        await asyncio.sleep(period_s * uniform(1 - DUTY_JITTER, 1 + DUTY_JITTER))  # noqa: S311 - jitter, no secret


async def _wake_all(reactor: Reactor, wakings: Sequence[Waking]) -> None:
    turns = asyncio.Semaphore(WOKEN_TOGETHER)

    async def wake(waking: Waking) -> None:
        async with turns:
            try:
                await reactor.wake(waking)
            except (OSError, ReactionStoppedError) as reason:
                _log.info("not_woken", reaction=waking.reaction, id=waking.id, reason=repr(reason))

    await asyncio.gather(*(wake(waking) for waking in wakings))


async def _answer(item: WorkItem, look: Awaitable[None]) -> None:
    try:
        await look
    except BusyElsewhereError:
        await item.later(BUSY_PAUSE_S)
    except ReactionStoppedError:
        await item.later(STOPPED_PAUSE_S)
    except OSError as away:
        _log.warning("look_postponed", subject=item.subject, error=repr(away))
        await item.later(AWAY_PAUSE_S)
    else:
        await item.done()


def _trigger(envelope: Envelope) -> Trigger:
    return Trigger(
        organization=envelope.organization,
        aggregate=envelope.aggregate,
        id=envelope.id,
        cause=envelope.event_id,
        correlation=envelope.correlation,
        version=envelope.version,
    )


def _tries(trigger: Trigger, standing: Standing) -> int:
    """Looks in a row at the same state that ended in "again later"; pauses that grew over another are forgotten."""
    return standing.attempt if trigger.version <= standing.version else 0


def _key(reaction: Reaction, trigger: Trigger) -> str:
    return f"{reaction.name}.{trigger.aggregate}.{trigger.id}"
