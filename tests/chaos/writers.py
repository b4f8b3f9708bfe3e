"""Sixteen writers that race for the same aggregates, and a ledger of what they were promised.

    writer ──command──> Dispatcher ──> log ──> receipt ──> ledger        afterwards: every message of the log vs ledger

Each writer has a connection and a cache of its own, as processes would. Nine commands of ten rename a key that all
share (one publish), the tenth founds an organisation (an atomic batch of three: reserved name, founding, owner). The
control writers use `CarelessLog`, which stores without the rules: no expected sequence, a new message id at each try.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, ApiKeyRenamed, IssueApiKey, RenameApiKey
from domain.decider import Rejected
from domain.ids import OrganizationId
from domain.message import Context, Recorded, payload_hash
from domain.organization import ORGANIZATION, OrganizationCreated
from domain.organization_commands import CreateOrganization
from infra.cancellation import heed_cancellation
from infra.dispatch import Dispatcher
from infra.events.codec import Codec
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.port import Append, EventLog
from projections.projection import LogDamagedError
from tests.examples import ALICE, example

WRITERS = 16
SHARED_KEYS = 8
FOUNDS_EVERY = 10
PAUSE_S = 0.005
"""Between two commands of a writer: the journal stays short enough to be read back after each fault."""
FILLER_BYTES = 8_000
"""In each event: a thousand fill one of the server's 8 MB blocks, whose ends have faults of their own."""
AWAY_PAUSE_S = 0.1
CARELESS_TIMEOUT_S = 2.0
CARELESS_TRIES = 10
READ_BUDGET_S = 120.0

_ACME = OrganizationId("acme")
_CONTEXT = Context(actor="system:chaos", correlation=random.Random(8).randbytes(FILLER_BYTES // 2).hex())
_NAMED = {ApiKeyRenamed.__name__, OrganizationCreated.__name__}

OpenLog = Callable[[Client], EventLog]


@dataclass(frozen=True)
class Promise:
    event_id: str
    writer: int
    number: int


@dataclass
class Ledger:
    """What the writers were told.

    Attributes:
        acked: intent ("<writer>/<number>", unique, stands in its event as the name) -> what was promised of it.
        unknown: commands whose outcome stayed unknown within the log's retry budget.
        open: false once the lights are out; what a reply says after that reached nobody.
    """

    acked: dict[str, Promise] = field(default_factory=dict)
    unknown: int = 0
    open: bool = True

    def promise(self, name: str, promise: Promise) -> None:
        if self.open:
            self.acked[name] = promise


@dataclass(frozen=True)
class Findings:
    lost: int
    duplicated: int
    out_of_order: int

    @property
    def total(self) -> int:
        return self.lost + self.duplicated + self.out_of_order


def judge(messages: Sequence[Recorded], ledger: Ledger) -> Findings:
    """What became of the promises.

    lost: acknowledged, but the log does not hold it. duplicated: an intent or an event id that stands there twice.
    out_of_order: a position left out, a version or hash that does not follow, a writer's intents in another order.
    """
    ids = Counter(message.envelope.event_id for message in messages)
    names = [_name_of(message) for message in messages]
    intents = Counter(name for name in names if name)
    lost = sum(promise.event_id not in ids for promise in ledger.acked.values())
    twice = {name for name, count in intents.items() if count > 1}
    duplicated = len(twice) + sum(
        count - 1 for message, count in _repeated(messages, ids) if _name_of(message) not in twice
    )
    positions = [0, *(message.position for message in messages)]
    holes = sum(after != before + 1 for before, after in pairwise(positions))
    return Findings(lost, duplicated, holes + _broken_links(messages) + _overtaken(names, ledger))


def _repeated(messages: Sequence[Recorded], ids: Counter[Any]) -> list[tuple[Recorded, int]]:
    by_id = {message.envelope.event_id: message for message in messages if ids[message.envelope.event_id] > 1}
    return [(message, ids[event_id]) for event_id, message in by_id.items()]


def _broken_links(messages: Sequence[Recorded]) -> int:
    heads: dict[str, tuple[int, str]] = {}
    broken = 0
    for message in messages:
        version, previous = heads.get(message.subject, (0, ""))
        broken += (message.envelope.version, message.envelope.previous) != (version + 1, previous)
        heads[message.subject] = (message.envelope.version, payload_hash(message.payload))
    return broken


def _overtaken(names: Sequence[str], ledger: Ledger) -> int:
    newest: dict[int, int] = {}
    overtaken = 0
    for name in names:
        if (promise := ledger.acked.get(name)) is not None:
            overtaken += promise.number < newest.get(promise.writer, 0)
            newest[promise.writer] = promise.number
    return overtaken


def _name_of(message: Recorded) -> str:
    """The intent behind an event; "" for events that carry none."""
    if message.envelope.type not in _NAMED:
        return ""
    return str(msgspec.json.decode(message.envelope.data)["name"])


@asynccontextmanager
async def writing(
    url: str, ledger: Ledger, *, round_number: int, open_log: OpenLog = JetStreamLog
) -> AsyncIterator[None]:
    """Writers at work until the end of the block; all have loaded the shared keys before the first one writes.

    Args:
        url: of the servers.
        ledger: shared by several rounds, whose numbers keep the intents apart.
    """
    connections = [await connect_writer(url, f"writer-{number}") for number in range(WRITERS)]
    dispatchers = [_dispatcher(open_log(connection)) for connection in connections]
    await asyncio.gather(*(_issue(dispatcher) for dispatcher in dispatchers[:1]))
    await asyncio.gather(*(_warm_up(dispatcher) for dispatcher in dispatchers))
    tasks = [
        asyncio.create_task(_write(dispatcher, number, ledger, round_number))
        for number, dispatcher in enumerate(dispatchers)
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(disconnect(connection) for connection in connections))
    if faults := [result for result in results if not isinstance(result, asyncio.CancelledError | None)]:
        raise faults[0]


async def read_log(url: str) -> list[Recorded]:
    """Every message of EVENTS, holes and all, up to its end now."""
    connection = await connect_reader(url, "judge")
    try:
        async with asyncio.timeout(READ_BUDGET_S):
            log = JetStreamLog(connection)
            head, messages = await log.head(), list[Recorded]()
            if head:
                async with log.follow(after=0, subjects=["evt.>", "uniq.>"]) as batches:
                    async for batch in batches:
                        messages += batch
                        if messages[-1].position >= head:
                            break
            return messages
    finally:
        await disconnect(connection)


async def _write(dispatch: Dispatcher, writer: int, ledger: Ledger, round_number: int) -> None:
    draw = random.Random(writer)
    number = round_number * 1_000_000
    while True:  # until cancelled
        heed_cancellation()
        number += 1
        name = f"{writer}/{number}"
        try:
            event_id = await _command(dispatch, name, draw)
        except OSError:
            ledger.unknown += 1
            await asyncio.sleep(AWAY_PAUSE_S)
            continue
        except LogDamagedError:
            if ledger.open:
                raise
            return  # a server without a disk takes back what it said; nobody heard it
        ledger.promise(name, Promise(event_id, writer, number))
        await asyncio.sleep(PAUSE_S)


async def _command(dispatch: Dispatcher, name: str, draw: random.Random) -> str:
    """The id of the event that carries the name."""
    if draw.randrange(FOUNDS_EVERY) == 0:
        slug = name.replace("/", "-")
        organization = OrganizationId(f"org-{slug}")
        found = CreateOrganization(name=name, owner=ALICE, slug=slug, fallback_slug=slug)
        return (await dispatch(ORGANIZATION, organization, organization, found, _CONTEXT)).event_ids[0]
    key = f"key-{draw.randrange(SHARED_KEYS)}"
    return (await dispatch(API_KEY, _ACME, key, RenameApiKey(name=name), _CONTEXT)).event_ids[0]


async def _issue(dispatch: Dispatcher) -> None:
    for key in range(SHARED_KEYS):
        with contextlib.suppress(Rejected):  # issued before an earlier fault
            await dispatch(API_KEY, _ACME, f"key-{key}", example(IssueApiKey), _CONTEXT)


async def _warm_up(dispatch: Dispatcher) -> None:
    for key in range(SHARED_KEYS):
        await dispatch.load(API_KEY, _ACME, f"key-{key}")


def _dispatcher(log: EventLog) -> Dispatcher:
    return Dispatcher(log, Codec(AGGREGATES), lambda: datetime.now(UTC), lambda: str(uuid7()))


class CarelessLog:
    """Stores as one might at first: publish, and publish again when no answer comes. Reads like the real one."""

    def __init__(self, nc: Client) -> None:
        self._nc = nc
        self._log = JetStreamLog(nc)
        self.read = self._log.read
        self.last = self._log.last
        self.head = self._log.head
        self.follow = self._log.follow

    async def append(self, appends: Sequence[Append]) -> int:
        position = 0
        for append in appends:
            for _, payload in append.messages:
                position = await self._publish(append.subject, payload)
        return position

    async def _publish(self, subject: str, payload: bytes) -> int:
        for _ in range(CARELESS_TRIES):
            with contextlib.suppress(nats.errors.Error, OSError, KeyError):
                headers = {"Nats-Msg-Id": str(uuid7())}
                reply = await self._nc.request(subject, payload, headers=headers, timeout=CARELESS_TIMEOUT_S)
                return int(msgspec.json.decode(reply.data)["seq"])
            await asyncio.sleep(AWAY_PAUSE_S)
        raise TimeoutError(f"{subject} was not stored in {CARELESS_TRIES} tries")
