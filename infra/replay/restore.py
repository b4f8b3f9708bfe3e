"""A lost or shortened EVENTS, rebuilt from the audit log: the same bytes, positions and message ids.

    audit_log rows ──inspected: chain, positions, columns──> refill ──> EVENTS       usage_records ──> USAGE
    then: no checkpoint, no settled reaction and no snapshot may be ahead of the log

First a plan, which only looks; then its execution. What no table holds is lost and said: events younger than the audit
log's checkpoint. The surprising rule: USAGE comes back record for record, not byte for byte, and where the stream held
a record twice it does so again, since its positions are the checkpoint of the read model `usage`.
"""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from nats.aio.client import Client

from domain.aggregates import AGGREGATES
from domain.usage import UsageRecord, usage_subject
from infra.events.codec import Codec
from infra.events.streams import EVENTS, SEALS, SNAPSHOTS, USAGE, ensure_streams
from infra.postgres import connect
from infra.replay.checkpoints import furthest, known_checkpoints, stream_of
from infra.replay.findings import Finding, Findings
from infra.replay.inspector import Inspector
from infra.replay.refill import refill
from infra.replay.stored import API_TIMEOUT_S, Message, end_of
from infra.replay.watch import Watch
from projections import usage
from projections.audit_log import AUDIT_LOG, list_kept
from projections.projection import Connection
from projections.query import MAX_PAGE_ROWS

ONLY_IN_POSTGRES = (
    "personal data and its keys, password hashes, kept replies of idempotency keys (schema vault)",
    "the ledger of effects, settled reactions (schema platform)",
)
"""What no stream can bring back: back these up with pg_dump."""


class DamagedTableError(RuntimeError):
    """The audit log itself is not whole, so nothing is written from it."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(f"the audit log at position {finding.position}: {finding.found}")
        self.finding = finding


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What there is, and what a restore would do.

    Attributes:
        events_there, usage_there: ends of the streams.
        events_kept: checkpoint of the audit log, up to where EVENTS can be rebuilt.
        usage_kept: the same for USAGE, from the read model `usage`.
        events_seen: the furthest checkpoint of any reader of EVENTS.
        audit_schema, usage_schema: where the rows are; of an older release while the newer one is still being built.
        ahead: read models that are ahead of the log that will be there; they are built again.
        seals_lost: the stream of the audit log's seals is empty although there were events.
    """

    events_there: int
    events_kept: int
    events_seen: int
    usage_there: int
    usage_kept: int
    audit_schema: str
    usage_schema: str
    ahead: tuple[str, ...]
    seals_lost: bool

    @property
    def events_missing(self) -> int:
        """How many events the audit log can bring back."""
        return max(0, self.events_kept - self.events_there)

    @property
    def usage_missing(self) -> int:
        return max(0, self.usage_kept - self.usage_there)

    @property
    def events_lost(self) -> int:
        """At least so many events were read by somebody, and are nowhere any more."""
        return max(0, self.events_seen - max(self.events_kept, self.events_there))

    @property
    def nothing_to_do(self) -> bool:
        return not (self.events_missing or self.usage_missing or self.ahead)

    @property
    def tables_lost(self) -> bool:
        """The other way round: the log is there, and Postgres knows nothing of it."""
        return self.events_there > 0 and self.events_seen == 0


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    """What was done; `reset` names the read models that the projections role builds again."""

    events_restored: int
    usage_restored: int
    events: int
    events_per_s: float
    reset: tuple[str, ...]
    reactions_forgotten: int
    snapshots_purged: bool


async def plan_restore(nc: Client, postgres_url: str) -> Plan:
    """Looks at both stores and changes nothing."""
    events, used, seals = [await end_of(nc, stream) for stream in (EVENTS, USAGE, SEALS)]
    async with await connect(postgres_url, "restore", autocommit=True) as connection:
        checkpoints = await known_checkpoints(connection)
    of_events = [c for c in checkpoints if stream_of(c) == EVENTS]
    audit, used_rows = furthest(checkpoints, AUDIT_LOG.name), furthest(checkpoints, usage.USAGE.name)
    kept = audit.position if audit else 0
    ahead = [c for c in of_events if c.position > max(kept, events)]
    return Plan(
        events_there=events,
        events_kept=kept,
        events_seen=max((c.position for c in of_events), default=0),
        usage_there=used,
        usage_kept=used_rows.position if used_rows else 0,
        audit_schema=audit.schema if audit else "",
        usage_schema=used_rows.schema if used_rows else "",
        ahead=tuple(c.schema for c in ahead),
        seals_lost=seals == 0 and events == 0 and kept > 0,
    )


async def restore(nc: Client, postgres_url: str, plan: Plan, *, replicas: int = 1, watch: Watch) -> Restored:
    """Carries the plan out; can be repeated after an interruption.

    Args:
        nc: a writer's connection as an administrator; every role is stopped.
        postgres_url: where the tables are.
        plan: a fresh one.
        replicas: copies of each stream that has to be created.
        watch: is told of the progress.

    Raises:
        DifferentLogError: the log that is there is another one; nothing was written.
        DamagedTableError: see the class; nothing was written after the position it names.
        RefillError: a stream refused, or somebody writes.
        UnfitServerError: a stream is missing and cannot be created.
    """
    await ensure_streams(nc, replicas=replicas)
    began = time.monotonic()
    restored = used = 0
    schemas = ",".join(schema for schema in (plan.audit_schema, plan.usage_schema, "platform") if schema)
    async with await connect(postgres_url, "restore", autocommit=True, search_path=schemas) as connection:
        if plan.events_missing:
            with watch("Events", plan.events_kept) as advance:
                source = _events(connection, plan.events_kept)
                _, restored = await refill(nc, EVENTS, source, advance=advance)
        took_s = time.monotonic() - began
        if plan.usage_missing:
            with watch("Usage records", plan.usage_kept) as advance:
                _, used = await refill(nc, USAGE, _usage(connection, plan.usage_kept), advance=advance)
        await _reset(connection, plan.ahead)
        forgotten = await _forget_reactions(connection) if plan.events_lost else 0
    purged = bool(restored or plan.events_lost) and await _purge_snapshots(nc)
    return Restored(
        events_restored=restored,
        usage_restored=used,
        events=await end_of(nc, EVENTS),
        events_per_s=round(restored / max(took_s, 1e-9), 1),
        reset=plan.ahead,
        reactions_forgotten=forgotten,
        snapshots_purged=purged,
    )


async def _events(connection: Connection, until: int) -> AsyncIterator[Sequence[Message]]:
    """The audit log as the stream held it, inspected on the way; batches as they are read."""
    findings = Findings()
    inspector = Inspector(findings, Codec(AGGREGATES))
    while inspector.position < until:  # each page moves on
        page = await list_kept(connection, after=inspector.position, limit=MAX_PAGE_ROWS)
        messages = []
        for row in page:
            if row.wrong:
                findings.damage("audit_log", row.wrong, position=row.position, subject=row.subject)
            event_id = row.envelope.event_id if row.envelope is not None else ""
            message = Message(row.position, row.subject, event_id, row.payload)
            inspector.check(message)
            messages.append(message)
        if not page:
            found = f"the rows end at {inspector.position:,}, the checkpoint is {until:,}"
            findings.damage("audit_log", found, position=inspector.position + 1)
        for finding in findings.kept:
            if finding.severity == "damage":
                raise DamagedTableError(finding)
        yield messages


async def _usage(connection: Connection, until: int) -> AsyncIterator[Sequence[Message]]:
    """Records at their positions; between them stood repetitions of earlier ones, and so they do again."""
    position = 0
    last: UsageRecord | None = None
    while position < until:  # each page moves on
        page = await usage.list_kept(connection, after=position, limit=MAX_PAGE_ROWS)
        messages = []
        for entry in page:
            messages += _repetitions(last, position, entry.position)
            messages.append(_used(entry.record, entry.position, entry.record.request_id))
            position, last = entry.position, entry.record
        if len(page) < MAX_PAGE_ROWS:
            messages += _repetitions(last, position, until + 1)
            position = until
        yield messages


def _repetitions(record: UsageRecord | None, after: int, before: int) -> list[Message]:
    if record is None:
        return []
    return [_used(record, position, f"{record.request_id}/{position}") for position in range(after + 1, before)]


def _used(record: UsageRecord, position: int, message_id: str) -> Message:
    subject = usage_subject(record.organization_id, record.deployment_id)
    return Message(position, subject, message_id, msgspec.json.encode(record))


async def _reset(connection: Connection, schemas: Sequence[str]) -> None:
    """Forgets the read models: without its checkpoint, one is dropped and built again when it starts."""
    await connection.execute(
        "DELETE FROM platform.checkpoints WHERE name || '_v' || version = ANY(%s)", (list(schemas),)
    )


async def _forget_reactions(connection: Connection) -> int:
    """Forgets what reactions settled of events that are lost, or they would pass over those that come instead."""
    cursor = await connection.execute("SELECT to_regclass('platform.reaction_positions')")
    row = await cursor.fetchone()
    if row is None or row[0] is None:
        return 0
    done = await connection.execute(
        """
        DELETE FROM platform.reaction_positions AS settled WHERE version > coalesce((
            SELECT max(version) FROM audit_log WHERE aggregate = settled.aggregate AND aggregate_id = settled.id
        ), 0)
        """
    )
    return done.rowcount


async def _purge_snapshots(nc: Client) -> bool:
    """A snapshot of a lost event would be believed by dispatch; they are only a cache."""
    reply = await nc.request(f"$JS.API.STREAM.PURGE.{SNAPSHOTS}", timeout=API_TIMEOUT_S)
    answer: dict[str, Any] = msgspec.json.decode(reply.data)
    return bool(answer.get("success"))
