"""One process of the control plane: the real reactions, duties and reactor, over ports that can end it.

Stored.log ──> consumer ──┐
Stored.timers ────────────┼──> Reactor ──> reactions ──> Boundaries ──> the simulated world
duties ───────────────────┘
"""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import msgspec

from domain.ids import OrganizationId
from domain.message import Recorded
from handlers.cloud_ports import Account, Cloud, Clouds
from handlers.ports import Doors, Waking
from handlers.subscriptions import REACTIONS, duties
from infra.reacting import ReactionStoppedError, Reactor, Stores, keep_duty
from tests.simulation.boundaries import Boundaries, Counted
from tests.simulation.chance import Chance
from tests.simulation.stores import DueTimer, Stored
from tests.simulation.virtual_time import now

AGGREGATES = frozenset({"instance", "deployment", "provider_account", "host"})
OTHER_DUTIES = frozenset({"keep_audit_log_sealed", "keep_upstream_keys_matching_deployments"})
"""They touch no machine."""
AGAIN_S = 1.0
LONGEST_DELAY_S = 60.0
INSIDE_CLOUD = ("volumes", "ports", "offers")


@dataclass
class CountedClouds:
    """Clouds of one process: each call of theirs crosses its boundary."""

    clouds: Clouds
    boundaries: Boundaries

    async def of(self, organization: OrganizationId, provider: str, /) -> Cloud | None:
        cloud = await self.boundaries.cross("clouds.of", lambda: self.clouds.of(organization, provider))
        return cast("Cloud", Counted(cloud, "cloud", self.boundaries, inside=INSIDE_CLOUD)) if cloud else None

    async def accounts(self) -> Sequence[Account]:
        return await self.boundaries.cross("clouds.accounts", self.clouds.accounts)


@dataclass
class ControlPlane:
    """Starts, dies, starts again: whatever it knew besides what is stored is gone then.

    Attributes:
        faults: what no run may show: reactions that stopped, and faults of our own.
    """

    stored: Stored
    doors: Doors
    chance: Chance
    faults: list[str] = field(default_factory=list)
    boundaries: Boundaries = field(default_factory=Boundaries)
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    @property
    def is_alive(self) -> bool:
        return bool(self._tasks) and self.boundaries.alive

    def start(self, boundaries: Boundaries | None = None) -> None:
        """Nothing happens while it runs."""
        if self.is_alive:
            return
        self.boundaries = boundaries or Boundaries()
        self.boundaries.on_kill = self._drop_everything
        counted = replace(
            self.doors,
            dispatch=Counted(self.doors.dispatch, "dispatch", self.boundaries),
            clouds=CountedClouds(self.doors.clouds, self.boundaries),
            shell=Counted(self.doors.shell, "shell", self.boundaries),
        )
        stores = Stores(
            self.stored.log,
            self.stored.turns,
            cast("Any", Counted(self.stored.parking, "parking", self.boundaries)),
            cast("Any", Counted(self.stored.timers, "timers", self.boundaries)),
        )
        reactor = Reactor([one for one in REACTIONS if one.aggregate in AGGREGATES], counted, stores)
        self._run(self._consume(reactor))
        self._run(self._watch_timers(reactor))
        for duty in duties():
            if duty.name not in OTHER_DUTIES:
                self._run(keep_duty(duty, reactor, self.stored.turns))

    def kill(self) -> None:
        self.boundaries.die()

    def _drop_everything(self) -> None:
        tasks, self._tasks = self._tasks, set()
        self.stored.turns.release_all()
        for task in tasks:
            task.cancel()

    def _run(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(fault := task.exception(), Exception):
            self.faults.append(repr(fault))

    async def _consume(self, reactor: Reactor) -> None:
        async with self.stored.log.follow(after=self.stored.cursor.floor) as batches:
            async for batch in batches:
                for recorded in batch:
                    if self.stored.cursor.wants(recorded.position):
                        self._run(self._tell(reactor, recorded))

    async def _tell(self, reactor: Reactor, recorded: Recorded) -> None:
        """At least once, unless the seed loses notifications: then only the sweeps wake anybody."""
        envelope = recorded.envelope
        if self.chance.strikes("event_delayed"):
            await asyncio.sleep(self.chance.between(1.0, LONGEST_DELAY_S))
        for reaction in reactor.reactions.values():
            if reaction.aggregate != envelope.aggregate or envelope.type not in reaction.events:
                continue
            if self.chance.strikes("event_dropped"):
                continue
            for _ in range(2 if self.chance.strikes("event_doubled") else 1):
                while not await self._answered(reactor.tell(reaction, envelope, recorded.position)):  # noqa: ASYNC110 - a redelivery
                    await asyncio.sleep(AGAIN_S)
        self.stored.cursor.acknowledge(recorded.position)

    async def _watch_timers(self, reactor: Reactor) -> None:
        timers, waking = self.stored.timers, set[str]()

        async def wake(key: str, timer: DueTimer) -> None:
            if await self._answered(reactor.wake(msgspec.json.decode(timer.body, type=Waking))):
                timers.fired(key, timer)
            else:
                await asyncio.sleep(AGAIN_S)
            waking.discard(key)
            timers.changed.set()

        while True:
            timers.changed.clear()
            for key, timer in timers.ripe():
                if key not in waking:
                    waking.add(key)
                    self._run(wake(key, timer))
            ahead = [timer.at for key, timer in timers.due.items() if key not in waking]
            pause_s = max(0.0, (min(ahead) - now()).total_seconds()) if ahead else None
            try:
                async with asyncio.timeout(pause_s):
                    await timers.changed.wait()
            except TimeoutError:
                continue

    async def _answered(self, look: Awaitable[None]) -> bool:
        try:
            await look
        except OSError:
            return False
        except ReactionStoppedError as stopped:
            self.faults.append(f"stopped: {stopped}")
        return True
