"""Offerings of others, as a consumer finds them: what it may see, whether it may call it, and asking to.

    GET /catalogue/offerings ──> POST /offerings/{id}/access ──> (its provider answers: shares.py)
                             └─> POST /offerings/{id}/trial

One rule decides about each (domain/entitlement.py), the gateway's own; what it calls offering_not_found is in no list.
The surprising rule: an unlisted one is found only by its whole name.
"""

from typing import Annotated

from fastapi import APIRouter, Depends

from domain.entitlement import price_of_call, refusal_to_call
from domain.ids import PLATFORM, OfferingId, OrganizationId
from domain.offering import AccessPolicy, Visibility, offering_id_of
from domain.organization import ORGANIZATION
from domain.share import SHARE, RequestAccess, ShareCommand, ShareStatus, StartTrial, share_id_of
from domain.user import USER
from domain.values import Plan
from projections.offerings import OfferingView, find_offerings, find_reachable, list_public
from projections.organizations import OrganizationProfile, find_profile_named, find_profiles
from projections.projection import EVERYTHING, Connection
from projections.shares import ShareView, find_taken, list_taken
from web.api.shares import Share, shown
from web.auth import Caller, Member, Position, Served, SignedIn, member
from web.errors import not_found
from web.intent import Intended, Intent
from web.offered import Price, identifier
from web.services import Services
from web.shapes import PathId, Reply, uuid_or_404

router = APIRouter(tags=["offerings"])

Asker = Annotated[Member, Depends(member("access.request"))]

NOT_FOUND = "offering_not_found"


class OfferedOffering(Reply):
    """An offering of another organisation. `callable`: the gateway would let the caller's organisation use it now, at
    `price`; if not, `refusal_code` and `refusal_message` are what it would answer.
    """

    id: str
    identifier: str
    provider_id: str
    provider_name: str
    code: str
    model_code: str
    name: str
    description: str
    visibility: Visibility
    access_policy: AccessPolicy
    price: Price
    trial_days: int
    callable: bool
    refusal_code: str | None
    refusal_message: str | None
    share_id: str | None
    share_status: ShareStatus | None


@router.get("/catalogue/offerings")
async def offered(caller: SignedIn, services: Served, position: Position, name: str = "") -> list[OfferedOffering]:
    """Other organisations' public offerings that work, and what they share with the caller's; with `name`
    (`org_slug/code`) that one alone, also when it is unlisted.
    """
    consumer = OrganizationId(caller.organization_id or "")
    async with services.read("shares", position=position) as connection:
        taken = {view.offering_id: view for view in await list_taken(connection, consumer)}
    plan = await _plan(services, caller)
    # What others offer lies in their part of the tables; the queries name what they have made public or shared.
    async with services.read("offerings", "organizations", position=position, scope=EVERYTHING) as connection:
        found = await _named(connection, name) if name else await _listed(connection, consumer, list(taken))
        providers = await find_profiles(connection, {view.organization_id for view in found})
    rows = [
        _shown(services, view, providers[view.organization_id], consumer, plan, taken.get(view.id))
        for view in found
        if view.organization_id in providers and view.organization_id != consumer
    ]
    return [row for row in rows if row.refusal_code != NOT_FOUND]


async def _listed(connection: Connection, consumer: OrganizationId, taken: list[OfferingId]) -> list[OfferingView]:
    """Public ones first, newest first; then what was shared otherwise."""
    found = {view.id: view for view in await list_public(connection, consumer)}
    return list((found | await find_offerings(connection, [one for one in taken if one not in found])).values())


async def _named(connection: Connection, name: str) -> list[OfferingView]:
    slug, _, code = name.partition("/")
    provider = await find_profile_named(connection, slug)
    found = await find_reachable(connection, offering_id_of(provider.id, code)) if provider else None
    return [found] if found else []


async def _plan(services: Services, caller: Caller) -> Plan:
    """Of the workspace: the organisation's, or in the personal one the person's own."""
    if caller.organization_id is None:
        return (await services.load(USER, PLATFORM, caller.user_id)).state.plan
    return (await services.load(ORGANIZATION, caller.organization_id, caller.organization_id)).state.plan


def _shown(
    services: Services,
    view: OfferingView,
    provider: OrganizationProfile,
    consumer: OrganizationId,
    plan: Plan,
    taken: ShareView | None,
) -> OfferedOffering:
    state, terms, share = view.offering, view.offering.terms, taken.share if taken else None
    assert terms is not None  # noqa: S101 - a row begins with OfferingPublished
    now = services.clock()
    refusal = refusal_to_call(state, provider.id, consumer, plan=plan, share=share, now=now)
    return OfferedOffering(
        id=view.id,
        identifier=identifier(provider.slug, state.code),
        provider_id=provider.id,
        provider_name=provider.name,
        code=state.code,
        model_code=state.model_code,
        name=terms.name,
        description=terms.description,
        visibility=terms.visibility,
        access_policy=terms.access_policy,
        price=Price.model_validate(price_of_call(state, provider.id, consumer, share=share, now=now)),
        trial_days=terms.trial_days,
        callable=refusal is None,
        refusal_code=refusal.code if refusal else None,
        refusal_message=refusal.message if refusal else None,
        share_id=taken.id if taken else None,
        share_status=share.status if share else None,
    )


@router.post("/offerings/{offering_id}/access", status_code=202)
async def request_access(
    offering_id: PathId, asker: Asker, services: Served, intent: Intended, position: Position
) -> Share:
    """Asks its provider for a share; asking again while the request is open changes nothing."""
    found = await _reachable(services, asker, offering_id, position)
    command = RequestAccess(
        offering_id=found.id,
        provider=found.organization_id,
        consumer=asker.organization_id,
        plan=await _plan(services, asker.caller),
    )
    return await _ask(services, asker, found, command, intent)


@router.post("/offerings/{offering_id}/trial", status_code=201)
async def start_trial(
    offering_id: PathId, asker: Asker, services: Served, intent: Intended, position: Position
) -> Share:
    """Begins the organisation's one trial of an offering whose access policy is `trial`."""
    found = await _reachable(services, asker, offering_id, position)
    terms = found.offering.terms
    command = StartTrial(
        offering_id=found.id,
        provider=found.organization_id,
        consumer=asker.organization_id,
        trial_days=terms.trial_days if terms and terms.access_policy == "trial" else 0,
    )
    return await _ask(services, asker, found, command, intent)


async def _reachable(services: Services, asker: Member, offering_id: str, position: int) -> OfferingView:
    """An offering that the asker may know of; any other is answered like one that does not exist."""
    wanted = uuid_or_404("offering", offering_id)
    async with services.read("shares", position=position) as connection:
        taken = await find_taken(
            connection, asker.organization_id, share_id_of(OfferingId(wanted), asker.organization_id)
        )
    # Another organisation's row, found by its id; the rule below says whether the asker may know of it.
    async with services.read("offerings", "organizations", position=position, scope=EVERYTHING) as connection:
        found = await find_reachable(connection, wanted)
        providers = await find_profiles(connection, {found.organization_id}) if found else {}
    if found is None or found.organization_id not in providers:
        raise not_found("offering")
    refusal = refusal_to_call(
        found.offering,
        found.organization_id,
        asker.organization_id,
        plan="subscriber",  # whether there is such an offering depends on no plan
        share=taken.share if taken else None,
        now=services.clock(),
    )
    if refusal is not None and refusal.code == NOT_FOUND:
        raise not_found("offering")
    return found


async def _ask(services: Services, asker: Member, found: OfferingView, command: ShareCommand, intent: Intent) -> Share:
    """The share lies in the provider's part of the log; the asker reads it as the consumer."""
    share_id = share_id_of(found.id, asker.organization_id)
    await intent.send(SHARE, found.organization_id, share_id, command, actor=asker.caller.actor)
    async with services.read("shares", position=intent.position) as connection:
        view = await find_taken(connection, asker.organization_id, share_id)
    if view is None:
        raise not_found("share")
    return (await shown(services, "consumer", [view], intent.position))[0]
