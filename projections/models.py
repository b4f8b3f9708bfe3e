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
from domain.model_shape import ModelShape
from projections.fingerprint import fingerprint
from projections.projection import THEIR_ORGANIZATION, Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, Direction, find_all, find_one
from projections.table import Table, known

_TABLES = f"""
-- shapes are {fingerprint(ModelShape)}
CREATE TABLE models (
    id text PRIMARY KEY,
    organization_id text NOT NULL,
    code text NOT NULL,
    name text NOT NULL,
    required_vram_gb bigint NOT NULL,
    context_length bigint NOT NULL,
    data_volume_gb bigint NOT NULL,
    shape bytea NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
);
CREATE INDEX models_by_organization ON models (organization_id)
"""


Column = Literal["code", "name", "required_vram_gb", "context_length", "data_volume_gb", "created_at", "updated_at"]


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """One catalogue model; sizes in GB, context in tokens. A delisted one stays, inactive.

    `organization_id` is PLATFORM's for a model of the platform; `listing` is what the catalogue says of it.
    """

    id: ModelId
    organization_id: OrganizationId
    code: str
    name: str
    required_vram_gb: int
    context_length: int
    data_volume_gb: int
    shape: ModelShape | None
    is_active: bool
    created_at: datetime
    updated_at: datetime

    @property
    def listing(self) -> ModelListed:
        return ModelListed(
            code=self.code,
            name=self.name,
            required_vram_gb=self.required_vram_gb,
            context_length=self.context_length,
            data_volume_gb=self.data_volume_gb,
            shape=self.shape,
        )


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    """As ModelView; the shape as JSON."""

    id: ModelId
    organization_id: OrganizationId
    code: str
    name: str
    required_vram_gb: int
    context_length: int
    data_volume_gb: int
    shape: bytes
    is_active: bool
    created_at: datetime
    updated_at: datetime


_models = Table("models", _Row, key=("id",))
_shapes = msgspec.json.Decoder(ModelShape | None)


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
    return [_view(row) for row in await find_all(connection, _Row, query, asked)]


async def find_model(connection: Connection, organization_id: str, model_id: str) -> ModelView | None:
    """None for a neighbour's own model, as for one that does not exist."""
    query = "SELECT * FROM models WHERE organization_id IN (%(organization)s, %(platform)s) AND id = %(id)s"
    row = await find_one(connection, _Row, query, {**_seen_by(organization_id), "id": model_id})
    return _view(row) if row else None


async def find_model_by_code(connection: Connection, organization_id: str, code: str) -> ModelView | None:
    """The active model that the organisation means by this code: its own before the platform's."""
    query = """
        SELECT * FROM models
        WHERE organization_id IN (%(organization)s, %(platform)s) AND code = %(code)s AND is_active
        ORDER BY organization_id = %(platform)s, id LIMIT 1
    """
    row = await find_one(connection, _Row, query, {**_seen_by(organization_id), "code": code})
    return _view(row) if row else None


def _view(row: _Row) -> ModelView:
    fields = {name: getattr(row, name) for name in _Row.__struct_fields__}
    return ModelView(**{**fields, "shape": _shapes.decode(row.shape)})


def _seen_by(organization_id: str) -> dict[str, Any]:
    """`organization_id` "": of nobody, who sees what is the platform's."""
    return {"organization": organization_id, "platform": PLATFORM}


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _models.fold(entries, connection, _fold)


def _fold(row: _Row | None, entry: Entry) -> _Row:
    event: ModelEvent = entry.event
    at = entry.envelope.at
    match event:
        case ModelListed():
            return _Row(
                id=ModelId(entry.envelope.id),
                organization_id=entry.envelope.organization,
                code=event.code,
                name=event.name,
                required_vram_gb=event.required_vram_gb,
                context_length=event.context_length,
                data_volume_gb=event.data_volume_gb,
                shape=msgspec.json.encode(event.shape),
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
    3,
    _TABLES,
    apply,
    aggregates=frozenset({"model"}),
    visible={"models": f"organization_id IN ('{PLATFORM}', {THEIR_ORGANIZATION})"},
)
