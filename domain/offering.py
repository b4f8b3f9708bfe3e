"""An offering: a model as an organisation offers it to callers, under the public name `<organisation's slug>/<code>`.

    published ──revised──> published ──withdrawn──> (nobody reaches it any more)

Its id derives from organisation and code, so a code is taken once without a reservation. Who else may call it is said
by visibility, access policy and shares (entitlement.py); the surprising rule: its own organisation always may.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.activation import Activation, Flag, activation_with, with_flag
from domain.decider import Decider
from domain.ids import ModelId, OfferingId, OrganizationId, derived_id

Visibility = Literal["public", "unlisted", "private"]
AccessPolicy = Literal["free", "subscription_required", "request_required", "pay_per_token", "trial"]


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """EUR millionths per million tokens, so that no price is rounded."""

    input_eur_micros_per_million: int = 0
    output_eur_micros_per_million: int = 0


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What an offering says of itself. `trial_days` counts for the policy `trial` alone."""

    name: str
    description: str = ""
    visibility: Visibility = "private"
    access_policy: AccessPolicy = "free"
    price: Price = Price()
    trial_days: int = 0


class PublishOffering(msgspec.Struct, frozen=True, kw_only=True):
    model_id: ModelId
    model_code: str
    code: str
    terms: Terms
    activate: tuple[Flag, ...]


class ReviseOffering(msgspec.Struct, frozen=True, kw_only=True):
    terms: Terms


class WithdrawOffering(msgspec.Struct, frozen=True):
    pass


class ActivateOffering(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class DeactivateOffering(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


OfferingCommand = PublishOffering | ReviseOffering | WithdrawOffering | ActivateOffering | DeactivateOffering


class OfferingPublished(msgspec.Struct, frozen=True, kw_only=True):
    """Also after a withdrawal: the code is its organisation's for ever."""

    model_id: ModelId
    model_code: str
    code: str
    terms: Terms
    activated: tuple[Flag, ...]


class OfferingRevised(msgspec.Struct, frozen=True, kw_only=True):
    terms: Terms


class OfferingWithdrawn(msgspec.Struct, frozen=True):
    pass


class OfferingActivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class OfferingDeactivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


OfferingEvent = OfferingPublished | OfferingRevised | OfferingWithdrawn | OfferingActivated | OfferingDeactivated


class Offering(msgspec.Struct, frozen=True, kw_only=True):
    """`terms` None: never published. `live` false: withdrawn."""

    model_id: ModelId = ModelId("")
    model_code: str = ""
    code: str = ""
    terms: Terms | None = None
    live: bool = False
    activation: Activation = Activation()


def offering_id_of(organization_id: OrganizationId, code: str) -> OfferingId:
    return OfferingId(derived_id(organization_id, f"offering/{code}"))


def evolve(state: Offering, event: OfferingEvent, _at: datetime) -> Offering:
    match event:
        case OfferingPublished():
            return Offering(
                model_id=event.model_id,
                model_code=event.model_code,
                code=event.code,
                terms=event.terms,
                live=True,
                activation=activation_with(event.activated),
            )
        case OfferingRevised():
            return replace(state, terms=event.terms)
        case OfferingWithdrawn():
            return replace(state, live=False)
        case OfferingActivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=True))
        case OfferingDeactivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=False))
        case _:
            assert_never(event)


def decide(state: Offering, command: OfferingCommand, _at: datetime) -> Sequence[OfferingEvent]:
    raise NotImplementedError


OFFERING: Decider[OfferingCommand, OfferingEvent, Offering] = Decider(
    aggregate="offering",
    events=(OfferingPublished, OfferingRevised, OfferingWithdrawn, OfferingActivated, OfferingDeactivated),
    initial=Offering(),
    state_type=Offering,
    evolve=evolve,
    decide=decide,
)
