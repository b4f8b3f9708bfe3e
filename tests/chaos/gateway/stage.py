"""What every part plays on: a real nats-server, simulated engines, gateways as processes, and what they must be told.

    EVENTS: tenants and their keys, one provider's workers and offering       heartbeats of all workers
    engines, one process each <── `serve gateway`, one process or several on one data folder ──> USAGE

Each tenant is an organisation with one key; all call the provider's offering, so that one queue stands before the same
workers. The surprising rule: nothing here waits for time; a process is ready when it says so in its own file.
"""

import asyncio
import contextlib
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import msgspec
import nats.errors
from nats.aio.client import Client

from agent.child import own_command
from agent.simulated_engine import Behaviour
from agent.simulated_ledger import Entry
from domain.api_key import ApiKeyIssued, key_from, key_hash
from domain.ids import InstanceId, WorkerId
from domain.telemetry import WorkerSeen, heartbeat_subject
from domain.usage import UsageRecord
from infra.embedded.child import KILL_GRACE_S, EmbeddedServerError, log_tail, spawn, stop, wait_until
from infra.embedded.nats import EmbeddedNats
from infra.environment import surroundings
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.pull import follow_messages
from infra.events.streams import USAGE, ensure_streams
from infra.processes.roles import ready_file
from tests.conftest import some_port, started
from tests.examples import ACME, example
from tests.gateway.routing import Said, founded, key, offered, ready, tell

SERVE = (sys.executable, "-m", "infra.cli.main", "serve", "gateway")
MODEL = "mock-echo-model"
OFFERING = "acme/chat"
HEARTBEAT_S = 1.0
READY_S = 40.0
GRACE_S = 15.0
"""More than the 8 s that a stopping gateway gives to what runs."""
SETTLE_S = 90.0
"""Longest wait for USAGE to hold what was asked, once everything runs again."""
POLL_S = 0.2
READ_S = 60.0


@dataclass(frozen=True)
class Tenant:
    """An organisation with one key."""

    name: str
    secret: str

    @property
    def key_id(self) -> str:
        return f"key-{self.name}"

    @property
    def headers(self) -> Mapping[str, str]:
        return {"authorization": f"Bearer {self.secret}"}

    @property
    def story(self) -> list[Said]:
        """How it came to be."""
        issued = msgspec.structs.replace(
            example(ApiKeyIssued), key_sha256=key_hash(self.secret), key_prefix=self.secret[:12]
        )
        return [*founded(self.name, self.name), (self.name, self.key_id, issued)]


def tenant(number: int) -> Tenant:
    return Tenant(f"tenant-{number}", key_from(number.to_bytes(28, "big")))


@dataclass
class Engine:
    """A simulated engine, which may be killed and started again at the same address."""

    name: str
    port: int
    behaviour: Behaviour
    model: str
    log_path: Path
    process: Process | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Returns once it listens.

        Raises:
            EmbeddedServerError: it does not, within READY_S.
        """
        behaviour = msgspec.json.encode(self.behaviour).decode()
        words = ("engine", "--model", self.model, "--port", str(self.port), "--behaviour", behaviour)
        self.process = await spawn(own_command(*words), env=surroundings(), log_path=self.log_path)
        await wait_until(lambda: _listens(self.port), f"engine {self.name}", READY_S)

    async def kill(self) -> None:
        """SIGKILL; its ledger is gone with it."""
        if self.process is not None:
            await stop(self.process, signal.SIGKILL)
            self.process = None


@dataclass
class Gateway:
    """One `serve gateway`; `log_path` is its alone."""

    process: Process
    port: int
    log_path: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    async def kill(self) -> None:
        await stop(self.process, signal.SIGKILL)

    async def stop(self) -> None:
        await stop(self.process, grace_s=GRACE_S)

    async def ended(self, within_s: float) -> bool:
        """Whether it has ended by itself by then, and in good order."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.process.wait()
        return self.process.returncode == 0


@dataclass
class Stage:
    """All of it; made by `stage`.

    Attributes:
        variables: for every gateway that starts from now on.
        client: an administrator's, for the log and for heartbeats.
    """

    folder: Path
    nats: EmbeddedNats
    client: Client
    engines: Sequence[Engine]
    tenants: Sequence[Tenant]
    port: int
    variables: dict[str, str] = field(default_factory=dict)
    gateways: list[Gateway] = field(default_factory=list)
    _starts: int = 0

    @property
    def url(self) -> str:
        """Of the gateway, whichever process serves it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def accounts(self) -> Path:
        """Where gateways of this stage keep what they owe."""
        return self.folder / "data" / "gateway"

    async def start_gateway(self, command: Sequence[str] = SERVE, *, port: int = 0) -> Gateway:
        """A further process on the same data folder; with the same port it takes over from the one that serves there.

        Raises:
            EmbeddedServerError: not ready within READY_S; with the end of its log.
        """
        self._starts += 1
        port, log_path = port or self.port, self.folder / f"gateway-{self._starts}.log"
        mark = ready_file(self.folder / "data", "gateway")
        mark.parent.mkdir(parents=True, exist_ok=True)
        settings = {
            **surroundings(),
            "INVENTIV_DATA_DIR": str(self.folder / "data"),
            "INVENTIV_NATS_URL": self.nats.url_of("gateway"),
            "INVENTIV_NATS_MONITOR_URL": self.nats.monitor_url,
            "INVENTIV_GATEWAY_PORT": str(port),
            **self.variables,
        }
        process = await spawn(command, env=settings, log_path=log_path)
        gateway = Gateway(process, port, log_path)
        self.gateways.append(gateway)

        async def says_ready() -> bool:
            if process.returncode is not None:
                raise EmbeddedServerError(f"the gateway ended with status {process.returncode}")
            return mark.exists() and mark.read_text().strip() == str(process.pid)

        try:
            await wait_until(says_ready, "the gateway", READY_S)
        except EmbeddedServerError as error:
            raise EmbeddedServerError(f"{error}; its log ends:\n{log_tail(log_path)}") from error
        return gateway

    async def tell(self, *said: Sequence[Said]) -> None:
        """Writes events to the log."""
        await tell(JetStreamLog(self.client), *said)

    async def recorded(self) -> int:
        """Messages in USAGE."""
        return int((await self.client.jetstream().stream_info(USAGE)).state.messages)

    async def records(self, request_ids: Collection[str], within_s: float = SETTLE_S) -> list[UsageRecord]:
        """All of USAGE, once it holds these requests, or as it is by then. An id that is there twice comes twice."""
        missing, count = set(request_ids), 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while missing:
                    if (recorded := await self.recorded()) > count:
                        missing -= {record.request_id for record in await self._read(recorded)}
                        count = recorded
                    await asyncio.sleep(POLL_S)
        return await self._read(await self.recorded())

    async def _read(self, count: int) -> list[UsageRecord]:
        found: list[UsageRecord] = []
        if count:
            reader = await connect_reader(self.nats.url, "chaos-count")
            try:
                async with asyncio.timeout(READ_S), follow_messages(reader, USAGE, after=0) as batches:
                    while len(found) < count:
                        found += [msgspec.json.decode(m.payload, type=UsageRecord) for m in await anext(batches)]
            finally:
                await disconnect(reader)
        return found

    async def engine_counts(self, request_ids: Sequence[str]) -> dict[str, Entry]:
        """What living engines know of these requests; of a request that several know, the one that did most."""
        found: dict[str, Entry] = {}
        async with aiohttp.ClientSession() as client:
            for engine in self.engines:
                if engine.process is None:
                    continue
                for request_id in request_ids:
                    async with client.get(f"{engine.url}/simulated/requests/{request_id}") as reply:
                        if reply.status != 200:
                            continue
                        entry = msgspec.json.decode(await reply.read(), type=Entry)
                        before = found.get(request_id)
                        if before is None or before.completion_tokens < entry.completion_tokens:
                            found[request_id] = entry
        return found


@asynccontextmanager
async def stage(
    folder: Path, engines: Sequence[Behaviour], *, tenants: int = 1, others: Mapping[str, Behaviour] | None = None
) -> AsyncIterator[Stage]:
    """Engines, log and tenants; gateways are started by whoever plays.

    Args:
        folder: made when absent.
        engines: of MODEL, which is called as OFFERING.
        others: further models, called as `acme/<code>`, each with an engine of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)  # noqa: ASYNC240 - once, before anything plays
    nats = await started(lambda: EmbeddedNats(folder / "nats", some_port()))
    client = await connect_writer(nats.admin_url, "chaos")
    wanted = [*((MODEL, behaviour) for behaviour in engines), *(others or {}).items()]
    running = [
        Engine(f"i{n}", some_port(), behaviour, model, folder / f"engine-{n}.log")
        for n, (model, behaviour) in enumerate(wanted)
    ]
    people = [tenant(number) for number in range(1, tenants + 1)]
    play = Stage(folder, nats, client, running, people, some_port())
    beating = None
    try:
        await ensure_streams(client)
        for engine in running:
            await engine.start()
        workers = [ready(engine.name, engine.url, model=engine.model) for engine in running]
        offers = [offered(model=MODEL), *(offered(code, model=code) for code in others or {})]
        await play.tell(*(one.story for one in people), key(organization=ACME), *workers, *offers)
        beating = asyncio.create_task(_beat(play))
        yield play
    finally:
        if beating is not None:
            beating.cancel()
        for gateway in play.gateways:
            await stop(gateway.process, grace_s=KILL_GRACE_S)
        for engine in running:
            await engine.kill()
        await disconnect(client)
        await nats.stop()


async def _beat(play: Stage) -> None:
    while True:
        for engine in play.engines:
            seen = WorkerSeen(
                organization_id=ACME,
                instance_id=InstanceId(engine.name),
                worker_id=WorkerId(f"w-{engine.name}"),
                at=datetime.now(UTC),
                status="ready",
                queue_depth=0,
            )
            with contextlib.suppress(nats.errors.Error, OSError):  # the server may be away: that is played here
                await play.client.publish(heartbeat_subject(ACME, seen.instance_id), msgspec.json.encode(seen))
        await asyncio.sleep(HEARTBEAT_S)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
