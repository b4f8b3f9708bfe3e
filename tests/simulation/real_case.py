"""One machine's life on real processes, with a `kill -9` of the handlers in it: what people do, and what came of it.

    account ─> deploy ─> booting ─> stop ─> terminated, nothing left     SIGKILL anywhere; a supervisor starts it again

No agent runs behind the server: what handlers do for a machine ends with its address, and begins again with its end.
The surprising rule: nothing is read from the read models. The log says what is wanted, the simulated cloud what is.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from uuid_utils import uuid7

from domain.catalogue import InstanceType
from domain.deployment import DEPLOYMENT, DeploymentCommand, RequestDeployment, StopDeployment, instance_ids
from domain.ids import DeploymentId, InstanceId, OrganizationId
from domain.instance import INSTANCE
from domain.instance_state import Instance
from domain.message import Context
from domain.model import ModelListed
from domain.provider_credentials import purpose_of
from handlers.server_tags import server_name
from infra.providers.scaleway_creation import UNFINISHED
from infra.simulated_clouds.scaleway.resources import Account, Server
from infra.simulated_clouds.scaleway.running import SimulatedScaleway, new_account
from tests.simulation.real_platform import Kept, Lane, kept_handlers
from tests.simulation.real_worker import Kill

CASE_LIMIT_S = 300.0
"""A create that nobody answered settles for 30 s, and the pauses after it have grown by then: 130 s were seen."""
HIT_LIMIT_S = 45.0
"""How long a case at rest waits for its kill: two more rounds of the sweeps."""
CONTROL_LIMIT_S = 10.0
LOOK_EVERY_S = 0.05
ZONE, TYPE = "fr-par-2", "L4-1-24G"
PERSON = Context(actor="user:alice", correlation="the-intent")
Stops = Literal["booted", "killed"]
"""When people stop the deployment: once its machine has an address, or the moment the handlers died."""


@dataclass
class RealCase:
    """What one case came to.

    Attributes:
        calls: names of the calls of its first process, in order.
        left: servers and volumes that are still billed at the end.
        left_when_killed: those there were at the kill, where people stop then.
        servers: that it ever had; an attempt that was cut off may have left one for the sweep.
        servers_per_intent: most servers that one intent got.
        wrong_deletes: of servers that were wanted.
        stuck: what was waited for in vain.
        faults: ends of processes that nobody asked for, servers that nobody intended.
    """

    kill: Kill | None
    killed: bool = False
    calls: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    left_when_killed: list[str] = field(default_factory=list)
    servers: int = 0
    servers_per_intent: int = 0
    wrong_deletes: list[str] = field(default_factory=list)
    stuck: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def violations(self) -> list[str]:
        twice = [f"{self.servers_per_intent} servers for one intent"] if self.servers_per_intent > 1 else []
        return [*self.left, *self.wrong_deletes, *self.stuck, *self.faults, *twice]


class _Story:
    """One organisation with one machine, as people and the provider see it."""

    def __init__(self, lane: Lane, scaleway: SimulatedScaleway, case: RealCase) -> None:
        self.organization = OrganizationId(str(uuid7()))
        self._deployment = DeploymentId(str(uuid7()))
        (self._instance,) = instance_ids(self._deployment, 1)
        self._lane = lane
        self._cloud = scaleway.cloud
        self._account = new_account()
        self._case = case
        self._ends_at = time.monotonic() + CASE_LIMIT_S

    async def open_account(self) -> None:
        self._cloud.add_account(self._account)
        await self._lane.credentials.set(self.organization, purpose_of("scaleway"), _credentials(self._account))

    async def close_account(self) -> None:
        """So that the sweeps of the lane's next case have no more to do than those of this one."""
        await self._lane.credentials.remove(self.organization, purpose_of("scaleway"))

    async def tell(self, command: DeploymentCommand) -> None:
        await self._lane.dispatcher(DEPLOYMENT, self.organization, self._deployment, command, PERSON)

    async def state(self) -> Instance:
        return (await self._lane.dispatcher.load(INSTANCE, self.organization, self._instance)).state

    async def until(self, status: str, also: Callable[[], bool] = lambda: True) -> None:
        """Waits for the instance; when it takes too long, that is noted and the story goes on."""
        while (state := await self.state()).status != status or not also():
            if time.monotonic() > self._ends_at:
                self._case.stuck.append(f"it should be {status}, is {state.status}, {self.left()} is left")
                return
            await asyncio.sleep(LOOK_EVERY_S)

    def hurry(self, limit_s: float) -> None:
        self._ends_at = min(self._ends_at, time.monotonic() + limit_s)

    def left(self) -> list[str]:
        project = self._account.project_id
        servers = [f"server {one.name}" for one in self._cloud.servers.values() if one.project_id == project]
        return servers + [f"volume {one.name}" for one in self._cloud.volumes.values() if one.project_id == project]

    def made(self) -> list[Server]:
        """Every server there ever was."""
        every = [*self._cloud.servers.values(), *(gone.server for gone in self._cloud.gone)]
        return [server for server in every if server.project_id == self._account.project_id]

    async def note_wrong_deletes(self) -> None:
        """Before anybody asked for an end: the server on record stands, and nobody tried to delete it."""
        server_id = (await self.state()).provider_instance_id.rpartition("/")[2]
        if server_id not in self._cloud.servers:
            self._case.wrong_deletes.append(f"the server on record, {server_id!r}, is gone")
        calls = {call.operation for call in self._cloud.calls if call.resource_id == server_id}
        self._case.wrong_deletes += [f"{name} of a wanted server" for name in calls & {"delete_server"}]

    async def note_the_end(self, kept: Kept) -> None:
        names = Counter(server.name.removesuffix(UNFINISHED) for server in self.made())
        intended = _intended_names(self._instance, (await self.state()).attempt)
        case = self._case
        case.servers = names.total()
        case.servers_per_intent = max(names.values(), default=0)
        case.left = self.left()
        case.faults += [*kept.faults, *(f"nobody intended {name}" for name in names.keys() - intended)]
        case.killed, case.calls = kept.killed, kept.calls


async def play(
    lane: Lane, scaleway: SimulatedScaleway, kill: Kill | None, *, stops: Stops = "booted", restarts: bool = True
) -> RealCase:
    """One case. `restarts` False: who was killed stays dead, and after CONTROL_LIMIT_S the case is over."""
    case = RealCase(kill)
    story = _Story(lane, scaleway, case)
    await story.open_account()
    await story.tell(_wish())
    async with kept_handlers(lane, story.organization, kill, restarts=restarts) as kept:
        if stops == "booted":
            await story.until("booting")
            await story.note_wrong_deletes()
        else:
            await _until_killed(kept)
            case.left_when_killed = story.left()
        if not restarts:
            story.hurry(CONTROL_LIMIT_S)
        await story.tell(StopDeployment())
        await story.until("terminated", lambda: not story.left())
        if kill is not None and not case.stuck:
            await _until_killed(kept)
        await story.note_the_end(kept)
    await story.close_account()
    return case


async def _until_killed(kept: Kept) -> None:
    gives_up_at = time.monotonic() + HIT_LIMIT_S
    while not kept.killed and time.monotonic() < gives_up_at:  # noqa: ASYNC110 - another process's end
        await asyncio.sleep(LOOK_EVERY_S)


def _intended_names(instance_id: InstanceId, attempts: int) -> set[str]:
    return {server_name(instance_id, attempt) for attempt in range(1, attempts + 1)}


def _credentials(account: Account) -> dict[str, str]:
    names = ("project_id", "secret_key", "access_key", "organization_id")
    return {name: getattr(account, name) for name in names}


def _wish() -> RequestDeployment:
    model = ModelListed(code="mock-echo-model", name="mock", required_vram_gb=0, context_length=2048, data_volume_gb=0)
    offer = InstanceType(
        code=TYPE, gpu_count=1, vram_per_gpu_gb=24, cpu_count=8, ram_gb=48, price_eur_micros_per_hour=750_000
    )
    return RequestDeployment(
        model_code=model.code,
        instances=1,
        engine="simulated",
        provider="scaleway",
        zone=ZONE,
        instance_type=TYPE,
        startup_timeout_s=3600,
        provider_known=True,
        zone_known=True,
        model=model,
        offer=offer,
        offered_in_zone=True,
        activate=("technical", "economic"),
        disk_gb=100,
    )
