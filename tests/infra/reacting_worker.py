"""A handlers process for tests: one reaction that writes down when it looks at what.

python -m tests.infra.reacting_worker NATS_URL POSTGRES_URL [no-gate]

Each look writes a row `begin` and a row `end` with the version that it saw. Without the gate every look is allowed, as
a control.
"""

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator

import psycopg

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Trigger
from handlers.subscriptions import Reaction
from infra.events.connection import connect_reader, connect_writer
from infra.events.jetstream import JetStreamLog
from infra.events.timers import Timers
from infra.gate import Gate, Held, Standing
from infra.parking import Parking
from infra.reacting import Reactor, Stores, run_reactions
from tests.infra.reacting_doors import doors_on

LOOK_S = 0.01
TABLE = """
    CREATE TABLE IF NOT EXISTS looks (
        n bigserial PRIMARY KEY, id text, version bigint, pid int, phase text
    )
"""


class NoGate(Gate):
    """Lets everybody in and forgets everything."""

    @contextlib.asynccontextmanager
    async def hold(self, reaction: str, aggregate: str, aggregate_id: str) -> AsyncIterator[Held | None]:
        yield Held(self, (reaction, aggregate, aggregate_id), Standing())

    async def write(self, key: tuple[str, str, str], standing: Standing) -> None:
        pass


async def main(nats_url: str, postgres_url: str, *, gated: bool) -> None:
    reader, writer = await connect_reader(nats_url, "test"), await connect_writer(nats_url, "test")
    looks = await psycopg.AsyncConnection.connect(postgres_url, autocommit=True)

    async def note(trigger: Trigger, version: int, phase: str) -> None:
        await looks.execute(
            "INSERT INTO looks (id, version, pid, phase) VALUES (%s, %s, %s, %s)",
            (trigger.id, version, os.getpid(), phase),
        )

    async def look(trigger: Trigger, doors: Doors) -> Outcome:
        version = (await doors.load(API_KEY, trigger.organization, trigger.id)).version
        await note(trigger, version, "begin")
        await asyncio.sleep(LOOK_S)
        await note(trigger, version, "end")
        return Done(version=version)

    events = frozenset(event.__name__ for event in API_KEY.events)
    reaction = Reaction(name="look_on_api_key", aggregate="api_key", events=events, react=look)
    log = JetStreamLog(writer)
    doors = doors_on(log, AGGREGATES)
    async with Gate(postgres_url) if gated else NoGate(postgres_url) as gate:
        reactor = Reactor([reaction], doors, Stores(log, gate, Parking(writer, doors.clock), Timers(writer)))
        await run_reactions(reactor, reader)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], gated="no-gate" not in sys.argv))
