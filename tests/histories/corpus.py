"""The recorded histories: bytes as they were stored, of every event type in every schema that ever was.

    <aggregate>.jsonl   stored messages, oldest first: position, subject, payload (its exact bytes as text)
    schemas.json        the fingerprint of each type's fields by schema; the hash of each file's lines

Everything here only grows. The surprising rule: a field that is added, even with a default, is a new schema. What old
events mean by its absence is then said once, by an upcast, rather than by whatever the default happens to become.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from domain.decider import Decider, schema_of
from domain.message import Envelope
from domain.seal import Seal, SealKey
from domain.usage import UsageRecord, usage_subject

FOLDER = Path(__file__).parent
REGISTRY = "schemas.json"


class Stored(msgspec.Struct, frozen=True):
    """One line of a file."""

    position: int
    subject: str
    payload: str


class Pin(msgspec.Struct, frozen=True):
    """The lines of a file that are recorded, and the hash of their bytes."""

    lines: int
    sha256: str


class Registry(msgspec.Struct, frozen=True):
    """What schemas.json says: type -> schema -> fingerprint, and file -> pin."""

    schemas: dict[str, dict[int, str]]
    files: dict[str, Pin]


class Kept(NamedTuple):
    """A shape that the platform stores for ever, as the code has it today.

    `of` is where its samples stand: an aggregate's word or a record's; "" for the envelope, which every line has.
    """

    name: str
    schema: int
    type: type[Any]
    of: str


class Record(NamedTuple):
    """Something stored for ever without an envelope; a `schema`, when it has one, is a field of its own.

    `subject` is where a sample stands.
    """

    word: str
    type: type[Any]
    subject: str


RECORDS: tuple[Record, ...] = (
    Record("usage", UsageRecord, usage_subject("acme", "deployment-1")),
    Record("seal", Seal, "seal.audit"),
    Record("seal_key", SealKey, "seal.key.0123456789abcdef"),
)

_lines = msgspec.json.Decoder(Stored)


class Corpus:
    """A folder of histories, as it lies on disk."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder
        stored = folder / REGISTRY
        self.registry = msgspec.json.decode(stored.read_bytes(), type=Registry) if stored.exists() else Registry({}, {})

    def words(self) -> list[str]:
        return sorted(path.stem for path in self.folder.glob("*.jsonl"))

    def raw_lines(self, word: str) -> list[bytes]:
        path = self._path(word)
        return path.read_bytes().splitlines(keepends=True) if path.exists() else []

    def lines(self, word: str) -> list[Stored]:
        return [_lines.decode(line) for line in self.raw_lines(word)]

    def extend(self, word: str, lines: Sequence[Stored], kept: Sequence[Kept]) -> None:
        """Appends lines, and registers what they are samples of."""
        with self._path(word).open("ab") as file:
            file.writelines(msgspec.json.encode(line) + b"\n" for line in lines)
        self.register(kept)
        self.registry.files[word] = pin_of(self.raw_lines(word))
        self._save()

    def register(self, kept: Sequence[Kept]) -> None:
        for each in kept:
            self.registry.schemas.setdefault(each.name, {})[each.schema] = fingerprint(each.type)
        self._save()

    def _save(self) -> None:
        plain = msgspec.to_builtins(self.registry, str_keys=True)
        text = msgspec.json.format(msgspec.json.encode(plain, order="deterministic"), indent=2)
        (self.folder / REGISTRY).write_bytes(text + b"\n")

    def _path(self, word: str) -> Path:
        return self.folder / f"{word}.jsonl"


def pin_of(lines: Sequence[bytes]) -> Pin:
    return Pin(len(lines), sha256(b"".join(lines)).hexdigest())


def kept_today(deciders: Sequence[Decider[Any, Any, Any]], records: Sequence[Record] = RECORDS) -> Iterator[Kept]:
    """Every shape that today's code would store."""
    yield Kept(Envelope.__name__, schema_of(Envelope), Envelope, "")
    for decider in deciders:
        for event in decider.events:
            yield Kept(event.__name__, schema_of(event), event, decider.aggregate)
    for record in records:
        yield Kept(record.type.__name__, schema_of_record(record.type), record.type, record.word)


def schema_of_record(record: type[Any]) -> int:
    """The default of its field `schema`; 1 for a record that has none."""
    return next((int(field.default) for field in msgspec.structs.fields(record) if field.name == "schema"), 1)


def fingerprint(stored: type[Any]) -> str:
    """Changes with the fields and their types, not with what docstrings say about them."""
    shape = _without_descriptions(msgspec.json.schema(stored))
    return sha256(msgspec.json.encode(shape, order="deterministic")).hexdigest()[:16]


def _without_descriptions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON schema without its prose; a field that is itself called "description" stays."""
    bare: dict[str, Any] = {}
    for key, value in schema.items():
        if key in {"properties", "$defs"}:
            bare[key] = {name: _without_descriptions(part) for name, part in value.items()}
        elif isinstance(value, Mapping):
            bare[key] = _without_descriptions(value)
        elif isinstance(value, list):
            bare[key] = [_without_descriptions(part) if isinstance(part, Mapping) else part for part in value]
        elif key != "description":
            bare[key] = value
    return bare
