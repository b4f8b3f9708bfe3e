"""The two walls, each of which a run may take down; and an application that decides everything and changes nothing.

    code   every query names its tenant: taken down, each condition on a tenant is made true, in the SQL itself
    rows   Postgres' row security: taken down, every reader gets the role that sees all rows

A write goes through its access rule, its queries and its decision, and is not appended: what it would have done is kept
for the judge, and the next cell finds the same world. The surprising rule: a read that says EVERYTHING for itself
(identification, above all) stays as it is in every run, for its condition is not a wall but its meaning.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from psycopg import AsyncCursor, sql

from domain.decider import Decider
from domain.ids import EventId
from domain.message import Context
from domain.ports import Load, Receipt
from projections.projection import EVERYTHING, NOBODY, Connection, Read, Scope
from web.agent_release import AgentRelease
from web.services import Passwords, Services, SignInLimits

_COLUMN = r"(?:\w+\.)?(?:organization_id|consumer_organization_id|user_id|owner)"
_VALUE = r"(?:%s|%\(\w+\)s)(?:::\w+(?:\[\])?)?"
_TENANT_CONDITION = re.compile(
    rf"{_COLUMN}\s*=\s*(?:ANY\s*\(\s*{_VALUE}\s*\)|{_VALUE})"
    rf"|{_COLUMN}\s+IN\s*\((?:{_VALUE}|[^()])*\)"
    rf"|{_VALUE}\s+IN\s*\(\s*{_COLUMN}(?:{_VALUE}|[^()])*\)"
    rf"|{_VALUE}\s*=\s*{_COLUMN}"
)


@dataclass(frozen=True)
class Walls:
    code: bool = True
    rows: bool = True

    @property
    def name(self) -> str:
        names = {(True, True): "both walls", (False, True): "rows alone", (True, False): "code alone"}
        return names.get((self.code, self.rows), "no walls")


def without_tenant(query: str) -> str:
    """The query with each condition on a tenant made true; its placeholders stay, so its parameters still fit."""
    return _TENANT_CONDITION.sub(lambda found: f"({found[0]} OR true)", query)


class _Unscoped(AsyncCursor[Any]):
    """A class, since that is what psycopg takes for a connection's cursors."""

    async def execute(self, query: Any, params: Any = None, **settings: Any) -> Any:
        text = query.as_string(self) if isinstance(query, sql.Composable) else str(query)
        return await super().execute(without_tenant(text), params, **settings)


def behind(read: Read, walls: Walls) -> Read:
    """The read side's door with these walls."""

    @asynccontextmanager
    async def door(*names: str, position: int = 0, scope: Scope | None = None) -> AsyncIterator[Connection]:
        asked = NOBODY if scope is None else scope
        async with read(*names, position=position, scope=asked if walls.rows else EVERYTHING) as connection:
            usual = connection.cursor_factory
            if not walls.code and not asked.everything:
                connection.cursor_factory = _Unscoped
            try:
                yield connection
            finally:
                connection.cursor_factory = usual

    return door


@dataclass(frozen=True)
class Attempt:
    """A decision that would have left events."""

    organization: str
    aggregate: str
    aggregate_id: str
    command: str


@dataclass
class Rehearsal:
    """Implements domain.ports.Dispatch: decides on the log as it is, and appends nothing."""

    load: Load
    head: Callable[[], Awaitable[int]]
    clock: Callable[[], datetime]
    attempts: list[Attempt] = field(default_factory=list)

    async def __call__(
        self, decider: Decider[Any, Any, Any], organization: str, aggregate_id: str, command: Any, context: Context
    ) -> Receipt[Any]:
        loaded = await self.load(decider, organization, aggregate_id)
        events = tuple(decider.decide(loaded.state, command, self.clock()))
        if events and context.actor:
            self.attempts.append(Attempt(organization, decider.aggregate, aggregate_id, type(command).__name__))
        position = await self.head() if events else loaded.position
        return Receipt(position, loaded.version, events, tuple(EventId("rehearsed") for _ in events))


@dataclass(frozen=True)
class _HeldPasswords:
    real: Passwords

    async def verify(self, user_id: str | None, password: str) -> bool:
        return await self.real.verify(user_id, password)

    async def hashed(self, password: str) -> str:
        return await self.real.hashed(password)

    async def keep(self, user_id: str, hashed: str) -> None: ...


class _NoCredentials:
    """An organisation's credentials: none are kept."""

    async def set(self, organization_id: str, purpose: str, values: Mapping[str, str]) -> None: ...

    async def remove(self, organization_id: str, purpose: str) -> None: ...

    async def names(self, organization_id: str, purpose: str) -> tuple[str, ...]:
        return ()

    async def account(self, organization_id: str, provider: str) -> str:
        return ""


class _NoUpstreamKeys:
    async def keep(self, organization_id: str, deployment_id: str, credential_id: str, key: str) -> None: ...


class _NoLimits:
    """Hundreds of sign-ins come from one address here."""

    async def admit(self, *_: Any) -> None: ...

    async def succeeded(self, *_: Any) -> None: ...

    async def withdraw(self, *_: Any) -> None: ...

    async def count(self, *_: Any) -> None: ...

    async def clear(self, *_: Any) -> None: ...


def rehearsing(services: Services, walls: Walls) -> tuple[Services, Rehearsal]:
    """The services of an application that changes nothing, behind these walls."""
    rehearsal = Rehearsal(services.load, services.log.head, services.clock)
    limits: SignInLimits | Any = _NoLimits()
    held = replace(
        services,
        read=behind(services.read, walls),
        dispatch=rehearsal,
        passwords=_HeldPasswords(services.passwords),
        credentials=_NoCredentials(),
        upstream_keys=_NoUpstreamKeys(),
        sign_in_limits=limits,
        settings=replace(services.settings, agent=AgentRelease(archive=b"an agent")),
    )
    return held, rehearsal
