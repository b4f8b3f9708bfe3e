"""The provider `bare_metal`: an organisation's own hosts, each reached by SSH with the organisation's key.

    create: a free host is taken by a record on the host itself      start: the bootstrap runs there, by itself
    delete: the worker is removed and the record with it: the host is free again, and nothing is destroyed

Who holds a host is asked of the host, never remembered here: two platforms that enrolled the same one can never both
take it. The surprising rule: an id names a holding ("<host>/<of its name>"), not the host. The next instance on a host
has another id, so a late delete for the last one cannot reach it.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Protocol, TypeGuard

from domain.host import HostFacts, open_for_s
from handlers.cloud_ports import (
    Absent,
    CloudRefusedError,
    CloudTraits,
    CloudUnavailableError,
    CommandRun,
    Existence,
    Offer,
    Ports,
    Present,
    Server,
    ServerRequest,
    Stock,
    Unknown,
    Volumes,
)
from handlers.server_tags import PLATFORM_TAG
from infra.providers.bare_metal_script import Deed, Holding, HostRecord, NoAnswerError, deed_script, holding_of, key_of
from infra.providers.bootstrap.script import bootstrap_script
from infra.ssh import Login, Place, run_script

AGENT_PATH = "/internal/worker/agent.pyz"
LEAST_OPEN_S = 900.0
"""A host whose slot ends sooner is not taken: it would hardly serve before it drains."""
AT_ONCE = 16
"""Hosts that are asked at the same time."""
LOOK_TIMEOUT_S = 20.0
DEED_TIMEOUT_S = 110.0
"""Ending a worker takes up to 45 s."""


class EnrolledHost(Protocol):
    """As projections/hosts.py shows one."""

    @property
    def id(self) -> str: ...

    @property
    def address(self) -> str: ...

    @property
    def ssh_port(self) -> int: ...

    @property
    def facts(self) -> HostFacts: ...


ListHosts = Callable[[], Awaitable[Sequence[EnrolledHost]]]
"""Of the organisation, those that are enrolled now. Raises OSError: not known now."""


class BareMetalCloud:
    """Implements handlers.cloud_ports.Cloud for one organisation's hosts.

    Args:
        hosts: which there are.
        private_key: lets us in at each of them.
        agent_sha256: of the agent's archive, which the control plane serves.
        clock: tells which slots are open.
    """

    def __init__(self, hosts: ListHosts, *, private_key: str, agent_sha256: str, clock: Callable[[], datetime]) -> None:
        self._hosts = hosts
        self._private_key = private_key
        self._agent_sha256 = agent_sha256
        self._clock = clock
        self._turns = asyncio.Semaphore(AT_ONCE)

    traits = CloudTraits(creates_idempotently=True, keeps_servers=True, reached_by_ssh=False)
    """`start_server` itself installs, with what belongs to this host; a Shell's script knows nothing of that."""
    volumes: Volumes | None = None
    ports: Ports | None = None

    @property
    def offers(self) -> "BareMetalCloud":
        return self

    async def create_server(self, request: ServerRequest) -> Server:
        """Takes the first free host in an order that the name decides, so that two calls with one name meet."""
        places = (request.zone, request.instance_type)
        fitting = [host for host in await self._enrolled() if _offered(host) == places]
        holdings = await self._look(fitting)
        for host in fitting:
            holding = holdings[host.id]
            if _is_named(holding, request.name):
                return _server(host, holding)
        now = self._clock()
        free = [h for h in fitting if holdings[h.id] is None and open_for_s(h.facts.slots, now) >= LEAST_OPEN_S]
        for host in sorted(free, key=lambda host: sha256(f"{request.name}/{host.id}".encode()).digest()):
            holding = await self._claim(host, request)
            if _is_named(holding, request.name):
                return _server(host, holding)
        held = sum(holding is not None for holding in holdings.values())
        message = (
            f"of {len(fitting)} hosts of type {request.instance_type} in zone {request.zone}, {held} are held and "
            f"{len(fitting) - held - len(free)} outside their slots"
        )
        raise CloudRefusedError("PROVIDER_OUT_OF_STOCK", message, "out_of_stock")

    async def start_server(self, provider_instance_id: str) -> None:
        """Starts the bootstrap on the host and returns; it reports its phases itself."""
        await self._run_worker("start", "PROVIDER_START_FAILED", provider_instance_id)

    async def stop_server(self, provider_instance_id: str) -> None:
        host, holding = await self._held(provider_instance_id, "PROVIDER_STOP_FAILED")
        await self._do(host, deed_script("stop", holding.key), DEED_TIMEOUT_S)

    async def reinstall_server(self, provider_instance_id: str) -> None:
        await self._run_worker("reinstall", "PROVIDER_REINSTALL_FAILED", provider_instance_id)

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:
        try:
            hosts = await self._enrolled()
        except CloudUnavailableError as unavailable:
            return Unknown(str(unavailable))
        if provider_instance_id:
            return await self._find(hosts, *_split(provider_instance_id))
        return await self._find_named(name, [host for host in hosts if not zone or host.facts.zone == zone])

    async def list_servers(self) -> Sequence[Server]:
        hosts = await self._enrolled()
        holdings = await self._look(hosts)
        return [_server(host, held) for host in hosts if _is_ours(held := holdings[host.id])]

    async def delete_server(self, provider_instance_id: str) -> None:
        """Removes the worker and gives the host back; a host that is not held under this id is left alone."""
        host_id, key = _split(provider_instance_id)
        host = _find_id(await self._enrolled(), host_id)
        if host is not None:
            await self._do(host, deed_script("delete", key), DEED_TIMEOUT_S)

    async def list_offers(self) -> Sequence[Offer]:
        """One line for each zone and type; a host that does not answer counts as taken."""
        hosts = await self._enrolled()
        answers = await asyncio.gather(*(self._read(host) for host in hosts), return_exceptions=True)
        free: Counter[tuple[str, str]] = Counter()
        now = self._clock()
        for host, answer in zip(hosts, answers, strict=True):
            free[_offered(host)] += answer is None and open_for_s(host.facts.slots, now) >= LEAST_OPEN_S
        lines = {_offered(host): host.facts for host in hosts}
        return [
            _offer(facts, "available" if free[line] else "out") for line, facts in sorted(lines.items(), key=_first)
        ]

    async def _claim(self, host: EnrolledHost, request: ServerRequest) -> Holding | None:
        record = HostRecord(
            name=request.name,
            tags=dict(request.tags),
            zone=request.zone,
            instance_type=request.instance_type,
            environment=dict(request.agent_environment),
            created_at=self._clock(),
        )
        script = deed_script("claim", key_of(request.name), record=record)
        return await self._do(host, script, LOOK_TIMEOUT_S)

    async def _run_worker(self, deed: Deed, code: str, provider_instance_id: str) -> None:
        host, holding = await self._held(provider_instance_id, code)
        script = deed_script(deed, holding.key, bootstrap=self._bootstrap(host, holding.record.environment))
        after = await self._do(host, script, DEED_TIMEOUT_S)
        if after is None or after.key != holding.key:
            raise CloudRefusedError(code, f"{provider_instance_id} was given back meanwhile.", "not_found")

    def _bootstrap(self, host: EnrolledHost, environment: Mapping[str, str]) -> str:
        control_plane_url = environment.get("CONTROL_PLANE_URL", "").rstrip("/")
        return bootstrap_script(
            {"WORKER_ADVERTISE_IP": host.address, **environment},
            agent_url=f"{control_plane_url}{AGENT_PATH}",
            agent_sha256=self._agent_sha256,
        )

    async def _held(self, provider_instance_id: str, code: str) -> tuple[EnrolledHost, Holding]:
        host_id, key = _split(provider_instance_id)
        host = _find_id(await self._enrolled(), host_id)
        holding = await self._read(host) if host else None
        if host is None or holding is None or holding.key != key:
            raise CloudRefusedError(code, f"No host is held under {provider_instance_id}.", "not_found")
        return host, holding

    async def _find(self, hosts: Sequence[EnrolledHost], host_id: str, key: str) -> Existence:
        host = _find_id(hosts, host_id)
        if host is None:
            return Absent()
        try:
            holding = await self._read(host)
        except (CloudRefusedError, CloudUnavailableError) as trouble:
            return Unknown(_words(trouble))
        return Present(_server(host, holding)) if _is_ours(holding) and holding.key == key else Absent()

    async def _find_named(self, name: str, hosts: Sequence[EnrolledHost]) -> Existence:
        """Found on a host that answers is found; not found is absent only when every host has answered."""
        answers = await asyncio.gather(*(self._read(host) for host in hosts), return_exceptions=True)
        for host, answer in zip(hosts, answers, strict=True):
            if isinstance(answer, Holding) and _is_named(answer, name):
                return Present(_server(host, answer))
        for answer in answers:
            if isinstance(answer, CloudRefusedError | CloudUnavailableError):
                return Unknown(_words(answer))
            if isinstance(answer, BaseException):
                raise answer
        return Absent()

    async def _look(self, hosts: Sequence[EnrolledHost]) -> dict[str, Holding | None]:
        """What each host says, by its id; one that does not answer makes all of it unknown."""
        answers = await asyncio.gather(*(self._read(host) for host in hosts), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer
        return {h.id: a for h, a in zip(hosts, answers, strict=True) if not isinstance(a, BaseException)}

    async def _read(self, host: EnrolledHost) -> Holding | None:
        return await self._do(host, deed_script("read"), LOOK_TIMEOUT_S)

    async def _do(self, host: EnrolledHost, script: str, timeout_s: float) -> Holding | None:
        """Does one deed; who holds the host afterwards."""
        login = Login(user=host.facts.ssh_user, private_key=self._private_key)
        place = Place(host.address, host.ssh_port)
        try:
            async with self._turns:
                run = await run_script(
                    place, login, script, trusts=host.facts.host_key_fingerprint.__eq__, timeout_s=timeout_s
                )
            return _told(run)
        except CloudRefusedError as refused:
            raise CloudRefusedError(
                refused.code, f"host {host.facts.name}: {refused.message}", refused.kind
            ) from refused
        except (CloudUnavailableError, NoAnswerError) as trouble:
            raise CloudUnavailableError(f"host {host.facts.name}: {trouble}") from trouble

    async def _enrolled(self) -> Sequence[EnrolledHost]:
        try:
            return await self._hosts()
        except CloudUnavailableError:
            raise
        except OSError as error:
            raise CloudUnavailableError(f"which hosts are enrolled is not known now: {error}") from error


def _is_ours(holding: Holding | None) -> TypeGuard[Holding]:
    """A host that somebody else's record holds is taken, and that is all that is known of it."""
    return holding is not None and holding.record.tags.get("platform") == PLATFORM_TAG


def _is_named(holding: Holding | None, name: str) -> TypeGuard[Holding]:
    return _is_ours(holding) and holding.record.name == name


def _words(trouble: CloudRefusedError | CloudUnavailableError) -> str:
    return trouble.message if isinstance(trouble, CloudRefusedError) else str(trouble)


def _told(run: CommandRun) -> Holding | None:
    if run.exit_status != 0:
        raise NoAnswerError(f"exit status {run.exit_status}: {run.output[-500:]!r}")
    return holding_of(run.output)


def _split(provider_instance_id: str) -> tuple[str, str]:
    host_id, _, key = provider_instance_id.partition("/")
    return host_id, key


def _find_id(hosts: Sequence[EnrolledHost], host_id: str) -> EnrolledHost | None:
    return next((host for host in hosts if host.id == host_id), None)


def _offered(host: EnrolledHost) -> tuple[str, str]:
    return host.facts.zone, host.facts.instance_type


def _first(line: tuple[tuple[str, str], HostFacts]) -> tuple[str, str]:
    return line[0]


def _server(host: EnrolledHost, holding: Holding) -> Server:
    return Server(
        provider_instance_id=f"{host.id}/{holding.key}",
        name=holding.record.name,
        tags=holding.record.tags,
        running=holding.is_on,
        ip_address=host.address if holding.is_on else "",
        zone=holding.record.zone,
        created_at=holding.record.created_at,
    )


def _offer(facts: HostFacts, stock: Stock) -> Offer:
    return Offer(
        zone=facts.zone,
        instance_type=facts.instance_type,
        gpu_count=facts.gpu_count,
        vram_per_gpu_gb=facts.vram_per_gpu_gb,
        cpu_count=facts.cpu_count,
        ram_gb=facts.ram_gb,
        price_eur_micros_per_hour=facts.price_eur_micros_per_hour,
        stock=stock,
    )
