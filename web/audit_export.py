"""An export of the audit log: the rows of a filter as CSV or JSON lines, page by page, in bounded memory.

    page of events ──audit_rows──> rows ──flat──> CSV (RFC 4180) or one JSON object a line ──> the socket ──> next page

The surprising rule: the end is fixed before the beginning, at the export's own row. Rows that come while it runs are
for the next export, so two pages can neither overlap nor chase a busy log. People are told by their ids alone: a file
cannot be made to forget anybody. A cell that a spreadsheet would take for a formula gets an apostrophe before it.
"""

import csv
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from domain.message import Recorded
from projections.audit_search import AuditFilter, list_next
from projections.projection import Scope
from web.audit_rows import audit_rows
from web.audit_shapes import AuditRow
from web.services import Services

PAGE_ROWS = 500

Format = Literal["csv", "jsonl"]
MEDIA_TYPES: Mapping[str, str] = {"csv": "text/csv; charset=utf-8", "jsonl": "application/jsonl; charset=utf-8"}
COLUMNS = (
    "position",
    "at",
    "event_id",
    "actor_kind",
    "actor_id",
    "actor_name",
    "verb",
    "action",
    "type",
    "outcome",
    "component",
    "target_aggregate",
    "target_id",
    "target_label",
    "target_version",
    "organization_id",
    "cause_event_id",
    "correlation",
    "origin_kind",
    "origin_id",
    "data",
)
"""Of both formats; `actor_name` is that of a key, `data` are the event's own fields, as JSON."""
_FORMULA_SIGNS = ("=", "+", "-", "@", "\t", "\r")
"""https://owasp.org/www-community/attacks/CSV_Injection"""


class ExportEndedError(Exception):
    """Who asked may not see the rest any more; the connection is cut, so that nobody takes this for a whole export."""


@dataclass(frozen=True)
class Source:
    """Where an export's rows come from.

    Attributes:
        until: position of the export's own row; what lies before it is exported.
        still_allowed: asked before each page but the first.
    """

    services: Services
    wanted: AuditFilter
    scope: Scope | None
    until: int
    still_allowed: Callable[[], Awaitable[bool]]


async def export_chunks(source: Source, kind: Format) -> AsyncIterator[bytes]:
    """One chunk a page; the first one comes also when there is no row.

    Raises:
        SearchTooBroadError: Postgres was not done with a page in time.
        ExportEndedError: see the class.
    """
    encode = _csv_lines if kind == "csv" else _json_lines
    head = _csv_text([COLUMNS]) if kind == "csv" else b""
    page = await _page(source, 0)
    yield head + encode(await _flat_rows(source, page))
    while len(page) == PAGE_ROWS:  # bounded: `until` is fixed, and each page moves on
        if not await source.still_allowed():
            raise ExportEndedError
        page = await _page(source, page[-1].position)
        yield encode(await _flat_rows(source, page))


async def _page(source: Source, after: int) -> list[Recorded]:
    async with source.services.read("audit_log", position=source.until, scope=source.scope) as connection:
        return await list_next(connection, source.wanted, after=after, before=source.until, limit=PAGE_ROWS)


async def _flat_rows(source: Source, found: Sequence[Recorded]) -> list[dict[str, Any]]:
    organization_id = source.wanted.organization_id
    rows = await audit_rows(
        source.services, found, organization_id=organization_id, scope=source.scope, changes=False, people=False
    )
    return [_flat(row) for row in rows]


def _flat(row: AuditRow) -> dict[str, Any]:
    """One value a column, in the order of COLUMNS."""
    origin = row.origin
    values = {
        "position": row.position,
        "at": row.at.isoformat(),
        "event_id": row.event_id,
        "actor_kind": row.actor.kind,
        "actor_id": row.actor.id,
        "actor_name": row.actor.name,
        "verb": row.verb,
        "action": row.action,
        "type": row.type,
        "outcome": row.outcome,
        "component": row.component,
        "target_aggregate": row.target.aggregate,
        "target_id": row.target.id,
        "target_label": row.target.label,
        "target_version": row.target.version,
        "organization_id": row.organization_id,
        "cause_event_id": row.cause_event_id,
        "correlation": row.correlation,
        "origin_kind": origin.kind if origin else None,
        "origin_id": origin.id if origin else None,
        "data": row.data,
    }
    return {column: values[column] for column in COLUMNS}


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return msgspec.json.Encoder().encode_lines(rows)


def _csv_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    return _csv_text([_cell(value) for value in row.values()] for row in rows)


def _csv_text(lines: Iterable[Sequence[str]]) -> bytes:
    """RFC 4180: commas, CRLF, quotes doubled."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(lines)
    return text.getvalue().encode()


def _cell(value: Any) -> str:
    """Also safe to open in a spreadsheet."""
    if value is None:
        return ""
    if isinstance(value, int):
        return str(value)
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return f"'{text}" if text.startswith(_FORMULA_SIGNS) else text
