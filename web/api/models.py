"""The catalogue of models: what can be deployed. The platform's models are everyone's, an organisation's own its alone.

    GET /models, /models/{id}      POST, PUT, DELETE      GET /models/{id}/recommended-data-volume
    GET /instance_types/{id}/models: those that fit there, as a plan would find

The surprising rule: `model_id` in a body is the model's code (SPEC 1.7: a repository or a local path), `id` is its id.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from msgspec.structs import asdict
from pydantic import Field

from domain.catalogue import PROVIDERS, InstanceType, Provider, model_id_of
from domain.disk import default_disk_gb, recommended_disk_gb
from domain.ids import PLATFORM, ModelId, OrganizationId
from domain.market import Market
from domain.model import MODEL, DelistModel, ListModel, own_model_id
from domain.model_shape import ModelShape, shape_of_config
from domain.planning import fit, shape_of
from projections.deployments import count_standing_of
from projections.models import Column, ModelView, find_model, list_models
from projections.offerings import count_offerings_of
from projections.projection import EVERYTHING
from projections.settings import find_settings
from web.api.catalogue import instance_type_id, provider_id
from web.auth import Member, Position, Served, SignedIn, SignedInOrKey, member
from web.errors import ApiError, not_found
from web.intent import Intended, Intent
from web.market import market_of
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404

router = APIRouter(tags=["models"])

Keeper = Annotated[Member, Depends(member("models.manage"))]

DISK_SETTING = "WORKER_DATA_VOLUME_GB_DEFAULT"
_NO_COLUMNS = {"model_id", "config"}
CONFIG_HELP = "Its repository's config.json; tells exactly what it needs of a GPU, for plans."


class NewModel(Body):
    """Sizes in GB, context in tokens. `platform`: for everyone, which only platform administrators may say."""

    model_id: str = Field(description="The code: a repository of weights (owner/name) or a local path.")
    name: str = Field(default="", description="The code's last part, if not said.")
    required_vram_gb: int
    context_length: int
    data_volume_gb: int = Field(default=0, description="0: recommended by size.")
    is_active: bool = True
    platform: bool = False
    config: dict[str, Any] | None = Field(default=None, description=CONFIG_HELP)


class ModelChange(Body):
    """What is left out stays as it is. The code never changes."""

    model_id: str | None = None
    name: str | None = None
    required_vram_gb: int | None = None
    context_length: int | None = None
    data_volume_gb: int | None = None
    is_active: bool | None = None
    config: dict[str, Any] | None = Field(default=None, description=CONFIG_HELP)


class Shape(Reply):
    """What a model's config says that it takes of GPUs; `kv_bytes_per_token` of one sequence, all layers together."""

    parameters: int
    weight_bytes: int
    layers: int
    attention_heads: int
    kv_heads: int
    head_dim: int
    max_context_tokens: int
    kv_bytes_per_token: int


class Model(Reply):
    """Sizes in GB, context in tokens; `code` is what deployments and clients of the gateway name.

    `shape` is null where nobody gave the model's config: then plans go by `required_vram_gb`.
    """

    id: str
    code: str
    name: str
    scope: Literal["platform", "organization"]
    required_vram_gb: int
    context_length: int
    data_volume_gb: int
    shape: Shape | None
    is_active: bool
    created_at: datetime
    updated_at: datetime


class RecommendedVolume(Reply):
    """GB. `default_gb`: where the model says nothing; `stored_data_volume_gb`: what it says, null for nothing."""

    model_id: str
    model_name: str
    recommended_data_volume_gb: int
    default_gb: int
    stored_data_volume_gb: int | None


@router.get("/models")
async def models(
    caller: SignedInOrKey,
    services: Served,
    position: Position,
    active: bool = True,
    order_by: Column = "code",
    order_dir: Literal["asc", "desc"] = "asc",
) -> list[Model]:
    """The platform's and the own ones; `active=false` shows delisted ones too."""
    async with services.read("models", position=position) as connection:
        found = await list_models(
            connection, caller.organization_id or "", active_only=active, order_by=order_by, order_dir=order_dir
        )
    return [_shown(one) for one in found]


@router.get("/models/{model_id}")
async def model(model_id: PathId, caller: SignedInOrKey, services: Served, position: Position) -> Model:
    return _shown(await _find(services, caller.organization_id, model_id, position))


@router.post("/models", status_code=201)
async def create_model(body: NewModel, keeper: Keeper, services: Served, intent: Intended) -> Model:
    """Lists a model of the organisation's own, or, for platform administrators, one for everyone."""
    owner = PLATFORM if body.platform else keeper.organization_id
    _require_keeper(keeper, owner)
    command = ListModel(
        code=body.model_id,
        name=body.name or body.model_id.rsplit("/", maxsplit=1)[-1],
        required_vram_gb=body.required_vram_gb,
        context_length=body.context_length,
        data_volume_gb=body.data_volume_gb,
        shape=_shape(body.config),
        is_active=body.is_active,
        is_new=True,
    )
    model_id = model_id_of(body.model_id) if body.platform else own_model_id(owner, body.model_id)
    return await _keep(services, keeper, owner, model_id, command, intent)


@router.put("/models/{model_id}")
async def change_model(
    model_id: PathId, body: ModelChange, keeper: Keeper, services: Served, intent: Intended, position: Position
) -> Model:
    """Corrects what the catalogue says; `is_active` false keeps it from new deployments."""
    before = await _find(services, keeper.organization_id, model_id, position)
    _require_keeper(keeper, before.organization_id)
    if body.model_id not in {None, before.code}:
        raise ApiError(409, "model_code_is_fixed", "A model's code never changes; list another model.")
    said = body.model_dump(exclude=_NO_COLUMNS, exclude_none=True)
    names = ModelChange.model_fields.keys() - _NO_COLUMNS
    fields = {name: said.get(name, getattr(before, name)) for name in names}
    shape = _shape(body.config)
    if shape is None:
        stored = (await services.load(MODEL, before.organization_id, before.id)).state.said
        shape = stored.shape if stored else None
    command = ListModel(code=before.code, shape=shape, **fields)
    return await _keep(services, keeper, before.organization_id, before.id, command, intent)


@router.delete("/models/{model_id}", status_code=204)
async def delete_model(
    model_id: PathId, keeper: Keeper, services: Served, intent: Intended, position: Position
) -> None:
    """Delists it; refused while a standing deployment or a live offering uses it."""
    found = await _find(services, keeper.organization_id, model_id, position)
    _require_keeper(keeper, found.organization_id)
    everyones = found.organization_id == PLATFORM
    # The platform's models are used by every organisation; only their number is asked for.
    scope = EVERYTHING if everyones else None
    async with services.read("deployments", "offerings", position=position, scope=scope) as connection:
        deployments = await count_standing_of(connection, found.code, None if everyones else found.organization_id)
        offerings = await count_offerings_of(connection, found.id)
    command = DelistModel(deployments=deployments, offerings=offerings)
    await intent.send(MODEL, found.organization_id, found.id, command, actor=keeper.caller.actor)


@router.get("/models/{model_id}/recommended-data-volume")
async def recommended_data_volume(
    model_id: PathId, caller: SignedIn, services: Served, position: Position, provider_id: str = ""
) -> RecommendedVolume:
    """How large a disk to rent for it (SPEC 4.3); `provider_id` brings in the organisation's setting for it."""
    provider_gb = None
    if provider_id:
        provider = _provider(provider_id)
        async with services.read("settings", position=position) as connection:
            own = await find_settings(connection, caller.organization_id or "", provider.code)
        provider_gb = int(own[DISK_SETTING]) if DISK_SETTING in own else None
    found = await _find(services, caller.organization_id, model_id, position)
    return RecommendedVolume(
        model_id=found.id,
        model_name=found.name,
        recommended_data_volume_gb=recommended_disk_gb(
            found.code,
            stored_gb=found.data_volume_gb,
            provider_gb=provider_gb,
            forced_gb=services.settings.data_volume_gb,
        ),
        default_gb=default_disk_gb(found.code, provider_gb=provider_gb),
        stored_data_volume_gb=found.data_volume_gb or None,
    )


@router.get("/instance_types/{type_id}/models")
async def fitting_models(type_id: PathId, caller: SignedIn, services: Served, position: Position) -> list[Model]:
    """Active models that one machine of the type serves with all of their context, on all of its GPUs together."""
    organization_id = caller.organization_id or ""
    provider, machine = _instance_type(type_id, await market_of(services, organization_id, position))
    async with services.read("models", position=position) as connection:
        found = await list_models(connection, organization_id)
    return [_shown(one) for one in found if fit(one.listing, provider, machine).verdict == "fits"]


def _shape(config: dict[str, Any] | None) -> ModelShape | None:
    """Raises ApiError: 400 model_config_not_understood."""
    if config is None:
        return None
    shape = shape_of_config(config)
    if shape is None:
        message = "Understood are configs of llama, mistral, mixtral, qwen2, gemma2 and phi3 models; leave it out."
        raise ApiError(400, "model_config_not_understood", message)
    return shape


def _provider(id_or_code: str) -> Provider:
    for provider in PROVIDERS:
        if id_or_code in {provider.code, provider_id(provider.code)}:
            return provider
    raise not_found("provider")


def _instance_type(type_id: str, market: Market) -> tuple[str, InstanceType]:
    """With its provider: one that is offered somewhere, or that the catalogue at least knows."""
    offered = [(one.provider, one.type) for one in market]
    for provider, known in (*offered, *((one.code, known) for one in PROVIDERS for known in one.instance_types)):
        if type_id == instance_type_id(provider, known.code):
            return provider, known
    raise not_found("instance_type")


async def _find(services: Services, organization_id: str | None, model_id: str, position: int) -> ModelView:
    wanted = uuid_or_404("model", model_id)
    async with services.read("models", position=position) as connection:
        found = await find_model(connection, organization_id or "", wanted)
    if found is None:
        raise not_found("model")
    return found


def _require_keeper(keeper: Member, owner: OrganizationId) -> None:
    """The platform's models are its administrators'; the organisation's own, whoever may manage models there."""
    if owner == PLATFORM and keeper.caller.platform_role != "admin":
        raise ApiError(403, "admin_required", "Only a platform administrator changes the platform's models.")


async def _keep(
    services: Services, keeper: Member, owner: OrganizationId, model_id: ModelId, command: ListModel, intent: Intent
) -> Model:
    await intent.send(MODEL, owner, model_id, command, actor=keeper.caller.actor)
    return _shown(await _find(services, keeper.organization_id, model_id, intent.position))


def _shown(view: ModelView) -> Model:
    fields = {name: getattr(view, name) for name in ModelView.__struct_fields__ if name != "organization_id"}
    scope = "platform" if view.organization_id == PLATFORM else "organization"
    shape = shape_of(view.listing)
    said = {**asdict(shape), "kv_bytes_per_token": shape.kv_bytes_per_token} if shape else None
    return Model.model_validate({**fields, "scope": scope, "shape": said})
