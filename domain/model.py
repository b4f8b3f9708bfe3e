"""A catalogue model: what can be deployed, and what it needs. Clients name it by its code."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

import msgspec

from domain.decider import Decider


class ListModel(msgspec.Struct, frozen=True, kw_only=True):
    """Put a model into the catalogue, or correct what it says there. Units: GB and tokens."""

    code: str
    name: str
    required_vram_gb: int
    context_length: int
    data_volume_gb: int


class DelistModel(msgspec.Struct, frozen=True):
    pass


ModelCommand = ListModel | DelistModel


class ModelListed(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    name: str
    required_vram_gb: int
    context_length: int
    data_volume_gb: int


class ModelDelisted(msgspec.Struct, frozen=True):
    pass


ModelEvent = ModelListed | ModelDelisted


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`listing` is None until the model is listed, and again after it was delisted."""

    listing: ModelListed | None = None


def evolve(_state: Model, event: ModelEvent, _at: datetime) -> Model:
    match event:
        case ModelListed():
            return Model(listing=event)
        case ModelDelisted():
            return Model(listing=None)
        case _:
            assert_never(event)


def decide(state: Model, command: ModelCommand, _at: datetime) -> Sequence[ModelEvent]:
    match command:
        case ListModel():
            listing = ModelListed(**{f: getattr(command, f) for f in ModelListed.__struct_fields__})
            return [] if state.listing == listing else [listing]
        case DelistModel():
            return [] if state.listing is None else [ModelDelisted()]
        case _:
            assert_never(command)


MODEL: Decider[ModelCommand, ModelEvent, Model] = Decider(
    aggregate="model",
    events=(ModelListed, ModelDelisted),
    initial=Model(),
    state_type=Model,
    evolve=evolve,
    decide=decide,
)
