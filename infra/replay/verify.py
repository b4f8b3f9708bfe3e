"""Checks the stores against each other: the log with itself, its second home with the log, checkpoints and caches too.

    EVENTS ──every message──> inspector: positions, versions, hashes ... ──> the audit log's row, and its heads
    checkpoints <= head?      streams whole, on every replica?      snapshots == fresh folds?      server fit?

Reads only; safe beside a running platform, since Postgres is seen at one moment and the log up to its end after that.
Memory: the head of each aggregate (inspector.py).
"""

import contextlib
import time
from collections.abc import Callable, Sequence

import msgspec
from nats.aio.client import Client

from domain.aggregates import AGGREGATES
from infra.events.codec import Codec
from infra.events.reads import ApiError
from infra.events.replicas import replica_findings, unreadable_replicas
from infra.events.streams import EVENTS, SEALS, USAGE, UnfitServerError, verify_server
from infra.postgres import connect
from infra.replay.checkpoints import known_checkpoints, stream_of
from infra.replay.findings import Finding, Findings
from infra.replay.inspector import Inspector
from infra.replay.snapshot_check import check_snapshots
from infra.replay.stored import Message, StreamState, stored_messages, stream_info
from infra.replay.watch import Watch
from projections.audit_log import AUDIT_LOG, find_unlike, stream_heads
from projections.checkpoint import Checkpoint
from projections.projection import Connection, Entry
from projections.registry import PROJECTIONS

FOR_EVER = (EVENTS, USAGE, SEALS)
SAMPLED_SNAPSHOTS = 200
FAR_BEHIND_MESSAGES = 10_000


class Checked(msgspec.Struct, kw_only=True):
    """How much was looked at."""

    events: int = 0
    aggregates: int = 0
    audit_rows: int = 0
    checkpoints: int = 0
    snapshots: int = 0


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """`damaged`: at least one finding says that something acknowledged is lost or altered."""

    checked: Checked
    findings: Sequence[Finding]
    findings_left_out: int
    damaged: bool
    events_per_s: float


async def verify(nc: Client, postgres_url: str, *, monitor_url: str = "", full: bool = False, watch: Watch) -> Report:
    """Checks everything once.

    Args:
        nc: any connection with the right to read.
        postgres_url: where the read models are.
        monitor_url: see verify_server.
        full: every snapshot, instead of a sample.
        watch: is told of the progress.

    Raises:
        OSError, psycopg.OperationalError, nats.errors.Error: a store does not answer.
    """
    findings, checked = Findings(), Checked()
    codec = Codec(AGGREGATES)
    await _check_server(nc, monitor_url, findings)
    connection = await connect(
        postgres_url,
        "verify",
        search_path=AUDIT_LOG.schema,
        default_transaction_read_only="on",
        default_transaction_isolation="repeatable\\ read",
    )
    async with connection:
        checkpoints = await known_checkpoints(connection)
        states = await _check_streams(nc, findings)
        _check_checkpoints(checkpoints, states, findings)
        checked.checkpoints = len(checkpoints)
        began = time.monotonic()
        inspector = Inspector(findings, codec)
        audited_to = next((c.position for c in checkpoints if c.schema == AUDIT_LOG.schema), 0)
        with watch("Events", states[EVENTS].last_seq) as advance:
            audit = _AuditLog(connection, findings, checked, audited_to)
            await _check_events(nc, states[EVENTS], inspector, audit, advance)
        took_s = time.monotonic() - began
        checked.events, checked.aggregates = inspector.events, inspector.aggregates
    checked.snapshots = await check_snapshots(
        nc, codec, findings, most=None if full else SAMPLED_SNAPSHOTS, watch=watch
    )
    return Report(
        checked=checked,
        findings=findings.kept,
        findings_left_out=findings.left_out,
        damaged=findings.damaged,
        events_per_s=round(inspector.events / max(took_s, 1e-9), 1),
    )


class _AuditLog:
    """Compares the audit log's rows with the messages as they pass, and its heads where it has read up to."""

    def __init__(self, connection: Connection, findings: Findings, checked: Checked, audited_to: int) -> None:
        self._connection = connection
        self._findings = findings
        self._checked = checked
        self._after = 0
        self.audited_to = audited_to

    async def compare(self, entries: Sequence[Entry], last: int) -> None:
        """The rows after those compared so far, up to position `last` or the audit log's checkpoint."""
        until = min(last, self.audited_to)
        if until <= self._after:
            return
        of_these = [entry for entry in entries if entry.position <= until]
        for position, found in await find_unlike(self._connection, of_these, after=self._after, until=until):
            self._findings.damage("audit_log", found, position=position, subject=AUDIT_LOG.schema)
        self._checked.audit_rows += len(of_these)
        self._after = until

    async def compare_heads(self, inspector: Inspector) -> None:
        known = 0
        async for subject, version, payload_sha256 in stream_heads(self._connection):
            known += 1
            if inspector.head(subject) != (version, payload_sha256):
                found = f"its head is version {version}, in the log it is {inspector.head(subject)[0]}, or another hash"
                self._findings.damage("audit_heads", found, subject=subject)
        if known != inspector.aggregates:
            found = f"it has {known:,} heads, the log {inspector.aggregates:,}"
            self._findings.damage("audit_heads", found, subject=AUDIT_LOG.schema)


async def _check_events(
    nc: Client, state: StreamState, inspector: Inspector, audit: _AuditLog, advance: Callable[[int], None]
) -> None:
    async with stored_messages(nc, EVENTS, until=state.last_seq) as batches:
        async for messages in batches:
            edge = sum(message.position <= audit.audited_to for message in messages)
            for part in (messages[:edge], messages[edge:]):
                if part:
                    await _check_part(part, inspector, audit)
            advance(len(messages))
    await audit.compare([], state.last_seq)  # what the log should have had at its end


async def _check_part(messages: Sequence[Message], inspector: Inspector, audit: _AuditLog) -> None:
    entries = []
    for message in messages:
        envelope = inspector.check(message)
        if envelope is not None:
            entries.append(Entry(message.position, message.subject, message.payload, envelope, None))
    await audit.compare(entries, messages[-1].position)
    if messages[-1].position == audit.audited_to:
        await audit.compare_heads(inspector)


async def _check_server(nc: Client, monitor_url: str, findings: Findings) -> None:
    try:
        await verify_server(nc, monitor_url)
    except UnfitServerError as error:
        for found in error.findings:
            findings.warn("server", found)
    if not monitor_url:
        return
    with contextlib.suppress(ApiError):  # a missing stream is a finding of its own
        for replica in await replica_findings(monitor_url) + await unreadable_replicas(nc):
            tell = findings.damage if replica.kind == "damaged" else findings.warn
            tell("replica", f"{replica.node}: {replica.fact}", subject=replica.stream, cure=replica.cure)


async def _check_streams(nc: Client, findings: Findings) -> dict[str, StreamState]:
    """What is kept for ever must begin at 1 and have no hole."""
    states = {}
    for stream in FOR_EVER:
        info = await stream_info(nc, stream)
        states[stream] = state = info[1] if info is not None else StreamState()
        if info is None:
            findings.damage("stream", "there is no such stream", subject=stream)
        elif state.messages != state.last_seq or state.num_deleted or (state.messages and state.first_seq != 1):
            found = f"{state.messages:,} messages from {state.first_seq:,} to {state.last_seq:,}"
            findings.damage("stream", f"{found}, {state.num_deleted:,} deleted", subject=stream)
    return states


def _check_checkpoints(checkpoints: Sequence[Checkpoint], states: dict[str, StreamState], findings: Findings) -> None:
    """Nobody can have read further than the stream goes."""
    current = {projection.schema for projection in PROJECTIONS}
    for checkpoint in checkpoints:
        stream = stream_of(checkpoint)
        head = states[stream].last_seq
        if checkpoint.position > head:
            found = f"it has read up to {checkpoint.position:,}, but {stream} ends at {head:,}"
            findings.damage("checkpoint", found, position=checkpoint.position, subject=checkpoint.schema)
        elif head - checkpoint.position > FAR_BEHIND_MESSAGES and checkpoint.schema in current:
            found = f"it is {head - checkpoint.position:,} messages behind {stream}"
            findings.warn("lag", found, position=checkpoint.position, subject=checkpoint.schema)
