"""Shares: what a provider lets another organisation do with one of its offerings, as each of the two sees it.

    consumer asks (access.py) ──> provider: PUT (approve, with terms) or POST .../refuse
    provider: POST /shares ──> PUT terms, activation ──> POST .../pause, resume, revoke

Only the provider changes a share. The surprising rule: a share names nobody who acts for the other side; a consumer
sees which flags are missing, not who set them.
"""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from msgspec.structs import replace
from pydantic import Field

from domain.activation import Flag
from domain.ids import OfferingId, OrganizationId, ShareId
from domain.offering import OFFERING, offering_id_of
from domain.permissions import granted_flags
from domain.share import (
    SHARE,
    ActivateShare,
    ChangeShareTerms,
    DeactivateShare,
    PauseShare,
    RefuseAccess,
    ResumeShare,
    RevokeShare,
    ShareCommand,
    ShareOffering,
    ShareStatus,
    ShareTerms,
    share_id_of,
)
from projections.offerings import OfferingView, find_offerings
from projections.organizations import OrganizationProfile, find_profile_named, find_profiles
from projections.projection import EVERYTHING
from projections.shares import ShareView, find_given, find_taken, list_given, list_taken
from web.activation import ActivationShown, FlagChange, activation_shown, require_flag
from web.auth import Member, Position, Served, member
from web.errors import ApiError, not_found
from web.intent import Intended, Intent
from web.offered import FlagSetting, Moment, Price, flag_settings, identifier
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404

router = APIRouter(prefix="/shares", tags=["shares"])

Viewer = Annotated[Member, Depends(member("shares.view"))]
Keeper = Annotated[Member, Depends(member("shares.manage"))]
Activator = Annotated[Member, Depends(member("activation.change"))]

Side = Literal["provider", "consumer"]
Step = Literal["pause", "resume", "revoke", "refuse"]
STEPS: dict[Step, ShareCommand] = {
    "pause": PauseShare(),
    "resume": ResumeShare(),
    "revoke": RevokeShare(),
    "refuse": RefuseAccess(),
}


class NewShare(Body):
    """`offering`: its id or code. `price` null: the offering's own; `starts_at` null: now; `ends_at` null: no end."""

    offering: str
    consumer: str = Field(description="The other organisation's slug or id.")
    price: Price | None = None
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    activate: list[Flag] | None = Field(
        default=None, description="Flags that it begins with; every one that the caller may set, if not said."
    )


class ShareChange(Body):
    """What is left out stays; null takes a price or an end away. `activate` counts when a request is approved."""

    price: Price | None = None
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    activate: list[Flag] | None = None


class Party(Reply):
    """An organisation; slug and name are empty when it was deleted."""

    id: str
    slug: str
    name: str


class Share(Reply):
    """`side`: which of the two the caller is; `flags` (who set each) are for the provider alone. Times in UTC."""

    id: str
    side: Side
    status: ShareStatus
    offering_id: str
    identifier: str
    offering_name: str
    provider: Party
    consumer: Party
    price: Price | None
    starts_at: datetime | None
    ends_at: datetime | None
    is_trial_used: bool
    gives_access: bool
    activation: ActivationShown
    flags: list[FlagSetting] | None
    created_at: datetime
    updated_at: datetime


@router.get("")
async def shares(viewer: Viewer, services: Served, position: Position, side: Side = "provider") -> list[Share]:
    """What the organisation gives and is asked for (`provider`), or gets and asks for (`consumer`); newest first."""
    async with services.read("shares", position=position) as connection:
        listed = await (list_given if side == "provider" else list_taken)(connection, viewer.organization_id)
    return await shown(services, side, listed, position)


@router.get("/{share_id}")
async def share(share_id: PathId, viewer: Viewer, services: Served, position: Position) -> Share:
    wanted = uuid_or_404("share", share_id)
    async with services.read("shares", position=position) as connection:
        given = await find_given(connection, viewer.organization_id, wanted)
        found = given or await find_taken(connection, viewer.organization_id, wanted)
    if found is None:
        raise not_found("share")
    return (await shown(services, "provider" if given else "consumer", [found], position))[0]


@router.post("", status_code=201)
async def share_offering(
    body: NewShare, keeper: Keeper, services: Served, intent: Intended, position: Position
) -> Share:
    """Gives another organisation access, asked or unasked."""
    offering_id = await _live_offering(services, keeper, body.offering)
    # A slug is public; of another organisation nothing but its id is taken from here.
    async with services.read("organizations", position=position, scope=EVERYTHING) as connection:
        consumer = await find_profile_named(connection, body.consumer)
    if consumer is None:
        raise not_found("organization")
    price = body.price.spoken if body.price else None
    terms = ShareTerms(price=price, starts_at=body.starts_at or intent.draw.at, ends_at=body.ends_at)
    flags = granted_flags(keeper.role, body.activate)
    command = _grant(keeper, offering_id, consumer.id, terms, flags)
    return await _send(services, keeper, share_id_of(offering_id, consumer.id), command, intent)


async def _live_offering(services: Services, keeper: Member, id_or_code: str) -> OfferingId:
    """Of the organisation's own; the state is loaded, so that nothing withdrawn is given."""
    try:
        offering_id = OfferingId(uuid_or_404("offering", id_or_code))
    except ApiError:
        offering_id = offering_id_of(keeper.organization_id, id_or_code)
    state = (await services.load(OFFERING, keeper.organization_id, offering_id)).state
    if state.terms is None:
        raise not_found("offering")
    if not state.live:
        raise ApiError(409, "offering_withdrawn", "This offering was withdrawn; publish it again first.")
    return offering_id


def _grant(
    keeper: Member, offering_id: OfferingId, consumer: OrganizationId, terms: ShareTerms, flags: tuple[Flag, ...]
) -> ShareOffering:
    return ShareOffering(
        offering_id=offering_id, provider=keeper.organization_id, consumer=consumer, terms=terms, activate=flags
    )


@router.put("/{share_id}")
async def change_share(
    share_id: PathId, body: ShareChange, keeper: Keeper, services: Served, intent: Intended
) -> Share:
    """Changes the terms; of a request, approves it with these terms."""
    wanted = ShareId(uuid_or_404("share", share_id))
    state = (await services.load(SHARE, keeper.organization_id, wanted)).state
    asked = state.status == "requested"
    before = ShareTerms(starts_at=intent.draw.at) if asked or state.terms is None else state.terms
    terms = _changed(before, body)
    command: ShareCommand = ChangeShareTerms(terms=terms)
    if asked:
        await _live_offering(services, keeper, state.offering_id)
        flags = granted_flags(keeper.role, body.activate)
        command = _grant(keeper, state.offering_id, state.consumer, terms, flags)
    return await _send(services, keeper, wanted, command, intent)


def _changed(terms: ShareTerms, body: ShareChange) -> ShareTerms:
    said = body.model_fields_set
    if "price" in said:
        terms = replace(terms, price=body.price.spoken if body.price else None)
    if "ends_at" in said:
        terms = replace(terms, ends_at=body.ends_at)
    return replace(terms, starts_at=body.starts_at) if body.starts_at is not None else terms


@router.post("/{share_id}/{step}")
async def take_step(share_id: PathId, step: Step, keeper: Keeper, services: Served, intent: Intended) -> Share:
    """Paused and revoked ones stop the next request; a refused organisation may ask again."""
    wanted = ShareId(uuid_or_404("share", share_id))
    return await _send(services, keeper, wanted, STEPS[step], intent)


@router.put("/{share_id}/activation")
async def change_share_activation(
    share_id: PathId, body: FlagChange, activator: Activator, services: Served, intent: Intended
) -> Share:
    """Sets or clears one flag; it gives no access unless both are set."""
    require_flag(activator, body.flag)
    command = ActivateShare(flag=body.flag) if body.value else DeactivateShare(flag=body.flag)
    return await _send(services, activator, ShareId(uuid_or_404("share", share_id)), command, intent)


async def _send(services: Services, who: Member, share_id: ShareId, command: ShareCommand, intent: Intent) -> Share:
    """A share lies in its provider's part of the log, so a consumer's or a stranger's command finds none."""
    await intent.send(SHARE, who.organization_id, share_id, command, actor=who.caller.actor)
    async with services.read("shares", position=intent.position) as connection:
        found = await find_given(connection, who.organization_id, share_id)
    if found is None:
        raise not_found("share")
    return (await shown(services, "provider", [found], intent.position))[0]


async def shown(services: Services, side: Side, views: list[ShareView], position: int) -> list[Share]:
    """With the names of both sides and of what is shared."""
    parties = {party for view in views for party in (view.organization_id, view.consumer_organization_id)}
    # The other side's name is part of a share; ids come from rows that the caller may see.
    async with services.read("offerings", "organizations", position=position, scope=EVERYTHING) as connection:
        offerings = await find_offerings(connection, {view.offering_id for view in views})
        profiles = await find_profiles(connection, parties)
    now = services.clock()
    return [_shown(view, side, offerings.get(view.offering_id), profiles, now) for view in views]


def _shown(
    view: ShareView,
    side: Side,
    offering: OfferingView | None,
    profiles: dict[OrganizationId, OrganizationProfile],
    now: datetime,
) -> Share:
    state, terms = view.share, view.share.terms
    provider = _party(view.organization_id, profiles)
    named = offering.offering if offering else None
    return Share(
        id=view.id,
        side=side,
        status=state.status,
        offering_id=view.offering_id,
        identifier=identifier(provider.slug, named.code if named else ""),
        offering_name=named.terms.name if named and named.terms else "",
        provider=provider,
        consumer=_party(view.consumer_organization_id, profiles),
        price=Price.model_validate(terms.price) if terms and terms.price else None,
        starts_at=terms.starts_at if terms else None,
        ends_at=terms.ends_at if terms else None,
        is_trial_used=state.tried,
        gives_access=state.gives_access(now),
        activation=activation_shown(state.activation),
        flags=flag_settings(view.flags) if side == "provider" else None,
        created_at=view.created_at,
        updated_at=view.updated_at,
    )


def _party(organization_id: OrganizationId, profiles: dict[OrganizationId, OrganizationProfile]) -> Party:
    found = profiles.get(organization_id)
    return Party(id=organization_id, slug=found.slug if found else "", name=found.name if found else "")
