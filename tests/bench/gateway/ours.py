"""Our gateway as its users run it, on a real log, with everything on; and its accounts, which must be exact.

    EVENTS: an organisation, a key with limits, two ready workers     `serve gateway` ──> USAGE
    heartbeats of both workers every HEARTBEAT_S

The key has every kind of limit, each too high to be met. The surprising rule of its cost: usage records may leave for
USAGE after the answers that they account for, so a run is paid for only when USAGE holds all of them.
"""

import asyncio
import contextlib
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec
from nats.aio.client import Client

from domain.ids import InstanceId, WorkerId
from domain.key_scope import KeyScope
from domain.telemetry import WorkerSeen, heartbeat_subject
from domain.usage import UsageRecord
from infra.embedded.child import EmbeddedServerError, log_tail, stop, wait_until
from infra.embedded.nats import EmbeddedNats
from infra.embedded.ports import free_port
from infra.environment import surroundings
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.pull import follow_messages
from infra.events.streams import USAGE, ensure_streams
from tests.bench.gateway.contenders import FIRST_PORT, GRACE_S, MODEL, Running, make_place
from tests.bench.gateway.processes import Command, on_core, start
from tests.examples import ACME
from tests.gateway.routing import CLEAR_KEY, key, ready, tell

COMMAND = ("-m", "infra.cli.main", "serve", "gateway")
"""What is given to the interpreter."""
LIMITS = KeyScope(
    role="owner",
    requests_per_minute=10**9,
    tokens_per_minute=10**12,
    concurrency=10**6,
    spend_limit_eur_micros=10**15,
)
GPUS = 64
"""Of each worker: a thousand streams are within what two such workers may take at once."""
HEARTBEAT_S = 5.0
READY_S = 30.0
SETTLE_S = 120.0
"""Longest wait until USAGE holds what was answered."""
COUNT_S = 300.0
POLL_S = 0.05


class UnaccountedError(AssertionError):
    """USAGE does not hold exactly one record for each request that was answered."""


@dataclass
class Platform:
    """A log with all that the gateway asks of it.

    Attributes:
        answered, tokens: what clients were given in all, so what USAGE must hold.
        variables: of the gateway's process.
    """

    nats: EmbeddedNats
    client: Client
    position: int
    variables: dict[str, str] = field(default_factory=dict)
    answered: int = 0
    tokens: int = 0

    async def recorded(self) -> int:
        """Messages in USAGE."""
        return int((await self.client.jetstream().stream_info(USAGE)).state.messages)

    async def until_settled(self) -> None:
        """Returns once USAGE holds a record for each answer.

        Raises:
            UnaccountedError: not within SETTLE_S, or more than that.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                while await self.recorded() < self.answered:  # noqa: ASYNC110 - it grows in another process
                    await asyncio.sleep(POLL_S)
        recorded = await self.recorded()
        if recorded != self.answered:
            raise UnaccountedError(f"{recorded} usage records for {self.answered} requests answered")

    async def count(self) -> None:
        """Reads every record: all of them of different requests, and their tokens as many as clients were given.

        Raises:
            UnaccountedError: otherwise.
        """
        await self.until_settled()
        seen: set[str] = set()
        total = tokens = 0
        reader = await connect_reader(self.nats.url, "bench-count")
        async with asyncio.timeout(COUNT_S), follow_messages(reader, USAGE, after=0) as batches:
            while total < self.answered:
                for message in await anext(batches):
                    record = msgspec.json.decode(message.payload, type=UsageRecord)
                    seen.add(record.request_id)
                    total += 1
                    tokens += record.completion_tokens
        await disconnect(reader)
        if len(seen) != self.answered or tokens != self.tokens:
            raise UnaccountedError(
                f"{total} records of {len(seen)} requests with {tokens} tokens, "
                f"for {self.answered} answers with {self.tokens}"
            )


@asynccontextmanager
async def platform(folder: Path, core: int, engines: Sequence[int]) -> AsyncIterator[Platform]:
    """A nats-server away from the gateway's core, and what happened so far."""
    server = EmbeddedNats(folder / "nats", free_port(FIRST_PORT + 200))
    with on_core(core):
        await server.start()
    client = await connect_writer(server.admin_url, "bench")
    beating = None
    try:
        await ensure_streams(client)
        told = [key(scope=LIMITS)]
        for number, engine in enumerate(engines):
            told.append(ready(f"i{number}", f"http://127.0.0.1:{engine}", model=MODEL, gpus=GPUS))
        position = await tell(JetStreamLog(client), *told)
        beating = asyncio.create_task(_beat(client, len(engines)))
        yield Platform(server, client, position)
    finally:
        if beating is not None:
            beating.cancel()
        await disconnect(client)
        await server.stop()


@asynccontextmanager
async def running_ours(on: Platform, folder: Path, core: int, command: Command) -> AsyncIterator[Running]:
    """The gateway, fresh: its table read from the log, nothing of an earlier run on its disk.

    Raises:
        EmbeddedServerError: it does not come up; with the end of its log.
    """
    port, log = free_port(FIRST_PORT), folder / "log"
    variables = {
        **surroundings(),
        "INVENTIV_DATA_DIR": str(folder / "data"),
        "INVENTIV_NATS_URL": on.nats.url_of("gateway"),
        "INVENTIV_NATS_MONITOR_URL": on.nats.monitor_url,
        "INVENTIV_GATEWAY_PORT": str(port),
        **on.variables,
    }
    make_place(folder)
    process = await start(command, core=core, log=log, variables=variables)
    try:
        try:
            await wait_until(lambda: _is_ready(process, port, on.position), "our gateway", READY_S)
        except EmbeddedServerError as error:
            raise EmbeddedServerError(f"{error}; its log ends:\n{log_tail(log)}") from error
        yield Running(port, process.pid, CLEAR_KEY)
    finally:
        await stop(process, grace_s=3 * GRACE_S)


async def _is_ready(process: Process, port: int, position: int) -> bool:
    if process.returncode is not None:
        raise EmbeddedServerError(f"our gateway ended with status {process.returncode}")
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
            reply = await client.get(f"http://127.0.0.1:{port}/readyz")
    except httpx.TransportError:
        return False
    return reply.status_code == 200 and reply.json()["position"] >= position


async def _beat(client: Client, workers: int) -> None:
    while True:
        for number in range(workers):
            seen = WorkerSeen(
                organization_id=ACME,
                instance_id=InstanceId(f"i{number}"),
                worker_id=WorkerId(f"w{number}"),
                at=datetime.now(UTC),
                status="ready",
                queue_depth=0,
            )
            await client.publish(heartbeat_subject(ACME, seen.instance_id), msgspec.json.encode(seen))
        await asyncio.sleep(HEARTBEAT_S)
