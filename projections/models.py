"""The model catalogue: what can be deployed, and what it needs.

The platform's models are for everyone, an organisation's own for itself alone. The surprising rule: a code may stand
for two models, then an organisation means its own.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, assert_never

import msgspec
from msgspec.structs import replace
from psycopg import sql

from domain.ids import PLATFORM, ModelId, OrganizationId
from domain.model import ModelDelisted, ModelEvent, ModelListed
from projections.projection import THEIR_ORGANIZATION, Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, Direction, find_all, find_one
from projections.table import Table, known

_TABLES = """
CREATE TABLE models (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    required_vram_gb bigint NOT NULL,
    context_length bigint NOT NULL,
    data_volume_gb bigint NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX models_by_organization ON models (organization_id)
"""


Column = Literal["code", "name", "required_vram_gb", "context_length", "data_volume_gb", "created_at", "updated_at"]


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """One catalogue model; sizes in GB, context in tokens. A delisted one stays, inactive.

    `organization_id` is PLATFORM's for a model of the platform.
    """

    id: ModelId
    organization_id: OrganizationId
    code: str
    name: str
    required_vram_gb: int
    context_length: int
    data_volume_gb: int
    is_active: bool
    created_at: datetime
    updated_at: datetime


_models = Table("models", ModelView, key=("id",))


async def list_models(
    connection: Connection,
    organization_id: str,
    *,
    active_only: bool = True,
    order_by: Column = "code",
    order_dir: Direction = "asc",
) -> list[ModelView]:
    """The platform's and the organisation's own, at most MAX_LIST_ROWS."""
    query = sql.SQL(
        """
        SELECT * FROM models WHERE organization_id IN (%(organization)s, %(platform)s) AND (is_active OR NOT %(active)s)
        ORDER BY {} {}, code, organization_id = %(platform)s, id LIMIT %(rows)s
        """
    ).format(sql.Identifier(order_by), sql.SQL(order_dir.upper()))
    asked = {**_seen_by(organization_id), "active": active_only, "rows": MAX_LIST_ROWS}
    return await find_all(connection, ModelView, query, asked)


async def find_model(connection: Connection, organization_id: str, model_id: str) -> ModelView | None:
    """None for a neighbour's own model, as for one that does not exist."""
    query = "SELECT * FROM models WHERE organization_id IN (%(organization)s, %(platform)s) AND id = %(id)s"
    return await find_one(connection, ModelView, query, {**_seen_by(organization_id), "id": model_id})


async def find_model_by_code(connection: Connection, organization_id: str, code: str) -> ModelView | None:
    """The active model that the organisation means by this code: its own before the platform's."""
    query = """
        SELECT * FROM models
        WHERE organization_id IN (%(organization)s, %(platform)s) AND code = %(code)s AND is_active
        ORDER BY organization_id = %(platform)s, id LIMIT 1
    """
    return await find_one(connection, ModelView, query, {**_seen_by(organization_id), "code": code})


def _seen_by(organization_id: str) -> dict[str, Any]:
    """`organization_id` "": of nobody, who sees what is the platform's."""
    return {"organization": organization_id, "platform": PLATFORM}


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _models.fold(entries, connection, _fold)


def _fold(row: ModelView | None, entry: Entry) -> ModelView:
    event: ModelEvent = entry.event
    at = entry.envelope.at
    match event:
        case ModelListed():
            return ModelView(
                id=ModelId(entry.envelope.id),
                organization_id=entry.envelope.organization,
                code=event.code,
                name=event.name,
                required_vram_gb=event.required_vram_gb,
                context_length=event.context_length,
                data_volume_gb=event.data_volume_gb,
                is_active=True,
                created_at=row.created_at if row else at,
                updated_at=at,
            )
        case ModelDelisted():
            return replace(known(row, entry), is_active=False, updated_at=at)
        case _:
            assert_never(event)


MODELS = Projection(
    "models",
    2,
    _TABLES,
    apply,
    aggregates=frozenset({"model"}),
    visible={"models": f"organization_id IN ('{PLATFORM}', {THEIR_ORGANIZATION})"},
)
