"""The grammar of projection specifications: given events, then what a query answers.

    story = Story()
    story.happened(ACME, "model-1", ModelListed(...))
    async with projected(postgres_url, MODELS, story.entries) as connection:
        assert (await list_models(connection))[0].code == "mock-echo-model"

A story makes proper envelopes: versions, hashes of predecessors, and positions as the log would give them.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import msgspec

from domain.decider import Rejected, schema_of
from domain.ids import EventId, OrganizationId
from domain.message import Context, Envelope, payload_hash, subject_of
from infra.events.port import Append
from infra.postgres import connect, ensure_schema
from projections.projection import Connection, Entry, Projection
from tests.given import COMMANDS, EVENTS, NOON


class Story:
    """Events of many aggregates in the order in which the log holds them.

    Args:
        start: time of the first event; each later one comes a second after the last.
    """

    def __init__(self, start: datetime = NOON) -> None:
        self.entries: list[Entry] = []
        self.at = start
        self._states: dict[str, Any] = {}
        self._heads: dict[str, tuple[int, str]] = {}

    def happened(
        self,
        organization: str,
        aggregate_id: str,
        *events: object,
        actor: str = "user:alice",
        cause: EventId | None = None,
        origin: str = "",
    ) -> "Story":
        context = Context(actor=actor, correlation=f"intent-{aggregate_id}", cause=cause, origin=origin)
        for event in events:
            decider = EVENTS[type(event)]
            subject = subject_of(organization, decider.aggregate, aggregate_id)
            state = self._states.get(subject, decider.initial)
            self._states[subject] = decider.evolve(state, event, self.at)
            self._record(subject, decider.aggregate, organization, aggregate_id, event, context)
            self.at += timedelta(seconds=1)
        return self

    def asked(self, organization: str, aggregate_id: str, *commands: object) -> "Story":
        """What follows from commands; a refused one leaves no trace."""
        for command in commands:
            decider = COMMANDS[type(command)]
            subject = subject_of(organization, decider.aggregate, aggregate_id)
            try:
                events = decider.decide(self._states.get(subject, decider.initial), command, self.at)
            except Rejected:
                events = ()
            self.happened(organization, aggregate_id, *events)
        return self

    def later(self, seconds: float) -> "Story":
        self.at += timedelta(seconds=seconds)
        return self

    def of(self, projection: Projection) -> list[Entry]:
        """What this projection is given of it."""
        if projection.aggregates is None:
            return [msgspec.structs.replace(entry, event=None) for entry in self.entries]
        return [entry for entry in self.entries if entry.envelope.aggregate in projection.aggregates]

    def appends(self) -> list[Append]:
        """The same, one append an event, for a log that is empty."""
        last: dict[str, int] = {}
        appends = []
        for entry in self.entries:
            message = (entry.envelope.event_id, entry.payload)
            appends.append(Append(entry.subject, last.get(entry.subject, 0), (message,)))
            last[entry.subject] = entry.position
        return appends

    def _record(
        self, subject: str, aggregate: str, organization: str, aggregate_id: str, event: object, context: Context
    ) -> None:
        version, previous = self._heads.get(subject, (0, ""))
        position = len(self.entries) + 1
        envelope = Envelope(
            event_id=EventId(f"0192aaaa-0000-7000-8000-{position:012}"),
            aggregate=aggregate,
            id=aggregate_id,
            version=version + 1,
            type=type(event).__name__,
            schema=schema_of(type(event)),
            organization=OrganizationId(organization),
            actor=context.actor,
            cause=context.cause,
            correlation=context.correlation,
            at=self.at,
            previous=previous,
            origin=context.origin,
            data=msgspec.Raw(msgspec.json.encode(event)),
        )
        payload = msgspec.json.encode(envelope)
        self._heads[subject] = (version + 1, payload_hash(payload))
        self.entries.append(Entry(position, subject, payload, envelope, event))


async def build(
    connection: Connection, projection: Projection, entries: Sequence[Any], *, batches: Sequence[int] = ()
) -> None:
    """Makes the projection's tables and applies the entries, cut after each of the given numbers of them."""
    await ensure_schema(connection, projection)
    await connection.execute(f"SET search_path TO {projection.schema}")
    edges = [0, *sorted(batches), len(entries)]
    for start, end in pairwise(edges):
        if start < end:
            await projection.apply(entries[start:end], connection)


@asynccontextmanager
async def projected(
    postgres_url: str, projection: Projection, entries: Sequence[Any], *, batches: Sequence[int] = ()
) -> AsyncIterator[Connection]:
    """A connection that finds the projection's rows; nothing of it stays."""
    async with await connect(postgres_url, "test") as connection:
        await build(connection, projection, entries, batches=batches)
        yield connection
        await connection.rollback()


async def all_rows(connection: Connection, projection: Projection) -> dict[str, list[Any]]:
    """Every row of every table of the projection, in an order of its own."""
    tables = await connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = %s", (projection.schema,)
    )
    names = sorted(name for (name,) in await tables.fetchall())
    return {name: sorted(await (await connection.execute(f"SELECT * FROM {name}")).fetchall()) for name in names}
