"""Offerings, as their own organisation manages them: published models under the public name `org_slug/code`.

    POST publish ──> PUT revise ──> PUT activation (each flag by itself) ──> DELETE withdraw

What others see of them stands in access.py, what they were given in shares.py.
"""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from msgspec.structs import replace
from pydantic import Field

from domain.activation import Flag
from domain.ids import ModelId, OfferingId
from domain.offering import (
    OFFERING,
    AccessPolicy,
    ActivateOffering,
    DeactivateOffering,
    OfferingCommand,
    PublishOffering,
    ReviseOffering,
    Terms,
    Visibility,
    WithdrawOffering,
    offering_id_of,
)
from domain.permissions import granted_flags
from projections.models import find_model, find_model_by_code
from projections.offerings import OfferingView, find_offering, list_offerings
from projections.organizations import find_profile
from web.activation import ActivationShown, FlagChange, activation_shown, require_flag
from web.auth import Member, Position, Served, member
from web.errors import not_found
from web.intent import Intended, Intent
from web.offered import FlagSetting, Price, flag_settings, identifier
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404

router = APIRouter(prefix="/offerings", tags=["offerings"])

Viewer = Annotated[Member, Depends(member("models.view"))]
Keeper = Annotated[Member, Depends(member("models.manage"))]
Activator = Annotated[Member, Depends(member("activation.change"))]


class NewOffering(Body):
    """Name the model by `model` (its code) or `model_id` (uuid)."""

    model: str = ""
    model_id: str = ""
    code: str = Field(description="Lower-case letters, digits and single hyphens, at most 64; taken once for all.")
    name: str = Field(default="", description="The code, if not said.")
    description: str = Field(default="", description="At most 2000 characters.")
    visibility: Visibility = "private"
    access_policy: AccessPolicy = "free"
    price: Price = Price()
    trial_days: int = Field(default=0, description="For the access policy `trial` alone, 1 to 365.")
    activate: list[Flag] | None = Field(
        default=None, description="Flags that it begins with; every one that the caller may set, if not said."
    )


class OfferingChange(Body):
    """What is left out stays as it is."""

    name: str | None = None
    description: str | None = None
    visibility: Visibility | None = None
    access_policy: AccessPolicy | None = None
    price: Price | None = None
    trial_days: int | None = None


class Offering(Reply):
    """`identifier` is what callers name; `is_live` false: withdrawn. `flags`: who set each, and when."""

    id: str
    identifier: str
    organization_id: str
    code: str
    model_id: str
    model_code: str
    name: str
    description: str
    visibility: Visibility
    access_policy: AccessPolicy
    price: Price
    trial_days: int
    is_live: bool
    activation: ActivationShown
    flags: list[FlagSetting]
    created_at: datetime
    updated_at: datetime


@router.get("")
async def offerings(viewer: Viewer, services: Served, position: Position, withdrawn: bool = False) -> list[Offering]:
    """The organisation's own, oldest first; `withdrawn=true` shows withdrawn ones too."""
    async with services.read("offerings", "organizations", position=position) as connection:
        found = await list_offerings(connection, viewer.organization_id, withdrawn=withdrawn)
        own = await find_profile(connection, viewer.organization_id)
    return [_shown(one, own.slug if own else "") for one in found]


@router.get("/{offering_id}")
async def offering(offering_id: PathId, viewer: Viewer, services: Served, position: Position) -> Offering:
    return await _find(services, viewer, offering_id, position)


@router.post("", status_code=201)
async def publish_offering(
    body: NewOffering, keeper: Keeper, services: Served, intent: Intended, position: Position
) -> Offering:
    """Offers a model of the catalogue, the platform's or an own one."""
    model_id, model_code = await _model(services, keeper, body, position)
    command = PublishOffering(
        model_id=model_id,
        model_code=model_code,
        code=body.code,
        terms=Terms(
            name=body.name or body.code,
            description=body.description,
            visibility=body.visibility,
            access_policy=body.access_policy,
            price=body.price.spoken,
            trial_days=body.trial_days,
        ),
        activate=granted_flags(keeper.role, body.activate),
    )
    offering_id = offering_id_of(keeper.organization_id, body.code)
    await intent.send(OFFERING, keeper.organization_id, offering_id, command, actor=keeper.caller.actor)
    return await _find(services, keeper, offering_id, intent.position)


async def _model(services: Services, keeper: Member, body: NewOffering, position: int) -> tuple[ModelId, str]:
    """Id and code of the active model that was named, as the organisation knows it."""
    async with services.read("models", position=position) as connection:
        if body.model:
            found = await find_model_by_code(connection, keeper.organization_id, body.model)
        else:
            found = await find_model(connection, keeper.organization_id, body.model_id)
    if found is None or not found.is_active:
        raise not_found("model")
    return found.id, found.code


@router.put("/{offering_id}")
async def revise_offering(
    offering_id: PathId, body: OfferingChange, keeper: Keeper, services: Served, intent: Intended
) -> Offering:
    """Changes its terms, at once for every caller."""
    wanted = _id(offering_id)
    terms = (await services.load(OFFERING, keeper.organization_id, wanted)).state.terms
    if terms is None:
        raise not_found("offering")
    said = body.model_dump(exclude={"price"}, exclude_none=True)
    if body.price is not None:
        said["price"] = body.price.spoken
    if said.get("access_policy", "trial") != "trial":
        said = {"trial_days": 0, **said}  # they belonged to the policy that goes
    return await _change(services, keeper, wanted, ReviseOffering(terms=replace(terms, **said)), intent)


@router.delete("/{offering_id}", status_code=204)
async def withdraw_offering(offering_id: PathId, keeper: Keeper, intent: Intended) -> None:
    """Nobody reaches it any more; its code stays the organisation's."""
    wanted = _id(offering_id)
    await intent.send(OFFERING, keeper.organization_id, wanted, WithdrawOffering(), actor=keeper.caller.actor)


@router.put("/{offering_id}/activation")
async def change_offering_activation(
    offering_id: PathId, body: FlagChange, activator: Activator, services: Served, intent: Intended
) -> Offering:
    """Sets or clears one flag; it is offered to nobody unless both are set."""
    require_flag(activator, body.flag)
    command = ActivateOffering(flag=body.flag) if body.value else DeactivateOffering(flag=body.flag)
    return await _change(services, activator, _id(offering_id), command, intent)


async def _change(
    services: Services, who: Member, offering_id: OfferingId, command: OfferingCommand, intent: Intent
) -> Offering:
    """A neighbour's offering has no events in our subject, so the decision finds none."""
    await intent.send(OFFERING, who.organization_id, offering_id, command, actor=who.caller.actor)
    return await _find(services, who, offering_id, intent.position)


def _id(offering_id: str) -> OfferingId:
    return OfferingId(uuid_or_404("offering", offering_id))


async def _find(services: Services, viewer: Member, offering_id: str, position: int) -> Offering:
    wanted = _id(offering_id)
    async with services.read("offerings", "organizations", position=position) as connection:
        found = await find_offering(connection, viewer.organization_id, wanted)
        own = await find_profile(connection, viewer.organization_id)
    if found is None:
        raise not_found("offering")
    return _shown(found, own.slug if own else "")


def _shown(view: OfferingView, slug: str) -> Offering:
    state, terms = view.offering, view.offering.terms
    assert terms is not None  # noqa: S101 - a row begins with OfferingPublished
    return Offering(
        id=view.id,
        identifier=identifier(slug, state.code),
        organization_id=view.organization_id,
        code=state.code,
        model_id=state.model_id,
        model_code=state.model_code,
        name=terms.name,
        description=terms.description,
        visibility=terms.visibility,
        access_policy=terms.access_policy,
        price=Price.model_validate(terms.price),
        trial_days=terms.trial_days,
        is_live=state.live,
        activation=activation_shown(state.activation),
        flags=flag_settings(view.flags),
        created_at=view.created_at,
        updated_at=view.updated_at,
    )
