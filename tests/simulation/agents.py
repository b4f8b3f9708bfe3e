"""Worker agents on the simulated servers: they boot, register, report, and die, as the real ones do.

They speak to the log through the same commands as web/api/workers.py sends for them. An agent that is cut off reports
nothing and hears nothing; with a dead-man switch it powers its server off after the bound.
"""

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256

from domain.decider import Rejected
from domain.ids import InstanceId, OrganizationId, WorkerId
from domain.instance import INSTANCE
from domain.instance_commands import ObserveWorker, RegisterWorker
from domain.message import Context
from domain.ports import Dispatch, Load
from tests.simulation.chance import Chance
from tests.simulation.provider import Machine, Truth
from tests.simulation.virtual_time import now

HEARTBEAT_S = 15.0
BOOT_S = (5.0, 60.0)
LOAD_S = (5.0, 60.0)
LIFE_S = (60.0, 1200.0)
CUT_OFF_S = (20.0, 400.0)
CHECKSUM = "b" * 64


@dataclass
class Agents:
    """All agents of one world. `heard`: when each instance's last heartbeat came."""

    organization: OrganizationId
    truth: Truth
    chance: Chance
    dispatch: Dispatch
    load: Load
    dead_man_s: float = 900.0
    heard: dict[str, datetime] = field(default_factory=dict)
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _cut_off: set[str] = field(default_factory=set)

    def made(self, machine: Machine) -> None:
        """A server that is made has no agent yet."""

    def started(self, machine: Machine) -> None:
        if before := self._running.get(machine.id):
            before.cancel()
        self._running[machine.id] = asyncio.create_task(self._live(machine))

    def deleting(self, machine: Machine) -> None:
        if task := self._running.pop(machine.id, None):
            task.cancel()

    async def probe(self, agent_url: str, /) -> bool:
        """Whether the agent at that address answers: it does while it runs and is not cut off."""
        machine = next((m for m in self.truth.living() if agent_url == _agent_url(m)), None)
        task = self._running.get(machine.id) if machine else None
        return task is not None and not task.done() and machine is not None and machine.id not in self._cut_off

    async def last_heard(self, _organization: OrganizationId, instance_id: str, /) -> datetime | None:
        return self.heard.get(instance_id)

    async def _live(self, machine: Machine) -> None:
        instance_id = machine.request.agent_environment.get("INSTANCE_ID", "")
        if not instance_id or self.chance.strikes("agent_never_starts"):
            return
        await asyncio.sleep(self.chance.between(*BOOT_S))
        token = sha256(f"{machine.id}/{machine.reinstalls}".encode()).hexdigest()
        dies_at = now().timestamp() + self.chance.between(*LIFE_S) if self.chance.strikes("agent_dies") else None
        registered = False
        ready_at = now().timestamp() + self.chance.between(*LOAD_S)
        while machine.on_since is not None and (dies_at is None or now().timestamp() < dies_at):
            if self.chance.strikes("agent_cut_off") and await self._is_cut_off_for_good(machine):
                return
            try:
                if not registered:
                    await self._tell(instance_id, _registration(machine, token))
                    registered = True
                state = await self.load(INSTANCE, self.organization, instance_id)
                if token not in (state.state.token_sha256, state.state.next_token_sha256):
                    return  # another worker speaks for this instance by now
                await self._tell(instance_id, _heartbeat(ready=now().timestamp() >= ready_at, token=token))
                self.heard[instance_id] = now()
            except Rejected as refused:
                if refused.code in {"instance_gone", "instance_not_found", "token_already_exists"}:
                    return
            except OSError:
                pass
            await asyncio.sleep(HEARTBEAT_S)

    async def _is_cut_off_for_good(self, machine: Machine) -> bool:
        """True when the cut lasted longer than the dead-man switch allows: the server has powered itself off."""
        cut_s = self.chance.between(*CUT_OFF_S) * (1 if self.chance.dice.random() < 0.8 else 10)
        self._cut_off.add(machine.id)
        try:
            await asyncio.sleep(min(cut_s, self.dead_man_s))
        finally:
            self._cut_off.discard(machine.id)
        if cut_s < self.dead_man_s:
            return False
        machine.on_since = None
        return True

    async def _tell(self, instance_id: str, command: RegisterWorker | ObserveWorker) -> None:
        context = Context(actor="worker:w", correlation=f"worker/{instance_id}")
        await self.dispatch(INSTANCE, self.organization, InstanceId(instance_id), command, context)


def _agent_url(machine: Machine) -> str:
    return f"http://10.0.0.{machine.id.removeprefix('srv-')}:8080"


def _registration(machine: Machine, token: str) -> RegisterWorker:
    return RegisterWorker(
        worker_id=WorkerId(f"worker-of-{machine.id}-{machine.reinstalls}"),
        token_sha256=token,
        token_prefix="wk_simulated",
        engine_url=_agent_url(machine).replace("8080", "8000"),
        agent_url=_agent_url(machine),
        agent_version="1.0.0",
        agent_sha256=CHECKSUM,
    )


def _heartbeat(*, ready: bool, token: str) -> ObserveWorker:
    return ObserveWorker(
        status="ready" if ready else "starting",
        engine_up=ready,
        model_loaded=ready,
        warmed_up=ready,
        queue_depth=0,
        agent_sha256=CHECKSUM,
        token_sha256=token,
    )
