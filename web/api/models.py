"""The catalogue of models: what can be deployed."""

from fastapi import APIRouter

from projections.models import find_model, list_models
from web.auth import Position, Served, SignedInOrKey
from web.errors import not_found
from web.shapes import PathId, Reply, uuid_or_404

router = APIRouter(prefix="/models", tags=["models"])


class Model(Reply):
    """Sizes in GB, context in tokens; `code` is what deployments and clients of the gateway name."""

    id: str
    code: str
    name: str
    required_vram_gb: int
    context_length: int
    data_volume_gb: int
    is_active: bool


@router.get("")
async def models(_caller: SignedInOrKey, services: Served, position: Position, active: bool = True) -> list[Model]:
    """By code; `active=false` shows delisted ones too."""
    async with services.read("models", position=position) as connection:
        found = await list_models(connection, active_only=active)
    return [Model.model_validate(one) for one in found]


@router.get("/{model_id}")
async def model(model_id: PathId, _caller: SignedInOrKey, services: Served, position: Position) -> Model:
    wanted = uuid_or_404("model", model_id)
    async with services.read("models", position=position) as connection:
        found = await find_model(connection, wanted)
    if found is None:
        raise not_found("model")
    return Model.model_validate(found)
