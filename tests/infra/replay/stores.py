"""Both stores with a story in them, as the platform leaves them: streams filled, read models folded, checkpoints moved.

What a test wants damaged it damages by itself; `EVENTS` is made so that an administrator may delete single messages.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from msgspec.structs import replace
from nats.aio.client import Client

from domain.aggregates import AGGREGATES
from domain.usage import UsageRecord, usage_subject
from infra.cli.progress import progress
from infra.embedded.nats import EmbeddedNats
from infra.events.codec import Codec, decode_envelope
from infra.events.connection import connect_writer, disconnect
from infra.events.streams import EVENTS, STREAMS, ensure_streams
from infra.postgres import connect, ensure_schema
from infra.replay.stored import MESSAGE_ID, Message, stored_messages, stream_info
from infra.replay.watch import Watch
from projections.checkpoint import Move, move
from projections.projection import Entry, Projection, UsageEntry
from projections.registry import PROJECTIONS
from tests.examples import COMMAND_EXAMPLES
from tests.given import COMMANDS
from tests.projections.examples import usage_record
from tests.projections.grammar import Story, all_rows


def watch() -> Watch:
    """Progress that says nothing."""
    return lambda words, total: progress(words, total, quiet=True)


def a_story(lives: int = 3) -> Story:
    """Every aggregate but the reservations lives several times, in two organisations."""
    story = Story()
    for life in range(lives):
        for command in COMMAND_EXAMPLES:
            aggregate = COMMANDS[type(command)].aggregate
            story.asked("acme" if life % 2 else "umbrella", f"{aggregate}-{life}", command)
    return story


def messages_of(story: Story) -> list[Message]:
    return [Message(e.position, e.subject, e.envelope.event_id, e.payload) for e in story.entries]


def used(count: int) -> list[Message]:
    """Records of USAGE; every third is stored twice, as by a gateway that came back after an hour."""
    messages: list[Message] = []
    for number in range(count):
        record = usage_record(request_id=f"request-{number}")
        subject = usage_subject(record.organization_id, record.deployment_id)
        for copy in range(2 if number % 3 == 0 else 1):
            message_id = record.request_id if not copy else f"again-{number}"
            messages.append(Message(len(messages) + 1, subject, message_id, msgspec.json.encode(record)))
    return messages


@asynccontextmanager
async def administrator(server: EmbeddedNats) -> AsyncIterator[Client]:
    """A connection with every right, to a server whose streams are there."""
    nc = await connect_writer(server.admin_url, "test")
    try:
        if await stream_info(nc, EVENTS) is None:
            config = {"name": EVENTS, "num_replicas": 1, **STREAMS[EVENTS], "deny_delete": False}
            await nc.request(f"$JS.API.STREAM.CREATE.{EVENTS}", msgspec.json.encode(config))
        await ensure_streams(nc)
        yield nc
    finally:
        await disconnect(nc)


async def publish(nc: Client, messages: Sequence[Message]) -> None:
    for message in messages:
        await nc.jetstream().publish(message.subject, message.payload, headers={MESSAGE_ID: message.message_id})


async def stored(nc: Client, stream: str = EVENTS) -> list[Message]:
    info = await stream_info(nc, stream)
    assert info is not None
    async with stored_messages(nc, stream, until=info[1].last_seq) as batches:
        return [message async for batch in batches for message in batch]


async def wipe(nc: Client, stream: str) -> None:
    await nc.jetstream().delete_stream(stream)


async def fold(
    postgres_url: str, events: Sequence[Message], usage: Sequence[Message] = (), *, only: Sequence[str] = ()
) -> None:
    """What the projections role does: each read model from its checkpoint to the end."""
    codec = Codec(AGGREGATES)
    async with await connect(postgres_url, "test", autocommit=True) as connection:
        for projection in PROJECTIONS:
            if only and projection.name not in only:
                continue
            previous = await ensure_schema(connection, projection)
            source = events if projection.stream == "EVENTS" else usage
            new = [message for message in source if message.position > previous]
            if not new:
                continue
            entries = [entry for message in new for entry in _entries(projection, message, codec)]
            async with connection.transaction():
                await connection.execute(f"SET LOCAL search_path TO {projection.schema}")
                assert await move(connection, [Move(projection, previous, new[-1].position)])
                if entries:
                    await projection.apply(entries, connection)


def _entries(projection: Projection, message: Message, codec: Codec) -> list[Any]:
    if projection.stream != "EVENTS":
        return [UsageEntry(message.position, msgspec.json.decode(message.payload, type=UsageRecord))]
    envelope = decode_envelope(message.payload)
    if projection.aggregates is None:
        return [Entry(message.position, message.subject, message.payload, envelope, None)]
    if envelope.aggregate not in projection.aggregates:
        return []
    return [Entry(message.position, message.subject, message.payload, envelope, codec.decode_event(envelope))]


async def table_hashes(postgres_url: str) -> dict[str, str]:
    """Every table of every read model, as one hash each."""
    hashes = {}
    async with await connect(postgres_url, "test") as connection:
        for projection in PROJECTIONS:
            await connection.execute(f"SET search_path TO {projection.schema}")
            for table, rows in (await all_rows(connection, projection)).items():
                hashes[f"{projection.schema}.{table}"] = hashlib.sha256(repr(rows).encode()).hexdigest()
    return hashes


async def execute(postgres_url: str, statement: str, *parameters: object) -> None:
    async with await connect(postgres_url, "test", autocommit=True) as connection:
        await connection.execute(statement.encode(), parameters)


def changed(message: Message, **fields: object) -> Message:
    """The same message with other fields in its envelope."""
    envelope = replace(decode_envelope(message.payload), **fields)
    return replace(message, payload=msgspec.json.encode(envelope))
