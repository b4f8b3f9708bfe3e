"""One simulated world: people, a control plane, a provider, agents; and what became of them.

seed ──> Chance ──> trouble for TROUBLE_S ──> no more faults ──> REST_S later everything must be in order
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

from domain.aggregates import AGGREGATES
from domain.decider import Rejected
from domain.deployment import instance_ids
from domain.ids import DeploymentId, InstanceId
from domain.instance import INSTANCE
from domain.instance_commands import RequestInstance, RequestReinstall, RequestTermination, StopInstance
from domain.message import Context
from domain.place import Place
from handlers.ports import Doors, Owning, Unsettled
from infra.dispatch import Dispatcher
from infra.doors import history_of
from infra.effects import EffectLedger, MemoryEffectRows
from infra.events.codec import Codec
from tests.handlers.fixed_clouds import FixedClouds
from tests.handlers.world import ACME, World
from tests.simulation.agents import Agents
from tests.simulation.chance import Chance
from tests.simulation.checks import AT_REST, ENDED, Checks, Violation
from tests.simulation.control_plane import ControlPlane
from tests.simulation.provider import SimulatedProvider
from tests.simulation.stores import FaultyLog, Stored
from tests.simulation.virtual_time import now, run_virtually

TROUBLE_S = 1800.0
REST_S = 14_400.0
"""More than every deadline of an instance one after the other: provisioning, startup, loss, failure, deletion."""
ZONES = ("z1", "z2")
TYPE = "L4-1"
STARTUP_TIMEOUT_S = 300
SECOND_THOUGHTS_S = 60.0
"""So soon people end what they have just asked for, while its server is being made."""
DOWN_S = (0.5, 60.0)
PERSON = Context(actor="user:alice", correlation="the-intent")
CODEC = Codec(AGGREGATES)


@dataclass
class Ending:
    """What one world came to.

    Attributes:
        calls: the names of the control plane's calls of ports, in order; of its first process only.
    """

    seed: int
    violations: list[Violation]
    oldest_orphan_s: float
    servers_per_intent_max: int
    events: int
    calls: list[str] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)


class Scene:
    """The parts, wired. Make it within a virtual loop."""

    def __init__(self, chance: Chance) -> None:
        self.chance = chance
        self.provider = SimulatedProvider(chance)
        log = FaultyLog(chance, CODEC)
        self.stored = Stored(log)
        numbers = count(1)
        self.dispatcher = Dispatcher(log, CODEC, now, lambda: f"event-{next(numbers)}")
        truth = self.provider.truth
        self.agents = Agents(ACME, truth, chance, self.dispatcher, self.dispatcher.load)
        self.checks = Checks(truth, log.instances, self.provider.traits.list_lag_s)
        truth.watchers += [self.checks, self.agents]
        log.recorded = self.checks.recorded
        self.wanted: set[str] = set()
        self.control_plane = ControlPlane(self.stored, self._doors(), chance)

    def _doors(self) -> Doors:
        return replace(
            World().doors,
            dispatch=self.dispatcher,
            load=self.dispatcher.load,
            clouds=FixedClouds({"local": self.provider}),
            clock=now,
            probe=self.agents.probe,
            last_heard=self.agents.last_heard,
            list_unsettled=self._list_unsettled,
            list_owning=self._list_owning,
            effects=EffectLedger(MemoryEffectRows(now)),
            history=history_of(self.stored.log),
        )

    async def _list_unsettled(self, after: str) -> list[Unsettled]:
        records = self.stored.log.instances
        return [
            Unsettled(ACME, InstanceId(one))
            for one in sorted(records)
            if one > after and records[one].status not in AT_REST
        ]

    async def _list_owning(
        self,
        after: str,
        /,
        *,
        organization: str = "",
        provider: str = "",
        current: bool = False,
    ) -> list[Owning]:
        return [
            Owning(
                organization=ACME,
                instance_id=InstanceId(one),
                provider="local",
                status=state.status,
                provider_instance_id=state.provider_instance_id,
                agent_url=state.agent_url,
            )
            for one, state in sorted(self.stored.log.instances.items())
            if one > after and state.status not in ENDED
        ]

    async def deploy(self, number: int, instances: int) -> DeploymentId:
        """What web/api/deployments.py records; its checks are not simulated."""
        deployment_id = DeploymentId(f"0192aaaa-0000-7000-8000-{number:012d}")
        ids = instance_ids(deployment_id, instances)
        for ordinal, instance_id in enumerate(ids, start=1):
            await self._insist(instance_id, wish(deployment_id, ordinal))
        self.wanted |= set(ids)
        return deployment_id

    async def end(self, instance_id: str, *, at_once: bool) -> None:
        self.wanted.discard(instance_id)
        command = RequestTermination(reason="user") if at_once else StopInstance(reason="user", drain_deadline_s=60)
        await self._insist(instance_id, command)

    async def _insist(self, instance_id: str, command: Any) -> None:
        """A person presses the button again until it was heard."""
        while True:
            try:
                await self.dispatcher(INSTANCE, ACME, instance_id, command, PERSON)
            except OSError:
                await asyncio.sleep(1.0)
            else:
                return

    async def crash_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(self.chance.between(20.0, 120.0))
            if self.chance.strikes("process_killed"):
                await self.crash()

    async def crash(self) -> None:
        self.checks.counting = False
        self.control_plane.kill()
        await asyncio.sleep(self.chance.between(*DOWN_S))
        self.control_plane.start()

    async def settle(self, timeout_s: float = REST_S) -> None:
        """Faults are over; waits until all is at rest, or the time is up."""
        self.chance.end()
        self.provider.truth.sold_out.clear()
        self.control_plane.start()
        self.checks.counting = True
        await self.provider.settle()
        deadline = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline and not self._is_quiet():  # noqa: ASYNC110 - a look at it all
            await asyncio.sleep(5.0)

    def _is_quiet(self) -> bool:
        self.checks.violations, kept = [], self.checks.violations
        self.checks.at_rest(self.wanted)
        self.checks.violations, found = kept, self.checks.violations
        return not found

    def ending(self, seed: int) -> Ending:
        self.checks.at_rest(self.wanted)
        faults = [Violation("own_faults", words) for words in self.control_plane.faults]
        faults += [Violation("parked", work.reason) for work in self.stored.parking.parked.values()]
        made = self.checks.made_by_name
        return Ending(
            seed=seed,
            violations=self.checks.violations + faults,
            oldest_orphan_s=self.checks.oldest_orphan_s,
            servers_per_intent_max=max(made.values(), default=0),
            events=len(self.stored.log.instances),
            calls=self.control_plane.boundaries.names,
            statuses=Counter(state.status for state in self.stored.log.instances.values()),
        )


def wish(deployment_id: DeploymentId, ordinal: int) -> RequestInstance:
    place = {"instance_type": TYPE, "gpu_count": 1, "vram_per_gpu_gb": 24, "price_eur_micros_per_hour": 750_000}
    return RequestInstance(
        deployment_id=deployment_id,
        ordinal=ordinal,
        model_code="mock-echo-model",
        engine="simulated",
        provider="local",
        zone=ZONES[0],
        startup_timeout_s=STARTUP_TIMEOUT_S,
        activated=("technical", "economic"),
        alternatives=tuple(Place(zone=zone, **place) for zone in ZONES[1:]),  # type: ignore[arg-type] # one dict, two types
        disk_gb=100,
        **place,  # type: ignore[arg-type] # one dict, two types
    )


async def _trouble(scene: Scene) -> None:
    """People come and go while everything that can go wrong does."""
    chance = scene.chance
    for number in range(chance.dice.randint(1, 3)):
        await scene.deploy(number, chance.dice.randint(1, 3))
        await asyncio.sleep(chance.between(0.0, SECOND_THOUGHTS_S))
        if chance.dice.random() < 0.5:
            await scene.end(chance.pick(sorted(scene.wanted)), at_once=True)
    ends_at = asyncio.get_running_loop().time() + TROUBLE_S
    while (left_s := ends_at - asyncio.get_running_loop().time()) > 0:
        await asyncio.sleep(min(left_s, chance.between(10.0, 300.0)))
        await _incident(scene)


async def _incident(scene: Scene) -> None:
    chance, standing = scene.chance, sorted(scene.wanted)
    if chance.strikes("server_deleted_by_hand") and (living := _ours(scene)):
        scene.checks.by_hand(chance.pick(living))
    if chance.strikes("out_of_stock"):
        scene.provider.truth.sold_out ^= {(chance.pick(list(ZONES)), TYPE)}
    if standing and chance.dice.random() < 0.3:
        await scene.end(chance.pick(standing), at_once=chance.dice.random() < 0.5)
    elif standing and chance.dice.random() < 0.1:
        await _reinstall(scene, chance.pick(standing))


async def _reinstall(scene: Scene, instance_id: str) -> None:
    try:
        await scene.dispatcher(INSTANCE, ACME, instance_id, RequestReinstall(), PERSON)
    except (Rejected, OSError):
        return


def _ours(scene: Scene) -> list[Any]:
    return [machine for machine in scene.provider.truth.living() if machine.request.tags]


async def _play(seed: int) -> Ending:
    scene = Scene(Chance(seed))
    scene.control_plane.start()
    background = [asyncio.create_task(scene.checks.watch()), asyncio.create_task(scene.crash_now_and_then())]
    scene.checks.counting = False
    await _trouble(scene)
    background[1].cancel()
    await scene.settle()
    background[0].cancel()
    scene.control_plane.kill()
    return scene.ending(seed)


def play(seed: int) -> Ending:
    """One world from its seed; the same seed gives the same world. What it raises ends it, and is a violation."""
    random.seed(seed)
    try:
        return run_virtually(_play(seed))
    except Exception as fault:  # noqa: BLE001 - whatever it is, the seed is told
        return Ending(seed, [Violation("raised", repr(fault))], 0.0, 0, 0)
