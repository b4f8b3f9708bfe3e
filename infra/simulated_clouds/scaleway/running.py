"""Runs the simulated Scaleway: in process for a test, or as a program until it is told to stop.

    async with simulated_scaleway() as scaleway:     scaleway.url, .secret_key, .cloud, .faults, .clock

The surprising rule: whatever ends it, its agents end first; and without a `speed` its time stands still until
`clock.advance`.
"""

import asyncio
import contextlib
import secrets
import string
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from aiohttp import web

from infra.simulated_clouds.scaleway.app import scaleway_app
from infra.simulated_clouds.scaleway.clock import Clock
from infra.simulated_clouds.scaleway.cloud import SimulatedCloud
from infra.simulated_clouds.scaleway.faults import Faults
from infra.simulated_clouds.scaleway.machines import AgentMachines
from infra.simulated_clouds.scaleway.power import power_off_from_within
from infra.simulated_clouds.scaleway.resources import Account

SETTLE_EVERY_S = 0.02
"""Of real time: how late a machine may start or a state may change when nobody asks."""
SHUTDOWN_S = 1.0
ACCESS_KEY_LENGTH = 17
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class SimulatedScaleway:
    """A running one; `account` is the first of its accounts."""

    url: str
    account: Account
    cloud: SimulatedCloud
    faults: Faults
    machines: AgentMachines | None

    @property
    def clock(self) -> Clock:
        return self.cloud.clock

    @property
    def access_key(self) -> str:
        return self.account.access_key

    @property
    def secret_key(self) -> str:
        return self.account.secret_key

    @property
    def project_id(self) -> str:
        return self.account.project_id

    @property
    def organization_id(self) -> str:
        return self.account.organization_id


def new_account() -> Account:
    """Of a new organisation; its keys have the forms that the SDK insists on."""
    letters = string.ascii_uppercase + string.digits
    access_key = "SCW" + "".join(secrets.choice(letters) for _ in range(ACCESS_KEY_LENGTH))
    return Account(str(uuid4()), str(uuid4()), access_key, str(uuid4()))


@contextlib.asynccontextmanager
async def simulated_scaleway(
    *,
    speed: float | None = None,
    agents: Path | None = None,
    agent_environment: Mapping[str, str] | None = None,
    port: int = 0,
    account: Account | None = None,
) -> AsyncIterator[SimulatedScaleway]:
    """A simulated Scaleway on 127.0.0.1, served by the running loop: call it from threads, or from other processes.

    Args:
        speed: simulated seconds in a real one; None: time stands still but for `clock.advance`.
        agents: a folder; servers that are switched on run our agent there. None: nothing stands behind them.
        agent_environment: variables for every agent, on top of cloud-init's.
        port: 0 takes a free one.
        account: the first one; None makes a new one.

    Raises:
        OSError: the port is taken.
    """
    machines = await asyncio.to_thread(AgentMachines, agents, agent_environment) if agents is not None else None
    cloud = SimulatedCloud(Clock(speed), machines)
    first = account or new_account()
    cloud.add_account(first)
    faults = Faults()
    runner = web.AppRunner(scaleway_app(cloud, faults), access_log=None, shutdown_timeout=SHUTDOWN_S)
    settling: asyncio.Task[None] | None = None
    try:
        await runner.setup()
        site = web.TCPSite(runner, LOOPBACK, port)
        await site.start()
        settling = asyncio.create_task(_keep_settled(cloud))
        taken = runner.addresses[0][1]
        yield SimulatedScaleway(f"http://{LOOPBACK}:{taken}", first, cloud, faults, machines)
    finally:
        if settling is not None:
            settling.cancel()
            await asyncio.gather(settling, return_exceptions=True)
        await runner.cleanup()
        if machines is not None:
            await asyncio.to_thread(machines.close)


async def _keep_settled(cloud: SimulatedCloud) -> None:
    while True:
        cloud.clock.settle()
        for server_id in cloud.machines.powered_off():
            power_off_from_within(cloud, server_id)
        await asyncio.sleep(SETTLE_EVERY_S)
