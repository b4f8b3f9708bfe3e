"""Inference usage: one row a request, and sums that grow with it: by instance and key, and an organisation's by month.

The stream's message id dedupes for an hour only; here the request id is the primary key, and the totals count exactly
the rows that were new. Who sends a record twice changes nothing, however late.
"""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Literal

import msgspec
from psycopg import sql

from domain.ids import ApiKeyId, DeploymentId, InstanceId, OfferingId, OrganizationId, ShareId
from domain.usage import Outcome, UsageRecord, cost_eur_micros
from projections.projection import Connection, Projection, UsageEntry
from projections.query import MAX_LIST_ROWS, find_all, find_one, page_rows
from projections.table import Table

FAILED: frozenset[Outcome] = frozenset({"upstream_failed", "refused_by_engine", "gateway_died"})
"""A client who left got what it asked for until then, so that is no failure; one whose gateway died did not."""
MAX_SPENDERS = 1_000_000
"""Keys, and organisations, whose spending is told at once: ten times the largest platform that is planned for."""

_TABLES = """
CREATE TABLE usage_records (
    request_id text PRIMARY KEY,
    position bigint NOT NULL,
    organization_id text NOT NULL,
    api_key_id text NOT NULL,
    deployment_id text NOT NULL,
    instance_id text NOT NULL,
    model_code text NOT NULL,
    endpoint text NOT NULL,
    at timestamptz NOT NULL,
    streamed boolean NOT NULL,
    outcome text NOT NULL,
    failed boolean NOT NULL,
    status_code bigint NOT NULL,
    finish_reason text,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    counted_by text NOT NULL,
    ttft_ms double precision,
    duration_ms double precision NOT NULL,
    queue_ms double precision NOT NULL,
    inter_token_ms double precision,
    attempts bigint NOT NULL,
    input_audio_seconds double precision NOT NULL,
    output_images bigint NOT NULL,
    provider_organization_id text NOT NULL,
    offering_id text NOT NULL,
    share_id text NOT NULL,
    input_eur_micros_per_million bigint NOT NULL,
    output_eur_micros_per_million bigint NOT NULL,
    cost_eur_micros bigint NOT NULL
);
CREATE INDEX usage_records_by_organization ON usage_records (organization_id, at);
CREATE TABLE usage_totals (
    organization_id text NOT NULL,
    instance_id text NOT NULL,
    api_key_id text NOT NULL,
    deployment_id text NOT NULL,
    model_code text NOT NULL,
    requests bigint NOT NULL,
    failed_requests bigint NOT NULL,
    prompt_tokens bigint NOT NULL,
    completion_tokens bigint NOT NULL,
    cached_tokens bigint NOT NULL,
    spent_eur_micros bigint NOT NULL,
    first_request_at timestamptz NOT NULL,
    last_request_at timestamptz NOT NULL,
    PRIMARY KEY (organization_id, instance_id, api_key_id)
);
CREATE INDEX usage_totals_by_key ON usage_totals (api_key_id);
CREATE TABLE usage_months (
    organization_id text NOT NULL,
    month date NOT NULL,
    spent_eur_micros bigint NOT NULL,
    PRIMARY KEY (organization_id, month)
);
CREATE INDEX usage_months_by_month ON usage_months (month)
"""


class UsageTotals(msgspec.Struct, frozen=True, kw_only=True):
    """Sums over some requests.

    Attributes:
        of: what they have in common: a model code, or the id of an instance, a deployment or a key.
        spent_eur_micros: the exact sum of what each request cost, in EUR millionths (domain.usage.cost_eur_micros).
        first_request_at, last_request_at: None when there was no request.
    """

    of: str
    total_requests: int = 0
    failed_requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    spent_eur_micros: int = 0
    first_request_at: datetime | None = None
    last_request_at: datetime | None = None

    @property
    def successful_requests(self) -> int:
        return self.total_requests - self.failed_requests

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class RequestView(msgspec.Struct, frozen=True, kw_only=True):
    """One request; a row of the table as well."""

    request_id: str
    position: int
    organization_id: OrganizationId
    api_key_id: ApiKeyId
    deployment_id: DeploymentId
    instance_id: InstanceId
    model_code: str
    endpoint: str
    at: datetime
    streamed: bool
    outcome: Outcome
    failed: bool
    status_code: int
    finish_reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    counted_by: str
    ttft_ms: float | None
    duration_ms: float
    queue_ms: float
    inter_token_ms: float | None
    attempts: int
    input_audio_seconds: float
    output_images: int
    provider_organization_id: OrganizationId
    offering_id: OfferingId
    share_id: ShareId
    input_eur_micros_per_million: int
    output_eur_micros_per_million: int
    cost_eur_micros: int


class Spend(msgspec.Struct, frozen=True):
    """EUR millionths by id: keys since they were made, organisations within one month; without who spent nothing."""

    keys: dict[str, int]
    organizations: dict[str, int]


class _LastUse(msgspec.Struct, frozen=True):
    api_key_id: str
    at: datetime


class _Spent(msgspec.Struct, frozen=True):
    of: str
    spent: int


_records = Table("usage_records", RequestView, key=("request_id",))
_COPIED = tuple(f for f in RequestView.__struct_fields__ if f in UsageRecord.__struct_fields__)

Grouping = Literal["model_code", "api_key_id", "instance_id", "deployment_id"]

_SUMS = """
    sum(requests)::bigint AS total_requests, sum(failed_requests)::bigint AS failed_requests,
    sum(prompt_tokens)::bigint AS prompt_tokens, sum(completion_tokens)::bigint AS completion_tokens,
    sum(cached_tokens)::bigint AS cached_tokens, sum(spent_eur_micros)::bigint AS spent_eur_micros,
    min(first_request_at) AS first_request_at, max(last_request_at) AS last_request_at
"""


async def list_usage(connection: Connection, organization_id: str, *, by: Grouping) -> list[UsageTotals]:
    """The organisation's totals, one for each model, key, instance or deployment that was used."""
    query = sql.SQL(
        "SELECT {by} AS of, {sums} FROM usage_totals WHERE organization_id = %s GROUP BY {by} ORDER BY {by} LIMIT %s"
    ).format(by=sql.Identifier(by), sums=sql.SQL(_SUMS))
    return await find_all(connection, UsageTotals, query, (organization_id, MAX_LIST_ROWS))


async def find_instance_usage(connection: Connection, organization_id: str, instance_id: str) -> UsageTotals:
    """Zeros for an instance that was not used, and for a neighbour's."""
    query = sql.SQL(
        "SELECT instance_id AS of, {sums} FROM usage_totals WHERE organization_id = %s AND instance_id = %s GROUP BY 1"
    ).format(sums=sql.SQL(_SUMS))
    found = await find_one(connection, UsageTotals, query, (organization_id, instance_id))
    return found or UsageTotals(of=instance_id)


async def list_requests(connection: Connection, organization_id: str, *, limit: int = 100) -> list[RequestView]:
    """The organisation's newest requests."""
    query = "SELECT * FROM usage_records WHERE organization_id = %s ORDER BY at DESC, request_id DESC LIMIT %s"
    return await find_all(connection, RequestView, query, (organization_id, page_rows(limit)))


async def find_last_uses(connection: Connection, api_key_ids: Sequence[str]) -> dict[str, datetime]:
    """When each of these keys was last used; one that never was is missing from the answer."""
    query = """
        SELECT api_key_id, max(last_request_at) AS at FROM usage_totals WHERE api_key_id = ANY(%s) GROUP BY api_key_id
    """
    return {row.api_key_id: row.at for row in await find_all(connection, _LastUse, query, (list(api_key_ids),))}


async def find_spend(connection: Connection, *, month: date) -> Spend:
    """What limits of spending are held against; `month` is its first day, UTC."""
    by_key = """
        SELECT api_key_id AS of, sum(spent_eur_micros)::bigint AS spent FROM usage_totals
        WHERE spent_eur_micros > 0 GROUP BY api_key_id LIMIT %s
    """
    by_organization = """
        SELECT organization_id AS of, spent_eur_micros AS spent FROM usage_months
        WHERE month = %s AND spent_eur_micros > 0 LIMIT %s
    """
    keys = await find_all(connection, _Spent, by_key, (MAX_SPENDERS,))
    organizations = await find_all(connection, _Spent, by_organization, (month, MAX_SPENDERS))
    return Spend({row.of: row.spent for row in keys}, {row.of: row.spent for row in organizations})


async def list_kept(connection: Connection, *, after: int, limit: int) -> list[UsageEntry]:
    """The next records after a position, of every organisation; the stream's positions of repeated ones are missing."""
    query = "SELECT * FROM usage_records WHERE position > %s ORDER BY position LIMIT %s"
    rows = await find_all(connection, RequestView, query, (after, page_rows(limit)))
    return [UsageEntry(row.position, UsageRecord(**{f: getattr(row, f) for f in _COPIED})) for row in rows]


async def apply(entries: Sequence[UsageEntry], connection: Connection) -> None:
    rows = {entry.record.request_id: _row(entry) for entry in reversed(entries)}
    new = await _records.add_new(connection, rows.values())
    await connection.execute(_ADD_UP, (new,))
    await connection.execute(_ADD_UP_MONTHS, (new,))


def _row(entry: UsageEntry) -> RequestView:
    copied = {field: getattr(entry.record, field) for field in _COPIED}
    return RequestView(
        position=entry.position,
        failed=entry.record.outcome in FAILED,
        cost_eur_micros=cost_eur_micros(entry.record),
        **copied,
    )


_ADD_UP = """
    INSERT INTO usage_totals
    SELECT organization_id, instance_id, api_key_id, min(deployment_id), min(model_code),
        count(*), count(*) FILTER (WHERE failed), sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens),
        sum(cost_eur_micros), min(at), max(at)
    FROM usage_records WHERE request_id = ANY(%s) GROUP BY organization_id, instance_id, api_key_id
    ON CONFLICT (organization_id, instance_id, api_key_id) DO UPDATE SET
        requests = usage_totals.requests + excluded.requests,
        failed_requests = usage_totals.failed_requests + excluded.failed_requests,
        prompt_tokens = usage_totals.prompt_tokens + excluded.prompt_tokens,
        completion_tokens = usage_totals.completion_tokens + excluded.completion_tokens,
        cached_tokens = usage_totals.cached_tokens + excluded.cached_tokens,
        spent_eur_micros = usage_totals.spent_eur_micros + excluded.spent_eur_micros,
        first_request_at = least(usage_totals.first_request_at, excluded.first_request_at),
        last_request_at = greatest(usage_totals.last_request_at, excluded.last_request_at)
"""

_ADD_UP_MONTHS = """
    INSERT INTO usage_months
    SELECT organization_id, date_trunc('month', at AT TIME ZONE 'UTC')::date, sum(cost_eur_micros)
    FROM usage_records WHERE request_id = ANY(%s) AND cost_eur_micros > 0 GROUP BY 1, 2
    ON CONFLICT (organization_id, month) DO UPDATE SET
        spent_eur_micros = usage_months.spent_eur_micros + excluded.spent_eur_micros
"""

USAGE = Projection("usage", 3, _TABLES, apply, stream="USAGE")
