"""A catalogue model: what can be deployed, and what it needs. Clients name it by its code.

    (none) ──list──> listed ──list──> corrected ──delist──> delisted ──list──> listed

It belongs to the platform, then everyone may deploy it, or to one organisation, then nobody else knows of it; the
organisation in its subject says which. The surprising rule: a code never changes, for the id derives from it.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, assert_never

import msgspec

from domain.decider import Decider, Rejected
from domain.ids import ModelId, OrganizationId, derived_id
from domain.model_shape import ModelShape
from domain.values import MAX_NAME_LENGTH

MAX_CODE_LENGTH = 256
MAX_GB = 1_000_000
MAX_CONTEXT_LENGTH = 1_000_000_000
_CODE = re.compile(r"[A-Za-z0-9./][A-Za-z0-9._/+:-]*")


class ListModel(msgspec.Struct, frozen=True, kw_only=True):
    """Put a model into the catalogue, or correct what it says there. Units: GB and tokens.

    Attributes:
        code: what clients call it: a repository of weights, or a local path.
        shape: what decides whether it fits, from its config; None: `required_vram_gb` has to do as an estimate.
        is_new: refused where a listed model has the code already.
        is_active: False keeps it on record, but delisted.
    """

    code: str
    name: str
    required_vram_gb: int
    context_length: int
    data_volume_gb: int
    shape: ModelShape | None = None
    is_new: bool = False
    is_active: bool = True


class DelistModel(msgspec.Struct, frozen=True, kw_only=True):
    """`deployments` and `offerings`: how many live ones the caller found; any forbids it."""

    deployments: int = 0
    offerings: int = 0


ModelCommand = ListModel | DelistModel


class ModelListed(msgspec.Struct, frozen=True, kw_only=True):
    """`shape`: None where nobody gave the model's config."""

    SCHEMA: ClassVar[int] = 2

    code: str
    name: str
    required_vram_gb: int
    context_length: int
    data_volume_gb: int
    shape: ModelShape | None = None


class ModelDelisted(msgspec.Struct, frozen=True):
    pass


ModelEvent = ModelListed | ModelDelisted


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`said`: the newest description, None before the first; `is_listed` false: delisted since."""

    said: ModelListed | None = None
    is_listed: bool = False

    @property
    def listing(self) -> ModelListed | None:
        """What can be deployed of it now; None when it is not listed."""
        return self.said if self.is_listed else None


def own_model_id(organization_id: OrganizationId, code: str) -> ModelId:
    """Of an organisation's own model, so that it lists each code once; the platform's: catalogue.model_id_of."""
    return ModelId(derived_id(organization_id, f"model/{code}"))


def evolve(state: Model, event: ModelEvent, _at: datetime) -> Model:
    match event:
        case ModelListed():
            return Model(said=event, is_listed=True)
        case ModelDelisted():
            return Model(said=state.said, is_listed=False)
        case _:
            assert_never(event)


def decide(state: Model, command: ModelCommand, _at: datetime) -> Sequence[ModelEvent]:
    match command:
        case ListModel():
            return _list(state, command)
        case DelistModel():
            return _delist(state, command)
        case _:
            assert_never(command)


def _list(state: Model, command: ListModel) -> Sequence[ModelEvent]:
    listing = ModelListed(**{field: getattr(command, field) for field in ModelListed.__struct_fields__})
    if (state.said, state.is_listed) == (listing, command.is_active):
        return []
    if command.is_new and state.is_listed:
        raise Rejected("model_already_exists", f"The catalogue lists {command.code} already.")
    _refuse_description(listing)
    news: list[ModelEvent] = [] if state.listing == listing else [listing]
    return news if command.is_active else [*news, ModelDelisted()]


def require_model_code(code: str) -> None:
    """Raises Rejected: invalid_model_code."""
    if not (_CODE.fullmatch(code) and len(code) <= MAX_CODE_LENGTH):
        raise Rejected(
            "invalid_model_code",
            f"A model's code is a repository (owner/name) or a path, of at most {MAX_CODE_LENGTH} characters.",
        )


def _refuse_description(listing: ModelListed) -> None:
    require_model_code(listing.code)
    if not listing.name.strip():
        raise Rejected("name_required", "A model needs a name.")
    if len(listing.name) > MAX_NAME_LENGTH:
        raise Rejected("name_too_long", f"A name has at most {MAX_NAME_LENGTH} characters.")
    if not (0 <= listing.required_vram_gb <= MAX_GB and 0 <= listing.data_volume_gb <= MAX_GB):
        raise Rejected("invalid_size", f"Memory and disk are between 0 and {MAX_GB} GB.")
    if not 1 <= listing.context_length <= MAX_CONTEXT_LENGTH:
        raise Rejected("invalid_size", f"A context is between 1 and {MAX_CONTEXT_LENGTH} tokens.")


def _delist(state: Model, command: DelistModel) -> Sequence[ModelEvent]:
    if state.said is None:
        raise Rejected("model_not_found", "There is no model with this id.")
    if not state.is_listed:
        return []
    if command.deployments or command.offerings:
        used_by = f"{command.deployments} deployments and {command.offerings} offerings"
        raise Rejected("model_in_use", f"This model is in use by {used_by}; stop and withdraw them first.")
    return [ModelDelisted()]


MODEL: Decider[ModelCommand, ModelEvent, Model] = Decider(
    aggregate="model",
    events=(ModelListed, ModelDelisted),
    initial=Model(),
    state_type=Model,
    evolve=evolve,
    decide=decide,
)
