"""What must hold between the recorded histories and today's code; each law returns its findings, each with its cure.

code ──fingerprints──> registry <──samples── histories ──upcasts, decode, fold──> today's states
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from domain.aggregates import AGGREGATES
from domain.decider import Decider
from domain.message import Envelope, Recorded, payload_hash
from infra.events.codec import Codec, decode_recorded
from infra.events.port import UnreadableMessageError
from infra.events.upcasts import UPCASTS, Upcasts
from tests.histories.corpus import RECORDS, Corpus, Record, Stored, fingerprint, kept_today, pin_of

_RECORD_IT = "record a sample with `just histories`"


def all_findings(
    corpus: Corpus,
    deciders: Sequence[Decider[Any, Any, Any]] = AGGREGATES,
    upcasts: Upcasts = UPCASTS,
    records: Sequence[Record] = RECORDS,
) -> list[str]:
    return [
        *changed_shapes(corpus, deciders, records),
        *vanished_types(corpus, deciders, records),
        *altered_lines(corpus),
        *missing_samples(corpus, records),
        *unreadable_histories(corpus, deciders, upcasts, records),
    ]


def changed_shapes(
    corpus: Corpus, deciders: Sequence[Decider[Any, Any, Any]], records: Sequence[Record] = RECORDS
) -> Iterator[str]:
    """A shape that is stored differs from the one registered under the same schema, or is not registered."""
    for kept in kept_today(deciders, records):
        registered = corpus.registry.schemas.get(kept.name, {})
        newest = max(registered, default=0)
        if kept.schema < newest:
            yield f"{kept.name} fell back to schema {kept.schema}, though {newest} has been stored: raise it again"
        elif kept.schema > newest:
            yield f"{kept.name} of schema {kept.schema} is not registered: {_RECORD_IT}"
        elif registered[kept.schema] != fingerprint(kept.type):
            yield (
                f"the fields of {kept.name} changed under schema {kept.schema}, which has been stored: "
                f'set SCHEMA = {kept.schema + 1} on it, add ("{kept.name}", {kept.schema}) to UPCASTS, and {_RECORD_IT}'
            )


def vanished_types(
    corpus: Corpus, deciders: Sequence[Decider[Any, Any, Any]], records: Sequence[Record] = RECORDS
) -> Iterator[str]:
    """An event is for ever: old logs hold it, so some aggregate must go on declaring it."""
    known = {kept.name for kept in kept_today(deciders, records)}
    for name in sorted(set(corpus.registry.schemas) - known):
        yield f"{name} has been stored, but no aggregate declares it any more: bring it back, events are for ever"


def altered_lines(corpus: Corpus) -> Iterator[str]:
    """Recorded bytes may only be added to, and only by the recorder."""
    pins = corpus.registry.files
    for word in sorted({*pins, *corpus.words()}):
        lines = corpus.raw_lines(word)
        if word not in pins:
            yield f"{word}.jsonl was not written by the recorder: remove it, and {_RECORD_IT}"
        elif pin_of(lines) != pins[word]:
            yield f"{word}.jsonl is not as it was recorded: restore it from git, then {_RECORD_IT} of what is new"


def missing_samples(corpus: Corpus, records: Sequence[Record] = RECORDS) -> Iterator[str]:
    """Each registered type and schema has a stored example, and nothing else is stored."""
    registered = {(name, schema) for name, schemas in corpus.registry.schemas.items() for schema in schemas}
    sampled = sampled_shapes(corpus, records)
    for name, schema in sorted(registered - sampled):
        yield f"{name} of schema {schema} is registered without a sample: {_RECORD_IT}"
    for name, schema in sorted(sampled - registered):
        yield f"{name} of schema {schema} is recorded, but not registered: {_RECORD_IT}"


def sampled_shapes(corpus: Corpus, records: Sequence[Record] = RECORDS) -> set[tuple[str, int]]:
    bare = {record.word: record.type.__name__ for record in records}
    found = set()
    for word in corpus.words():
        for line in corpus.lines(word):
            data = msgspec.json.decode(line.payload)
            found.add((bare.get(word) or data["type"], data.get("schema", 1)))
            if word not in bare:
                found.add((Envelope.__name__, 2 if "origin" in data else 1))
    return found


def unreadable_histories(
    corpus: Corpus,
    deciders: Sequence[Decider[Any, Any, Any]],
    upcasts: Upcasts,
    records: Sequence[Record] = RECORDS,
) -> Iterator[str]:
    """Every stored message is read and folded by today's code, through the upcasts."""
    types = {record.word: record.type for record in records}
    for word in corpus.words():
        try:
            if word in types:
                for line in corpus.lines(word):
                    msgspec.json.decode(line.payload, type=types[word])
            else:
                fold_all(recorded_lines(corpus.lines(word)), deciders, upcasts)
        except Exception as error:  # noqa: BLE001 - whatever stops a reader is the finding
            yield f"{word}.jsonl cannot be read by today's code: {error!r}"


def recorded_lines(lines: Sequence[Stored]) -> list[Recorded]:
    """As a log would return them.

    Raises:
        UnreadableMessageError: a line is no envelope, or its position is not the next one.
    """
    for number, line in enumerate(lines, start=1):
        if line.position != number:
            raise UnreadableMessageError(f"line {number} has position {line.position}")
    return [decode_recorded(line.position, line.subject, line.payload.encode()) for line in lines]


def fold_all(
    history: Sequence[Recorded], deciders: Sequence[Decider[Any, Any, Any]], upcasts: Upcasts = UPCASTS
) -> Mapping[str, Any]:
    """The state behind each subject.

    Raises:
        UnknownEventError, msgspec.ValidationError: an event cannot be read.
        AssertionError: a version or a predecessor's hash is not what it must be.
    """
    codec, by_word = Codec(deciders, upcasts=upcasts), {decider.aggregate: decider for decider in deciders}
    states: dict[str, Any] = {}
    heads: dict[str, tuple[int, str]] = {}
    for recorded in history:
        envelope, subject = recorded.envelope, recorded.subject
        version, previous = heads.get(subject, (0, ""))
        assert (envelope.version, envelope.previous) == (version + 1, previous), f"{subject} is not a chain"
        heads[subject] = (envelope.version, payload_hash(recorded.payload))
        decider = by_word[envelope.aggregate]
        states[subject] = decider.evolve(
            states.get(subject, decider.initial), codec.decode_event(envelope), envelope.at
        )
    return states
