"""A routing table on disk: one line of JSON a row, so that an operator can read it.

    {"schema", "position", "current_at", "rows": n}      then n lines, one row each

The surprising rule: there is no migration. A snapshot whose rows had other fields is not read; the log is.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import cache

import msgspec

from projections.fingerprint import fingerprint
from projections.routing_rows import RoutingRow
from projections.routing_table import RoutingSnapshot

PIECE_ROWS = 500
"""Encoded in less than a millisecond, for which the event loop may have to wait."""

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(RoutingRow)


class _Head(msgspec.Struct, frozen=True, kw_only=True):
    """First line of a stored snapshot; `rows` are the lines after it, `schema` is the fingerprint of their fields."""

    schema: str
    position: int
    current_at: datetime
    rows: int


def encode_snapshot(snapshot: RoutingSnapshot) -> Iterator[bytes]:
    """In pieces, so that a thread at it holds up nobody."""
    head = _Head(
        schema=_fingerprint(), position=snapshot.position, current_at=snapshot.current_at, rows=len(snapshot.rows)
    )
    yield msgspec.json.encode(head) + b"\n"
    for start in range(0, len(snapshot.rows), PIECE_ROWS):
        yield _encoder.encode_lines(snapshot.rows[start : start + PIECE_ROWS])


def decode_snapshot(data: bytes) -> RoutingSnapshot:
    """What `encode_snapshot` wrote.

    Raises:
        ValueError: damaged, or of another schema; read the log instead.
    """
    first, _, rest = data.partition(b"\n")
    head = msgspec.json.decode(first, type=_Head)
    if head.schema != _fingerprint():
        raise ValueError("the routing snapshot was written with other fields than this program's")
    rows = _decoder.decode_lines(rest)
    if len(rows) != head.rows:
        raise ValueError(f"the routing snapshot is truncated: {len(rows)} of {head.rows} rows")
    return RoutingSnapshot(position=head.position, current_at=head.current_at, rows=tuple(rows))


@cache
def _fingerprint() -> str:
    """Changes with any field of a row, so that a snapshot from before such a change is not half understood."""
    return fingerprint(RoutingRow)
