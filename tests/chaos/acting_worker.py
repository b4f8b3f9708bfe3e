"""A handlers process for workers.py: one reaction whose deed is "write this event into the witness".

    python -m tests.chaos.acting_worker NATS_URL POSTGRES_URL guarded | no_ledger | naive

    guarded     gate and ledger: the pattern of handlers/README.md for a deed of its own for each event
    no_ledger   the gate alone, as a control: what a killed look had done is done again
    naive       neither: a competing consumer that acts on each message as it comes, as a control

The witness takes what it is told, as often as it is told: a mail server, say, that can be asked what it has sent.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from typing import Literal, get_args

import psycopg
from nats.aio.client import Client

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY
from domain.message import Envelope, subject_of
from handlers.outcome import Done, Outcome
from handlers.ports import Doors, Effect, Happened, Trigger
from handlers.subscriptions import Reaction
from infra.effect_tables import EffectTables
from infra.effects import EffectLedger
from infra.events.codec import decode_envelope
from infra.events.connection import connect_reader, connect_writer
from infra.events.jetstream import JetStreamLog
from infra.events.streams import EVENTS
from infra.events.timers import Timers
from infra.gate import Gate
from infra.parking import Parking
from infra.reacting import Reactor, Stores, run_reactions
from infra.work_queue import WorkItem, WorkQueue
from tests.infra.reacting_doors import doors_on

Mode = Literal["guarded", "no_ledger", "naive"]

NAME = "tell_witness_on_api_key"
TIMEOUT_S = 1.0
"""One INSERT; what a killed process had sent is done or gone long before twice that."""
PARENT_CHECK_S = 0.5
TABLE = """
CREATE TABLE witness (n bigserial PRIMARY KEY, id text NOT NULL, version bigint NOT NULL, pid int NOT NULL);
CREATE INDEX ON witness (id, version)
"""


class Witness:
    """The world outside."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection

    async def tell(self, envelope: Envelope) -> None:
        await self._connection.execute(
            "INSERT INTO witness (id, version, pid) VALUES (%s, %s, %s)", (envelope.id, envelope.version, os.getpid())
        )

    async def was_told(self, envelope: Envelope) -> Happened:
        cursor = await self._connection.execute(
            "SELECT 1 FROM witness WHERE id = %s AND version = %s", (envelope.id, envelope.version)
        )
        return "happened" if await cursor.fetchone() else "not_happened"


def reaction_of(witness: Witness, mode: Mode) -> Callable[[Trigger, Doors], Awaitable[Outcome]]:
    async def tell_witness_on_api_key(trigger: Trigger, doors: Doors) -> Outcome:
        version = trigger.done
        for envelope in await doors.history(trigger, after=trigger.done):
            if mode == "guarded":
                await _tell_once(witness, envelope, doors)
            else:
                await witness.tell(envelope)
            version = envelope.version
        return Done(version=version)

    return tell_witness_on_api_key


async def _tell_once(witness: Witness, envelope: Envelope, doors: Doors) -> None:
    effect = Effect(
        reaction=NAME,
        event_id=envelope.event_id,
        name="tell",
        subject=subject_of(envelope.organization, envelope.aggregate, envelope.id),
    )
    await doors.effects.once(
        effect, act=lambda: witness.tell(envelope), ask=lambda: witness.was_told(envelope), timeout_s=TIMEOUT_S
    )


async def _run_naive(witness: Witness, reader: Client) -> None:
    async def handle(item: WorkItem) -> None:
        await witness.tell(decode_envelope(item.payload))
        await item.done()

    await WorkQueue(reader, EVENTS, NAME, [subject_of("*", API_KEY.aggregate, "*")], handle).run()


async def _run(nats_url: str, postgres_url: str, mode: Mode) -> None:
    reader, writer = await connect_reader(nats_url, "test"), await connect_writer(nats_url, "test")
    witness = Witness(await psycopg.AsyncConnection.connect(postgres_url, autocommit=True))
    if mode == "naive":
        await _run_naive(witness, reader)
        return
    async with Gate(postgres_url) as gate, EffectTables(postgres_url) as rows:
        log = JetStreamLog(writer)
        doors = doors_on(log, AGGREGATES, EffectLedger(rows))
        events = frozenset(event.__name__ for event in API_KEY.events)
        reaction = Reaction(name=NAME, aggregate=API_KEY.aggregate, events=events, react=reaction_of(witness, mode))
        stores = Stores(log, gate, Parking(writer, doors.clock), Timers(writer))
        await run_reactions(Reactor([reaction], doors, stores), reader)


async def _end_with(parent: int) -> None:
    while True:
        await asyncio.sleep(PARENT_CHECK_S)
        if os.getppid() != parent:
            os._exit(1)


async def main(nats_url: str, postgres_url: str, mode: Mode) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_end_with(os.getppid()))
        group.create_task(_run(nats_url, postgres_url, mode))


if __name__ == "__main__":
    wanted = next(mode for mode in get_args(Mode) if mode == sys.argv[3])
    asyncio.run(main(sys.argv[1], sys.argv[2], wanted))
