"""What the figures stand on: real servers that sync every write, real envelopes, rounds that alternate.

    load: keys x events each ──> envelopes with their hash chain ──> atomic batches of 1,000

Contenders take turns within a round, so that a slow second of the machine falls on all of them alike; a figure is the
median of the rounds' ratios.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from statistics import quantiles

import msgspec
import psycopg
from msgspec.structs import replace
from nats.aio.client import Client
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, ApiKeyIssued, ApiKeyRenamed
from domain.ids import ApiKeyId, EventId, OrganizationId
from domain.message import Context, Envelope, payload_hash, subject_of
from infra.dispatch import Dispatcher
from infra.embedded.nats import EmbeddedNats
from infra.embedded.nats_cluster import EmbeddedNatsCluster, free_node_ports
from infra.embedded.ports import free_port
from infra.embedded.postgres import EmbeddedPostgres
from infra.events.codec import Codec, encode_envelope
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.port import BATCH_MESSAGES_MAX, Append, EventLog
from infra.events.snapshots import SnapshotStore
from infra.events.streams import ensure_streams
from tests.examples import example

FIRST_PORT = 26_100
"""Below the range from which the kernel picks for outgoing connections; monitoring is 4,000 above."""
PAYLOAD_BYTES = 300
PAYLOAD = b'{"pad":"' + b"x" * (PAYLOAD_BYTES - 10) + b'"}'
ORGANIZATION = OrganizationId("019a0000-0000-7000-8000-000000000001")
CONTEXT = Context(actor="system:bench", correlation="bench")
BATCHES_UNDER_WAY = 2


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        rounds: of each contender.
        appends: per contender and round.
        events: of the stream that is rebuilt.
        aggregates: sizes between which the growth of costs is measured, smallest first.
        projected: events that both projections fold.
        waits: read-your-writes of ours; the library, which takes 0.1 s for each, does a tenth.
    """

    rounds: int
    appends: int
    events: int
    aggregates: tuple[int, ...]
    projected: int
    waits: int


FULL = Scale(5, 2048, 1_000_000, (1_000, 100_000, 1_000_000), 10_000, 1_000)
QUICK = Scale(3, 1024, 100_000, (1_000, 10_000, 100_000), 4_000, 300)


@asynccontextmanager
async def nats_node(folder: Path) -> AsyncIterator[EmbeddedNats]:
    async with EmbeddedNats(folder, free_port(FIRST_PORT)) as server:
        await _make_streams(server.admin_url, 1)
        yield server


@asynccontextmanager
async def nats_cluster(folder: Path) -> AsyncIterator[EmbeddedNatsCluster]:
    async with EmbeddedNatsCluster(folder, free_node_ports(FIRST_PORT + 100)) as cluster:
        await _make_streams(cluster.admin_url, cluster.replicas)
        yield cluster


async def _make_streams(admin_url: str, replicas: int) -> None:
    admin = await connect_writer(admin_url, "bench-admin")
    await ensure_streams(admin, replicas=replicas)
    await disconnect(admin)


@asynccontextmanager
async def postgres(folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """One that waits for its disk, as the library's users have it."""
    async with EmbeddedPostgres(folder, free_port(FIRST_PORT + 200)) as server:
        async with await psycopg.AsyncConnection.connect(server.url, autocommit=True) as connection:
            for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                shown = await (await connection.execute(f"SHOW {setting}".encode())).fetchone()
                if shown != ("on",):
                    raise RuntimeError(f"the baseline must be durable, but {setting} is {shown}")
        yield server


@asynccontextmanager
async def writer_to(url: str) -> AsyncIterator[Client]:
    client = await connect_writer(url, "bench-writer")
    yield client
    await disconnect(client)


@asynccontextmanager
async def reader_of(url: str) -> AsyncIterator[Client]:
    client = await connect_reader(url, "bench-reader")
    yield client
    await disconnect(client)


def dispatcher_of(log: EventLog, writer: Client, *, snapshots: bool = True) -> Dispatcher:
    store = SnapshotStore(writer) if snapshots else None
    return Dispatcher(log, Codec(AGGREGATES), lambda: datetime.now(UTC), lambda: str(uuid7()), store)


def key_id(number: int) -> ApiKeyId:
    return ApiKeyId(f"019a0000-0000-7000-9000-{number:012d}")


async def load_keys(writer: Client, *, keys: int, events_each: int, first: int = 0) -> None:
    """Stores API keys with their histories: one issue, then renames, in rounds: a key's events lie apart."""
    log = JetStreamLog(writer)
    heads: dict[int, tuple[int, str]] = {}
    for version in range(1, events_each + 1):
        numbers = iter(range(first, first + keys))
        loaders = (
            _load_some(log, version, numbers, heads, keep=version < events_each) for _ in range(BATCHES_UNDER_WAY)
        )
        await asyncio.gather(*loaders)


async def _load_some(
    log: JetStreamLog, version: int, numbers: Iterator[int], heads: dict[int, tuple[int, str]], *, keep: bool
) -> None:
    while chosen := list(islice(numbers, BATCH_MESSAGES_MAX)):
        appends, hashes = [], []
        for number in chosen:
            expected, previous = heads.get(number, (0, ""))
            event_id, payload = _envelope(number, version, previous)
            appends.append(
                Append(subject_of(ORGANIZATION, "api_key", key_id(number)), expected, ((event_id, payload),))
            )
            hashes.append(payload_hash(payload) if keep else "")
        end = await log.append(appends)
        if keep:
            start = end - len(chosen) + 1
            heads.update({n: (start + index, hashes[index]) for index, n in enumerate(chosen)})


def _envelope(number: int, version: int, previous: str) -> tuple[str, bytes]:
    event: ApiKeyIssued | ApiKeyRenamed = ApiKeyRenamed(name=f"key {number} {version}")
    if version == 1:
        digest = f"{number:064x}"
        event = replace(example(ApiKeyIssued), name=f"key {number}", key_sha256=digest)
    event_id = EventId(str(uuid7()))
    envelope = Envelope(
        event_id=event_id,
        aggregate=API_KEY.aggregate,
        id=key_id(number),
        version=version,
        type=type(event).__name__,
        schema=1,
        organization=ORGANIZATION,
        actor=CONTEXT.actor,
        cause=None,
        correlation=f"bench-{number}",
        at=datetime(2026, 11, 21, tzinfo=UTC),
        previous=previous,
        data=msgspec.Raw(msgspec.json.encode(event)),
    )
    return event_id, encode_envelope(envelope)


async def times_of(operation: Callable[[int], Awaitable[object]], count: int) -> list[float]:
    """Seconds of each of `count` calls, one after the other."""
    times = []
    for number in range(count):
        began = time.perf_counter()
        await operation(number)
        times.append(time.perf_counter() - began)
    return times


async def appends_per_s(log: EventLog, writers: int, appends: int, label: str) -> float:
    """Each writer has an aggregate of its own and waits for each append."""

    async def write(number: int) -> None:
        subject, expected = f"evt.bench.{label}.{uuid7()}", 0
        for _ in range(appends // writers):
            expected = await log.append([Append(subject, expected, ((str(uuid7()), PAYLOAD),))])

    began = time.perf_counter()
    await asyncio.gather(*(write(number) for number in range(writers)))
    return appends // writers * writers / (time.perf_counter() - began)


def p95(times: Sequence[float]) -> float:
    return quantiles(times, n=20)[-1]


async def append_times(log: EventLog, appends: int) -> list[float]:
    """Seconds of each append of one writer to one aggregate."""
    subject, expected = f"evt.bench.one.{uuid7()}", 0

    async def append(_number: int) -> None:
        nonlocal expected
        expected = await log.append([Append(subject, expected, ((str(uuid7()), PAYLOAD),))])

    return await times_of(append, appends)
