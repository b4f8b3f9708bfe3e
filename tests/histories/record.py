"""Records a sample of every event type and schema that has none yet: `just histories`.

    what is new ──examples──> Dispatcher on a log that holds the old lines ──> more lines

The write door itself writes them, after reading the old ones through codec and upcasts. Clock and ids are drawn from
the position, so the same code records the same bytes. What is recorded is never touched; a shape that changed under a
stored schema is refused, because its old samples would no longer say what the log holds.
"""

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

import msgspec
import structlog

from domain.aggregates import AGGREGATES
from domain.decider import Claim, Decider, Release
from domain.ids import PLATFORM
from domain.message import Context
from domain.organization import ORGANIZATION, MemberAdded, OrganizationCreated
from domain.reservation import RESERVATION
from domain.seal import Seal, SealKey
from infra.dispatch import Dispatcher
from infra.events.codec import Codec
from infra.events.memory import MemoryLog
from infra.events.port import Append
from infra.events.upcasts import UPCASTS, Upcasts
from tests.examples import ACME, EVENT_EXAMPLES, example
from tests.histories.corpus import RECORDS, Corpus, Kept, Record, Stored, kept_today
from tests.histories.laws import changed_shapes, sampled_shapes
from tests.projections.examples import usage_record

START = datetime(2026, 11, 21, tzinfo=UTC)
RECORD_EXAMPLES: tuple[object, ...] = (
    usage_record(),
    Seal(
        origin="inventiv-agents/audit-log/0123456789abcdef",
        size=1000,
        root="a" * 64,
        at=START,
        key_id="0123456789abcdef",
        previous="b" * 64,
        signature="c" * 128,
    ),
    SealKey(key_id="0123456789abcdef", public_key="d" * 64, at=START),
)
_OF_THE_PLATFORM = frozenset({"user", "session", "model"})
_CONTEXT = Context(actor="system:recorder", correlation="recorded-history", origin="session:recorded-session")


class CannotRecordError(Exception):
    """A stored shape changed without a new schema; recording would hide it."""


async def record(
    corpus: Corpus,
    deciders: Sequence[Decider[Any, Any, Any]] = AGGREGATES,
    upcasts: Upcasts = UPCASTS,
    *,
    examples: Sequence[object] = EVENT_EXAMPLES,
    records: Sequence[Record] = RECORDS,
    record_examples: Sequence[object] = RECORD_EXAMPLES,
) -> list[str]:
    """Appends what is missing; returns "<type>/<schema>" of each new sample.

    Raises:
        CannotRecordError: see the class.
    """
    if changed := [finding for finding in changed_shapes(corpus, deciders, records) if "not registered" not in finding]:
        raise CannotRecordError("\n".join(changed))
    sampled = sampled_shapes(corpus, records)
    missing = [kept for kept in kept_today(deciders, records) if (kept.name, kept.schema) not in sampled]
    for decider in deciders:
        if wanted := [kept for kept in missing if kept.of == decider.aggregate]:
            told = [_example(kept, examples) for kept in wanted]
            corpus.extend(decider.aggregate, await _dispatched(corpus, decider, deciders, upcasts, told), wanted)
    for each in records:
        if wanted := [kept for kept in missing if kept.of == each.word]:
            corpus.extend(each.word, _lines_of(corpus, each, [_example(k, record_examples) for k in wanted]), wanted)
    corpus.register([kept for kept in missing if not kept.of])
    return [f"{kept.name}/{kept.schema}" for kept in missing]


async def _dispatched(
    corpus: Corpus,
    decider: Decider[Any, Any, Any],
    deciders: Sequence[Decider[Any, Any, Any]],
    upcasts: Upcasts,
    events: Sequence[object],
) -> list[Stored]:
    """What the write door stores for these events, after the lines that the file has."""
    word, log = decider.aggregate, MemoryLog()
    last: dict[str, int] = {}
    for line in corpus.lines(word):
        message = (str(line.position), line.payload.encode())
        await log.append([Append(line.subject, last.get(line.subject, 0), (message,))])
        last[line.subject] = line.position
    before = await log.head()
    drawn = before

    def new_id() -> str:
        nonlocal drawn
        drawn += 1
        return f"0192bbbb-0000-7000-8{sha256(word.encode()).hexdigest()[:3]}-{drawn:012}"

    dispatch = Dispatcher(log, Codec(deciders, upcasts=upcasts), lambda: START + timedelta(seconds=drawn), new_id)
    for teller, told in _tellings(decider, events, drawn):
        organization = PLATFORM if word in _OF_THE_PLATFORM else ACME
        await dispatch(teller, organization, ACME if word == "organization" else f"{word}-1", told, _CONTEXT)
    async with log.follow(after=before, batch=await log.head()) as batches:
        batch = await anext(aiter(batches))
    return [Stored(found.position, found.subject, found.payload.decode()) for found in batch]


def _tellings(
    decider: Decider[Any, Any, Any], events: Sequence[object], drawn: int
) -> list[tuple[Decider[Any, Any, Any], object]]:
    """Deciders that answer with what they are told, and what to tell them.

    Nobody commands a reservation, so both of its events are had from an organisation that takes a name and frees it.
    """
    if decider.aggregate != RESERVATION.aggregate:
        return [(replace(decider, decide=_as_told), event) for event in events]
    digest = sha256(str(drawn).encode()).hexdigest()
    takes, frees = Claim(kind="slug", digest=digest, taken_code="taken"), Release(kind="slug", digest=digest)
    return [(_wanting(takes), example(OrganizationCreated)), (_wanting(frees), example(MemberAdded))]


def _wanting(reservation: Claim | Release) -> Decider[Any, Any, Any]:
    organization: Decider[Any, Any, Any] = ORGANIZATION
    return replace(organization, decide=_as_told, reservations=lambda _state, _event: (reservation,))


def _as_told(_state: object, told: object, _at: datetime) -> tuple[object, ...]:
    return (told,)


def _lines_of(corpus: Corpus, record: Record, examples: Sequence[object]) -> list[Stored]:
    before = len(corpus.lines(record.word))
    return [
        Stored(before + number, record.subject, msgspec.json.encode(each).decode())
        for number, each in enumerate(examples, start=1)
    ]


def _example(kept: Kept, examples: Sequence[object]) -> object:
    return next(each for each in examples if type(each) is kept.type)


def main() -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    try:
        new = asyncio.run(record(Corpus()))
    except CannotRecordError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"recorded {len(new)}: {', '.join(new)}" if new else "every event type and schema has its sample")
    return 0


if __name__ == "__main__":
    sys.exit(main())
