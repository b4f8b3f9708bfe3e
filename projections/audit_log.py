"""Every envelope as a row, its exact bytes included: the audit log, and the event log's second home.

It is also the reader that holds the log to its word: each envelope must be the next version of its aggregate and carry
the hash of its predecessor's stored bytes. Where that fails, the projection halts and names the position. Envelopes are
stored undecoded, so an event type that this release does not know is no obstacle. What people ask of it (filters,
words, pages) stands in audit_search.py.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime

import msgspec
from psycopg import sql

from domain.ids import PLATFORM, EventId, OrganizationId
from domain.message import Envelope, Recorded, payload_hash, subject_in
from projections.projection import Connection, Entry, LogDamagedError, Projection
from projections.query import find_all, find_one, page_rows
from projections.table import Table

_TABLES = """
CREATE TABLE audit_log (
    position bigint PRIMARY KEY,
    event_id text NOT NULL,
    subject text NOT NULL,
    aggregate text NOT NULL,
    aggregate_id text NOT NULL,
    version bigint NOT NULL,
    type text NOT NULL,
    organization_id text NOT NULL,
    actor text NOT NULL,
    cause text,
    correlation text NOT NULL,
    at timestamptz NOT NULL,
    origin text NOT NULL,
    payload bytea NOT NULL
);
CREATE INDEX audit_log_by_aggregate ON audit_log (aggregate, aggregate_id, position);
CREATE INDEX audit_log_by_organization ON audit_log (organization_id, position);
CREATE INDEX audit_log_by_type ON audit_log (type, position);
CREATE INDEX audit_log_by_correlation ON audit_log (hashtextextended(correlation, 0), position);
CREATE INDEX audit_log_by_event ON audit_log USING hash (event_id);
CREATE INDEX audit_log_by_cause ON audit_log (cause, position) WHERE cause IS NOT NULL;
CREATE TABLE audit_heads (
    subject text PRIMARY KEY,
    organization_id text NOT NULL,
    version bigint NOT NULL,
    payload_sha256 text NOT NULL,
    label text NOT NULL
);
CREATE INDEX audit_heads_by_label ON audit_heads (organization_id) WHERE label <> ''
"""
# A correlation may come from a caller's header, and a b-tree limits the length of what it keeps: hence its hash. A hash
# index was refused: a million events of one correlation fill one endless bucket, and each insert walks it.


HEADS_FETCHED = 2000
"""Rows at a time of a walk over all aggregates."""
MAX_LABEL_CHARACTERS = 200

_LABELS: Mapping[str, str] = {
    "OrganizationCreated": "name",
    "OrganizationRenamed": "name",
    "ApiKeyIssued": "name",
    "ApiKeyRenamed": "name",
    "ModelListed": "code",
    "OfferingPublished": "code",
    "DeploymentRequested": "model_code",
    "InstanceRequested": "model_code",
    "SettingSet": "provider",
    "ProviderCredentialsSet": "provider",
}
"""Event type -> its field that people call the aggregate by. A person's names are sealed, and no label."""


class EventFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which envelopes; an empty field does not restrict. Set `organization_id` for anyone but a platform admin."""

    organization_id: str = ""
    aggregate: str = ""
    aggregate_id: str = ""
    type: str = ""
    correlation: str = ""
    event_id: str = ""


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    position: int
    event_id: EventId
    subject: str
    aggregate: str
    aggregate_id: str
    version: int
    type: str
    organization_id: OrganizationId
    actor: str
    cause: EventId | None
    correlation: str
    at: datetime
    origin: str
    payload: bytes


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    subject: str
    organization_id: OrganizationId
    version: int
    payload_sha256: str
    label: str


class _Named(msgspec.Struct, frozen=True):
    """The fields of an event that _LABELS mentions; whatever else it has is skipped."""

    name: str = ""
    code: str = ""
    model_code: str = ""
    provider: str = ""


class _Subject(msgspec.Struct, frozen=True):
    subject: str


class Kept(msgspec.Struct, frozen=True):
    """A row for whoever checks the table by itself: `envelope` of its payload, `wrong` where its columns differ."""

    position: int
    subject: str
    payload: bytes
    envelope: Envelope | None
    wrong: str


class Stored(msgspec.Struct, frozen=True):
    position: int
    subject: str
    payload: bytes


_audit_log = Table("audit_log", _Row, key=("position",))
_heads = Table("audit_heads", _Head, key=("subject",))
_envelopes = msgspec.json.Decoder(Envelope)
_named = msgspec.json.Decoder(_Named)

_BEFORE_ANY = _Head(subject="", organization_id=PLATFORM, version=0, payload_sha256="", label="")


async def list_events(
    connection: Connection, wanted: EventFilter, *, after: int = 0, limit: int = 100
) -> list[Recorded]:
    """The next events after a position, oldest first; ask again with the last one's position for the next page."""
    return await _find(connection, wanted, sql.SQL("position > %(edge)s"), sql.SQL("ASC"), after, limit)


async def list_events_before(
    connection: Connection, wanted: EventFilter, *, before: int | None = None, limit: int = 100
) -> list[Recorded]:
    """The last events before a position (None: the end of the log), oldest first."""
    edge = sql.SQL("(%(edge)s::bigint IS NULL OR position < %(edge)s)")
    return (await _find(connection, wanted, edge, sql.SQL("DESC"), before, limit))[::-1]


async def _find(
    connection: Connection, wanted: EventFilter, edge: sql.SQL, direction: sql.SQL, position: int | None, limit: int
) -> list[Recorded]:
    given = {field: value for field, value in msgspec.structs.asdict(wanted).items() if value}
    conditions: list[sql.Composable] = [edge]
    conditions += [sql.SQL(f"{field} = %({field})s") for field in given]  # the names are the struct's
    if wanted.correlation:
        conditions.append(sql.SQL("hashtextextended(correlation, 0) = hashtextextended(%(correlation)s, 0)"))
    query = sql.SQL(
        "SELECT position, subject, payload FROM audit_log WHERE {where} ORDER BY position {direction} LIMIT %(rows)s"
    ).format(where=sql.SQL(" AND ").join(conditions), direction=direction)
    parameters = {**given, "edge": position, "rows": page_rows(limit)}
    return [recorded(row) for row in await find_all(connection, Stored, query, parameters)]


def recorded(row: Stored) -> Recorded:
    return Recorded(row.position, row.subject, row.payload, _envelopes.decode(row.payload))


async def find_unlike(
    connection: Connection, entries: Sequence[Entry], *, after: int, until: int
) -> list[tuple[int, str]]:
    """Where the rows of (after, until] are not those that these entries make: (position, what is wrong).

    For whoever checks the log and its second home by one another; rows of every organisation.
    """
    query = "SELECT * FROM audit_log WHERE position > %s AND position <= %s"
    rows = {row.position: row for row in await find_all(connection, _Row, query, (after, until))}
    made = {entry.position: _row(entry) for entry in entries}
    return [
        (position, wrong)
        for position in sorted(rows.keys() | made.keys())
        if (wrong := _difference(rows.get(position), made.get(position)))
    ]


def _difference(row: _Row | None, made: _Row | None) -> str:
    if row == made:
        return ""
    if row is None:
        return "the row is missing"
    if made is None:
        return "the row stands for no event of the log"
    other = [field for field in _Row.__struct_fields__ if getattr(row, field) != _as_stored(getattr(made, field))]
    return f"the row differs in {', '.join(other)}" if other else ""


def _as_stored(value: object) -> object:
    """Postgres cannot hold U+0000."""
    return value.replace("\0", "\ufffd") if isinstance(value, str) else value


async def list_kept(connection: Connection, *, after: int, limit: int) -> list[Kept]:
    """The next rows after a position, of every organisation, each held against its own payload."""
    query = "SELECT * FROM audit_log WHERE position > %s ORDER BY position LIMIT %s"
    rows = await find_all(connection, _Row, query, (after, page_rows(limit)))
    return [Kept(row.position, row.subject, row.payload, *_against_itself(row)) for row in rows]


def _against_itself(row: _Row) -> tuple[Envelope | None, str]:
    try:
        envelope = _envelopes.decode(row.payload)
    except (msgspec.DecodeError, UnicodeDecodeError):  # the second for text that is no UTF-8
        return None, "the payload is no envelope"
    if row.subject != subject_in(envelope):
        return envelope, "the row differs in subject"
    return envelope, _difference(row, _row(Entry(row.position, row.subject, row.payload, envelope, None)))


async def find_unlike_head(connection: Connection) -> str | None:
    """The subject of a head that is not its aggregate's last row, or of an aggregate without one; None: all is well."""
    query = """
        SELECT coalesce(h.subject, l.subject) AS subject
        FROM audit_heads AS h FULL JOIN (
            SELECT DISTINCT ON (subject) subject, version, encode(sha256(payload), 'hex') AS payload_sha256
            FROM audit_log ORDER BY subject, position DESC
        ) AS l ON l.subject = h.subject
        WHERE h.version IS DISTINCT FROM l.version OR h.payload_sha256 IS DISTINCT FROM l.payload_sha256
        LIMIT 1
    """
    found = await find_one(connection, _Subject, query)
    return found.subject if found else None


async def stream_heads(connection: Connection) -> AsyncIterator[tuple[str, int, str]]:
    """(subject, version, SHA-256 of its last payload) of every aggregate, in no order; inside a transaction."""
    async with connection.cursor(name="audit_heads") as cursor:
        cursor.itersize = HEADS_FETCHED
        await cursor.execute("SELECT subject, version, payload_sha256 FROM audit_heads")
        async for subject, version, payload_sha256 in cursor:
            yield subject, version, payload_sha256


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    heads = await _heads.load(connection, [(entry.subject,) for entry in entries])
    for entry in entries:
        heads[entry.subject,] = _next_head(heads.get((entry.subject,), _BEFORE_ANY), entry)
    await _heads.put(connection, heads.values())
    await _audit_log.add(connection, map(_row, entries))


def _next_head(head: _Head, entry: Entry) -> _Head:
    envelope = entry.envelope
    if envelope.version != head.version + 1:
        finding = f"{entry.subject} goes from version {head.version} to {envelope.version}"
        raise LogDamagedError(entry.position, finding)
    if envelope.previous != head.payload_sha256:
        raise LogDamagedError(entry.position, f"{entry.subject} version {head.version} is not as it was written")
    return _Head(
        subject=entry.subject,
        organization_id=envelope.organization,
        version=envelope.version,
        payload_sha256=payload_hash(entry.payload),
        label=_label(envelope) or head.label,
    )


def _label(envelope: Envelope) -> str:
    """What its aggregate is called from here on; empty where the event does not say."""
    field = _LABELS.get(envelope.type)
    if field is None:
        return ""
    try:
        named = _named.decode(envelope.data)
    except msgspec.DecodeError:  # of a release that gave the field another type
        return ""
    return str(getattr(named, field))[:MAX_LABEL_CHARACTERS]


def _row(entry: Entry) -> _Row:
    envelope = entry.envelope
    return _Row(
        position=entry.position,
        event_id=envelope.event_id,
        subject=entry.subject,
        aggregate=envelope.aggregate,
        aggregate_id=envelope.id,
        version=envelope.version,
        type=envelope.type,
        organization_id=envelope.organization,
        actor=envelope.actor,
        cause=envelope.cause,
        correlation=envelope.correlation,
        at=envelope.at,
        origin=envelope.origin,
        payload=entry.payload,
    )


AUDIT_LOG = Projection("audit_log", 3, _TABLES, apply)
