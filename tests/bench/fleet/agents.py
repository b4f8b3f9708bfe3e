"""Many agents in one process: each registers and then reports on its own clock, through the agent's own client."""

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from random import uniform
from uuid import uuid4

import aiohttp

from agent.build import own_checksum
from agent.protocol import AgentInfo, Heartbeat, RegisterRequest
from agent.report import ControlPlane, ControlPlaneUnreachableError
from agent.version import AGENT_BUILD_DATE, AGENT_VERSION
from infra.master_key import MasterKey
from infra.vault import WorkerTokens

MODEL = "mock-echo-model"
ADDRESS = "127.0.0.1"
REGISTERED_TOGETHER = 16


@dataclass
class Fleet:
    """Agents of instances that are on record, at one address.

    Attributes:
        took_s: how long each heartbeat took to be answered.
        failed: heartbeats without an answer.
    """

    api_url: str
    key: MasterKey
    interval_s: float
    took_s: list[float] = field(default_factory=list)
    failed: int = 0
    _info: AgentInfo = field(default_factory=lambda: AgentInfo(AGENT_VERSION, AGENT_BUILD_DATE, own_checksum()))

    async def run(self, instance_ids: list[str], registered: asyncio.Event) -> None:
        """Until it is cancelled; `registered` is set when all are ready."""
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
            client = ControlPlane(http, self.api_url)
            turns = asyncio.Semaphore(REGISTERED_TOGETHER)
            tokens = await asyncio.gather(*(self._register(client, one, turns) for one in instance_ids))
            registered.set()
            pairs = zip(instance_ids, tokens, strict=True)
            await asyncio.gather(*(self._report(client, one, token) for one, token in pairs))

    async def _register(self, client: ControlPlane, instance_id: str, turns: asyncio.Semaphore) -> str:
        request = RegisterRequest(
            instance_id=instance_id,
            worker_id=str(uuid4()),
            model_id=MODEL,
            vllm_port=8000,
            health_port=8080,
            ip_address=ADDRESS,
            base_url=f"http://{ADDRESS}:8000",
            agent_url=f"http://{ADDRESS}:8080",
            agent_info=self._info,
        )
        async with turns:
            reply = await client.register(WorkerTokens(self.key).bootstrap_token(instance_id, 1), request)
            await client.heartbeat(reply.worker_token, self._beat(instance_id))
        return reply.worker_token

    async def _report(self, client: ControlPlane, instance_id: str, token: str) -> None:
        await asyncio.sleep(uniform(0, self.interval_s))
        due = time.monotonic()
        while True:
            began = time.perf_counter()
            try:
                await client.heartbeat(token, self._beat(instance_id))
                self.took_s.append(time.perf_counter() - began)
            except ControlPlaneUnreachableError:
                self.failed += 1
            due += self.interval_s
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    def _beat(self, instance_id: str) -> Heartbeat:
        return Heartbeat(
            instance_id=instance_id,
            worker_id="worker",
            status="ready",
            model_id=MODEL,
            engine_up=True,
            model_loaded=True,
            warmed_up=True,
            queue_depth=secrets.randbelow(3),
            ip_address=ADDRESS,
            agent_info=self._info,
            gpu_utilization=40.0,
            gpu_mem_used_mb=20_000.0,
        )
