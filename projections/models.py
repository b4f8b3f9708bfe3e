"""The model catalogue: what can be deployed, and what it needs."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

import msgspec
from msgspec.structs import replace

from domain.ids import ModelId
from domain.model import ModelDelisted, ModelEvent, ModelListed
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all, find_one
from projections.table import Table, known

_TABLES = """
CREATE TABLE models (
    id text PRIMARY KEY,
    code text NOT NULL,
    name text NOT NULL,
    required_vram_gb bigint NOT NULL,
    context_length bigint NOT NULL,
    data_volume_gb bigint NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL
)
"""


class ModelView(msgspec.Struct, frozen=True, kw_only=True):
    """One catalogue model; sizes in GB, context in tokens. A delisted one stays, inactive."""

    id: ModelId
    code: str
    name: str
    required_vram_gb: int
    context_length: int
    data_volume_gb: int
    is_active: bool
    created_at: datetime
    updated_at: datetime


_models = Table("models", ModelView, key=("id",))


async def list_models(connection: Connection, *, active_only: bool = True) -> list[ModelView]:
    """By code, at most MAX_LIST_ROWS."""
    return await find_all(
        connection,
        ModelView,
        "SELECT * FROM models WHERE is_active OR NOT %s ORDER BY code LIMIT %s",
        (active_only, MAX_LIST_ROWS),
    )


async def find_model(connection: Connection, model_id: str) -> ModelView | None:
    return await find_one(connection, ModelView, "SELECT * FROM models WHERE id = %s", (model_id,))


async def find_model_by_code(connection: Connection, code: str) -> ModelView | None:
    """The active model with this code."""
    query = "SELECT * FROM models WHERE code = %s AND is_active ORDER BY id LIMIT 1"
    return await find_one(connection, ModelView, query, (code,))


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    await _models.fold(entries, connection, _fold)


def _fold(row: ModelView | None, entry: Entry) -> ModelView:
    event: ModelEvent = entry.event
    at = entry.envelope.at
    match event:
        case ModelListed():
            return ModelView(
                id=ModelId(entry.envelope.id),
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


MODELS = Projection("models", 1, _TABLES, apply, aggregates=frozenset({"model"}))
