"""A house for reactions: a log, a gate, a parking place, and a reaction that notes what it saw."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from nats.aio.client import Client

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, RenameApiKey
from domain.ids import OrganizationId
from domain.message import Context
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Trigger
from handlers.subscriptions import Duty, Reaction
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.timers import Timers
from infra.gate import Gate
from infra.parking import Parking
from infra.reacting import Reactor, Stores, keep_duty, run_reactions
from tests.examples import key_to_issue
from tests.infra.reacting_doors import doors_on

ACME = OrganizationId("acme")
ALICE = Context(actor="user:alice", correlation="intent")
WAIT_S = 60.0

React = Callable[[Trigger, Doors], Awaitable[Outcome]]


@contextlib.asynccontextmanager
async def open_house(nats_url: str, postgres_url: str) -> AsyncIterator["House"]:
    reader, writer = await connect_reader(nats_url, "reader"), await connect_writer(nats_url, "writer")
    async with Gate(postgres_url) as gate:
        yield House(reader, writer, gate)
    await disconnect(reader)
    await disconnect(writer)


class House:
    """A log, a gate, a parking place, and reactions that run on them."""

    def __init__(self, reader: Client, writer: Client, gate: Gate) -> None:
        self.reader = reader
        self.log = JetStreamLog(writer)
        self.doors = doors_on(self.log, AGGREGATES)
        self.gate = gate
        self.parking = Parking(writer, self.doors.clock)
        self.stores = Stores(self.log, gate, self.parking, Timers(writer))

    async def change(self, key_id: str, name: str) -> None:
        issue = key_to_issue(name)
        await self.doors.dispatch(API_KEY, ACME, key_id, issue, ALICE)
        await self.doors.dispatch(API_KEY, ACME, key_id, RenameApiKey(name=name), ALICE)

    def reactor(self, react: React) -> Reactor:
        events = frozenset(event.__name__ for event in API_KEY.events)
        return Reactor(
            [Reaction(name="look_on_api_key", aggregate="api_key", events=events, react=react)], self.doors, self.stores
        )

    @contextlib.asynccontextmanager
    async def reacting(self, react: React, duties: Sequence[Duty] = ()) -> AsyncIterator[Reactor]:
        reactor = self.reactor(react)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run_reactions(reactor, self.reader))]
            tasks += [group.create_task(keep_duty(duty, reactor, self.gate)) for duty in duties]
            yield reactor
            for task in tasks:
                task.cancel()


async def until(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.02)


class Looks:
    """A reaction that notes what it saw, and fails for whom it is told to."""

    def __init__(self, poisoned: Sequence[str] = (), error: Exception | None = None) -> None:
        self.poisoned = set(poisoned)
        self.error = error or AssertionError("poison")
        self.seen: dict[str, list[int]] = {}
        self.failed = 0

    async def __call__(self, trigger: Trigger, doors: Doors) -> Outcome:
        if trigger.id in self.poisoned:
            self.failed += 1
            raise self.error
        version = (await doors.load(API_KEY, trigger.organization, trigger.id)).version
        self.seen.setdefault(trigger.id, []).append(version)
        return Done(version=version)

    async def has_seen(self, key_id: str, version: int) -> bool:
        return version in self.seen.get(key_id, [])
