"""An offering: a model as an organisation offers it to callers, under the public name `<organisation's slug>/<code>`.

    published ──revised──> published ──withdrawn──> (nobody reaches it any more) ──published──> ...

Its id derives from organisation and code, so a code is taken once without a reservation. Who else may call it is said
by visibility, access policy and shares (entitlement.py); the surprising rule: its own organisation always may.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.activation import Activation, Flag, activation_with, with_flag
from domain.decider import Decider, Rejected
from domain.ids import ModelId, OfferingId, OrganizationId, derived_id
from domain.values import MAX_NAME_LENGTH, MAX_SLUG_LENGTH, slug_of

MAX_DESCRIPTION_LENGTH = 2000
MAX_PRICE_EUR_MICROS = 1_000_000_000_000
"""A million euro for a million tokens: beyond it, somebody took one unit for another."""
MAX_TRIAL_DAYS = 365

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
    match command:
        case PublishOffering():
            return _publish(state, command)
        case ReviseOffering():
            return _revise(_live(state), command)
        case WithdrawOffering():
            return [OfferingWithdrawn()] if _published(state).live else []
        case ActivateOffering():
            return [] if _live(state).activation.is_set(command.flag) else [OfferingActivated(flag=command.flag)]
        case DeactivateOffering():
            return [OfferingDeactivated(flag=command.flag)] if _live(state).activation.is_set(command.flag) else []
        case _:
            assert_never(command)


def _publish(state: Offering, command: PublishOffering) -> Sequence[OfferingEvent]:
    if state.live:
        if (state.model_id, state.terms) == (command.model_id, command.terms):
            return []
        raise Rejected("offering_already_exists", f"Your organisation already offers {command.code}; revise that one.")
    if slug_of(command.code, "") != command.code or not command.code:
        raise Rejected(
            "invalid_code",
            f"A code has at most {MAX_SLUG_LENGTH} lower-case letters and digits, with single hyphens between them.",
        )
    refuse_terms(command.terms)
    return [
        OfferingPublished(
            model_id=command.model_id,
            model_code=command.model_code,
            code=command.code,
            terms=command.terms,
            activated=command.activate,
        )
    ]


def _revise(state: Offering, command: ReviseOffering) -> Sequence[OfferingEvent]:
    refuse_terms(command.terms)
    return [] if state.terms == command.terms else [OfferingRevised(terms=command.terms)]


def refuse_terms(terms: Terms) -> None:
    """Raises Rejected for terms that nobody could publish."""
    if not terms.name.strip():
        raise Rejected("name_required", "An offering needs a name.")
    if len(terms.name) > MAX_NAME_LENGTH:
        raise Rejected("name_too_long", f"A name has at most {MAX_NAME_LENGTH} characters.")
    if len(terms.description) > MAX_DESCRIPTION_LENGTH:
        raise Rejected("description_too_long", f"A description has at most {MAX_DESCRIPTION_LENGTH} characters.")
    refuse_price(terms.price)
    if terms.access_policy == "trial" and not 1 <= terms.trial_days <= MAX_TRIAL_DAYS:
        raise Rejected("invalid_trial_days", f"A trial lasts between 1 and {MAX_TRIAL_DAYS} days.")
    if terms.access_policy != "trial" and terms.trial_days != 0:
        raise Rejected("invalid_trial_days", "Trial days belong to the access policy trial alone.")


def refuse_price(price: Price) -> None:
    """Raises Rejected for a price below nothing or beyond reason."""
    for micros in (price.input_eur_micros_per_million, price.output_eur_micros_per_million):
        if not 0 <= micros <= MAX_PRICE_EUR_MICROS:
            raise Rejected("invalid_price", f"A price is between 0 and {MAX_PRICE_EUR_MICROS} EUR millionths.")


def _published(state: Offering) -> Offering:
    if state.terms is None:
        raise Rejected("offering_not_found", "There is no offering with this id.")
    return state


def _live(state: Offering) -> Offering:
    if not _published(state).live:
        raise Rejected("offering_withdrawn", "This offering was withdrawn; publish it again first.")
    return state


OFFERING: Decider[OfferingCommand, OfferingEvent, Offering] = Decider(
    aggregate="offering",
    events=(OfferingPublished, OfferingRevised, OfferingWithdrawn, OfferingActivated, OfferingDeactivated),
    initial=Offering(),
    state_type=Offering,
    evolve=evolve,
    decide=decide,
)
