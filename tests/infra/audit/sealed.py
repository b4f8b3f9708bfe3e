"""A sealed audit log for tests: rows, tree and checkpoints in Postgres as the projectors leave them, seals beside."""

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import msgspec

from domain.api_key import ApiKeyIssued, ApiKeyRenamed, ApiKeyRevoked
from domain.seal import StoredSeal
from infra.audit.sealer import next_seal
from infra.audit.signing_key import SigningKey
from infra.postgres import connect, ensure_schema, search_path
from projections.audit_log import AUDIT_LOG
from projections.audit_tree import AUDIT_TREE
from projections.checkpoint import Move, move
from projections.projection import Connection, Entry, Projection
from tests.examples import example
from tests.given import NOON
from tests.projections.grammar import Story

TABLES = (AUDIT_LOG, AUDIT_TREE)
EVENTS_OF_A_KEY = 5


def entries_of(count: int, *, forged: int = 0) -> list[Entry]:
    """A log of many short lives in three organisations, their events shuffled into one another.

    Args:
        count: of events.
        forged: position of an event that somebody else is said to have caused, as if it had always been so.
    """
    story, number = Story(), 0
    while len(story.entries) < count:  # bounded: each round adds three lives
        lives = [(f"org-{n}", f"key-{number + n}") for n in range(3)]
        number += 3
        for step in range(EVENTS_OF_A_KEY):
            for organization, key in lives:
                event = (example(ApiKeyIssued), *[ApiKeyRenamed(name=f"{key} {n}") for n in range(3)], ApiKeyRevoked())
                actor = "user:mallory" if len(story.entries) + 1 == forged else f"user:{key}"
                story.happened(organization, key, event[step], actor=actor)
    return story.of(AUDIT_LOG)[:count]


async def store(connection: Connection, entries: Sequence[Entry], *projections: Projection) -> None:
    """What projectors do, with their checkpoints."""
    for projection in projections or TABLES:
        previous = await ensure_schema(connection, projection)
        await connection.execute(f"SET LOCAL search_path TO {search_path(TABLES)}")
        if fresh := [entry for entry in entries if entry.position > previous]:
            assert await move(connection, [Move(projection, previous, fresh[-1].position)])
            await projection.apply(fresh, connection)


class Notary:
    """Seals what a connection sees, and keeps the seals, without NATS."""

    def __init__(self) -> None:
        self.key = SigningKey(os.urandom(32))
        self.seals: list[StoredSeal] = []

    @property
    def keys(self) -> dict[str, bytes]:
        return {self.key.key_id: self.key.public_key}

    async def seal(self, connection: Connection, size: int, at: datetime = NOON) -> StoredSeal:
        last = self.seals[-1] if self.seals else None
        signed = self.key.signed(await next_seal(connection, last, size, at + timedelta(minutes=len(self.seals))))
        self.seals.append(StoredSeal(len(self.seals) + 1, signed, msgspec.json.encode(signed)))
        return self.seals[-1]

    async def every(self) -> AsyncIterator[StoredSeal]:
        for seal in self.seals:
            yield seal


@asynccontextmanager
async def sealed_log(
    postgres_url: str, *, count: int, sizes: Sequence[int]
) -> AsyncIterator[tuple[Connection, Notary]]:
    """A connection within a transaction that sees the log; what is changed there is undone at the end."""
    notary = Notary()
    async with await connect(postgres_url, "test", search_path=search_path(TABLES)) as connection:
        await store(connection, entries_of(count))
        for size in sizes:
            await notary.seal(connection, size)
        yield connection, notary
        await connection.rollback()
