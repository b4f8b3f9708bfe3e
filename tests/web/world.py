"""A whole platform behind the REST API, without processes: the log in memory, Postgres real, handlers absent.

world.api ──HTTP (in process)──> web ──> dispatcher ──> MemoryLog ──> projections ──> Postgres ──> web
"""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from argon2 import PasswordHasher
from fastapi import FastAPI
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.decider import Decider
from domain.ids import PLATFORM, InstanceId, OrganizationId, UserId, derived_id
from domain.message import Context
from domain.organization import ORGANIZATION
from domain.organization_commands import AddMember, CreateOrganization
from domain.roles import Role
from domain.seal import SealKey, StoredSeal
from domain.telemetry import WorkerSeen
from domain.user import USER, CreateUser, RecordPasswordSet
from infra.bootstrap import bootstrap
from infra.credentials import CredentialStore
from infra.dispatch import Dispatcher
from infra.environment import Environment
from infra.events.codec import Codec
from infra.events.memory import MemoryLog
from infra.idempotency import PostgresIdempotency
from infra.lag import read_progress
from infra.master_key import read_master_key
from infra.passwords import Passwords
from infra.postgres import ReadModels, connect, ensure_schema
from infra.projecting import Bystanders, EventSource, Projector
from infra.replay.histories import Histories
from infra.session_uses import SessionUses
from infra.sign_in_limits import SignInLimits
from infra.sign_in_tables import create_sign_in_tables
from infra.upstream_key_store import UpstreamKeyIntake
from infra.upstream_sealing import sealer_of
from infra.vault import OneTimeTokens, Vault, WorkerTokens
from infra.vault_tables import create_vault, vault_pool
from infra.wrapping import KeyRing
from projections.registry import PROJECTIONS
from projections.usage import USAGE
from web.app import create_app
from web.services import Parked, Services, Settings
from web.tokens import COOKIE

ADMIN_PASSWORD = "the admin's own password"
PERSON_PASSWORD = "a password that is long"
CONTEXT = Context(actor="system:test", correlation="test")
EVENTS_PROJECTIONS = [projection for projection in PROJECTIONS if projection.stream == "EVENTS"]


class MovingClock:
    """Real time, which a test may push forward."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


class Telemetry:
    def __init__(self) -> None:
        self.seen: list[WorkerSeen] = []
        self.away = False

    async def publish(self, seen: WorkerSeen) -> None:
        if self.away:
            raise ConnectionError("no telemetry today")
        self.seen.append(seen)


class Hosts:
    """A name service that gives every host of example.com a public address, and else what a test says."""

    def __init__(self) -> None:
        self.addresses: dict[str, Sequence[str]] = {}
        self.away = False

    async def __call__(self, host: str, _port: int, /) -> Sequence[str]:
        if self.away:
            raise ConnectionError("no names today")
        return self.addresses.get(host, ["93.184.215.14"] if host.endswith("example.com") else [])


class Parking:
    def __init__(self) -> None:
        self.parked: list[Parked] = []
        self.told: list[tuple[str, str]] = []

    async def list(self) -> Sequence[Parked]:
        return self.parked

    async def retry(self, parked_id: str) -> bool:
        return self._tell("retry", parked_id)

    async def skip(self, parked_id: str) -> bool:
        return self._tell("skip", parked_id)

    def _tell(self, what: str, parked_id: str) -> bool:
        known = any(one.id == parked_id for one in self.parked)
        if known:
            self.told.append((what, parked_id))
        return known


class Seals:
    """Filled by tests/web/test_audit.py."""

    def __init__(self) -> None:
        self.kept: list[StoredSeal] = []
        self.known: list[SealKey] = []

    async def latest(self) -> StoredSeal | None:
        return self.kept[-1] if self.kept else None

    async def page(self, *, after: int = 0, limit: int = 500) -> Sequence[StoredSeal]:
        return [seal for seal in self.kept if seal.number > after][:limit]

    async def keys(self) -> Sequence[SealKey]:
        return self.known


@dataclass
class World:
    """Everything a test may look at or break."""

    app: FastAPI
    services: Services
    log: MemoryLog
    dispatcher: Dispatcher
    vault: Vault
    passwords: Passwords
    worker_tokens: WorkerTokens
    telemetry: Telemetry
    parking: Parking
    seals: Seals
    hosts: Hosts
    clock: MovingClock
    environment: Environment
    people: dict[str, UserId] = field(default_factory=dict)
    clients: int = 0

    def client(self, *, address: str = "", **settings: Any) -> httpx.AsyncClient:
        """Each one comes from a network of its own, so that tests do not use up each other's sign-ins."""
        self.clients += 1
        address = address or f"10.{self.clients // 256}.{self.clients % 256}.1"
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=(address, 40_000))
        return httpx.AsyncClient(transport=transport, base_url="http://api.test", **settings)

    @asynccontextmanager
    async def signed_in(self, name: str = "admin", password: str = ADMIN_PASSWORD) -> AsyncIterator[httpx.AsyncClient]:
        """A client that carries the person's token as a bearer, as scripts do."""
        token = await self.token(name, password)
        async with self.client(headers={"authorization": f"Bearer {token}"}) as client:
            yield client

    async def token(self, name: str = "admin", password: str = ADMIN_PASSWORD) -> str:
        async with self.client() as client:
            reply = await client.post("/auth/login", json={"email": name, "password": password})
            assert reply.status_code == 200, reply.text
            return reply.cookies[COOKIE]

    async def dispatch(
        self, decider: Decider[Any, Any, Any], organization: str, aggregate_id: str, command: Any
    ) -> int:
        return (await self.dispatcher(decider, organization, aggregate_id, command, CONTEXT)).position

    async def visible(self, position: int | None = None) -> None:
        """Returns when every read model shows the log up to here."""
        names = [projection.name for projection in EVENTS_PROJECTIONS]
        async with self.services.read(*names, position=position or await self.log.head()):
            pass

    async def person(self, name: str, password: str = PERSON_PASSWORD) -> UserId:
        """A user who can sign in as `name`, and belongs nowhere yet."""
        user_id = UserId(derived_id("people", name))
        fields = ("username", "email", "first_name", "last_name")
        sealed: dict[str, Any] = {field: await self.vault.seal(user_id, field, name) for field in fields}
        command = CreateUser(
            **sealed,
            username_digest=self.vault.digest("username", name),
            email_digest=self.vault.digest("email", f"{name}@example.org"),
        )
        await self.dispatch(USER, PLATFORM, user_id, command)
        await self.passwords.set_password(user_id, password)
        await self.visible(await self.dispatch(USER, PLATFORM, user_id, RecordPasswordSet()))
        self.people[name] = user_id
        return user_id

    async def organization(self, name: str, owner: UserId) -> OrganizationId:
        organization_id = OrganizationId(derived_id("organizations", name))
        command = CreateOrganization(name=name, owner=owner, fallback_slug=name)
        await self.dispatch(ORGANIZATION, organization_id, organization_id, command)
        return organization_id

    async def join(self, organization_id: OrganizationId, user_id: UserId, role: Role) -> None:
        await self.dispatch(ORGANIZATION, organization_id, organization_id, AddMember(user_id=user_id, role=role))

    @asynccontextmanager
    async def team(self, **roles: Role) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
        """An organisation of its own with one member for each name, all signed in and at work there."""
        unique = uuid7().hex[-8:]
        people = {name: await self.person(f"{name}-{unique}") for name in roles}
        founder = await self.person(f"founder-{unique}")
        organization_id = await self.organization(f"team-{unique}", founder)
        for name, role in roles.items():
            await self.join(organization_id, people[name], role)
        await self.visible()
        async with AsyncExitStack() as stack:
            yield {
                name: await stack.enter_async_context(self.signed_in(f"{name}-{unique}", PERSON_PASSWORD))
                for name in roles
            }

    def everything_written(self) -> bytes:
        """The bytes of the whole log, subjects included."""
        return b"\n".join(subject.encode() + b" " + payload for subject, _, payload in self.log._messages)


@asynccontextmanager
async def a_world(postgres_url: str, folder: Path) -> AsyncIterator[World]:
    password_file = folder / "given_password"
    password_file.write_text(ADMIN_PASSWORD)
    environment = Environment(
        data_dir=folder, secrets_dir=folder / "secrets", postgres_url=postgres_url, admin_password_file=password_file
    )
    log, clock, codec = MemoryLog(), MovingClock(), Codec(AGGREGATES)
    dispatcher = Dispatcher(log, codec, clock, lambda: str(uuid7()))
    master_key = read_master_key(environment.secrets_dir, make=True)
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(vault_pool(postgres_url))
        await create_vault(pool, master_key)
        await create_sign_in_tables(pool)
        await stack.enter_async_context(_projected(log, codec, postgres_url))
        read = await stack.enter_async_context(ReadModels(postgres_url))
        vault, passwords = Vault(pool, master_key), Passwords(pool)
        stack.callback(passwords.close)
        await bootstrap(environment, dispatch=dispatcher, load=dispatcher.load, vault=vault, passwords=passwords)
        await passwords.warm_up()
        passwords._hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)  # people of tests come by dozens
        services = Services(
            dispatch=dispatcher,
            load=dispatcher.load,
            read=read,
            log=log,
            vault=vault,
            passwords=passwords,
            sign_in_limits=SignInLimits(pool, master_key),
            session_uses=SessionUses(pool),
            worker_tokens=WorkerTokens(master_key),
            one_time_tokens=OneTimeTokens(master_key),
            credentials=CredentialStore(pool, KeyRing(master_key)),
            upstream_keys=UpstreamKeyIntake(pool, sealer_of(master_key)),
            resolve=(hosts := Hosts()),
            idempotency=PostgresIdempotency(pool, master_key),
            telemetry=(telemetry := Telemetry()),
            parking=(parking := Parking()),
            seals=(seals := Seals()),
            histories=Histories(codec),
            clock=clock,
            chance=os.urandom,
            settings=Settings(token_key=master_key.key_for("sign_in")),
            checks={"log": log.head},
            progress=partial(read_progress, read, {"EVENTS": log.head}),
        )
        app = create_app(services)
        await stack.enter_async_context(app.router.lifespan_context(app))
        fakes = (telemetry, parking, seals, hosts, clock)
        world = World(app, services, log, dispatcher, vault, passwords, WorkerTokens(master_key), *fakes, environment)
        await world.visible()
        yield world


@asynccontextmanager
async def _projected(log: MemoryLog, codec: Codec, postgres_url: str) -> AsyncIterator[None]:
    """All read models, each kept by a task."""
    bystanders = Bystanders(postgres_url)
    source = EventSource(log, codec)
    projectors = [Projector(projection, source, postgres_url, bystanders) for projection in EVENTS_PROJECTIONS]
    tasks = [asyncio.create_task(projector.run()) for projector in projectors]
    try:
        for projector in projectors:
            await projector.started.wait()
        async with await connect(postgres_url, "test") as connection:
            await ensure_schema(connection, USAGE)
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await bystanders.close()


def instance_of(organization: str, ordinal: int = 1) -> InstanceId:
    return InstanceId(derived_id(organization, f"instance/{ordinal}"))
