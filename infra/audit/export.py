"""Writes the audit log as a file that an auditor takes away: infra/deploy/verify_audit_export.py reads it, alone.

    {"format": ..., "keys": [...]}    {"position", "subject", "payload" (base64)} ...    {"seal": its exact text} ...

A seal stands right behind the last entry that it covers, so a reader needs one pass, and remembers no tree.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import IO

import msgspec

from domain.seal import SealKey, StoredSeal
from projections.audit_log import list_kept
from projections.projection import Connection

FORMAT = "inventiv-audit-export/1"
PAGE_ROWS = 500


class _Head(msgspec.Struct, frozen=True):
    format: str
    keys: Sequence[SealKey]


class _Entry(msgspec.Struct, frozen=True):
    position: int
    subject: str
    payload: bytes  # base64 in JSON


class _SealLine(msgspec.Struct, frozen=True):
    seal: str


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """How much was written; the newest seal covers `sealed_entries`."""

    entries: int
    checkpoints: int
    sealed_entries: int


async def export_audit_log(
    connection: Connection,
    seals: AsyncIterator[StoredSeal],
    keys: Sequence[SealKey],
    out: IO[bytes],
    *,
    advance: Callable[[int], None] = lambda _rows: None,
) -> Exported:
    """Writes every row and every seal, as they are: checking is the reader's part.

    Args:
        connection: sees one moment of the audit log.
        seals: oldest first.
        keys: told in the head, for whoever has none from elsewhere.
        out: binary.
        advance: told of each page of rows.
    """
    encoder = msgspec.json.Encoder()
    after, sealed, checkpoints = 0, 0, 0
    pending = await anext(seals, None)
    out.write(encoder.encode(_Head(FORMAT, keys)) + b"\n")
    while page := await list_kept(connection, after=after, limit=PAGE_ROWS):  # bounded: each page moves on
        for row in page:
            after = row.position
            out.write(encoder.encode(_Entry(row.position, row.subject, row.payload)) + b"\n")
            while pending is not None and pending.seal.size <= after:  # bounded: each seal is taken once
                out.write(encoder.encode(_SealLine(pending.stored.decode())) + b"\n")
                sealed, checkpoints = pending.seal.size, checkpoints + 1
                pending = await anext(seals, None)
        advance(len(page))
    return Exported(entries=after, checkpoints=checkpoints, sealed_entries=sealed)
