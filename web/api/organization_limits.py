"""What the platform lets one organisation use of it. Members see it with their organisation (GET /organizations)."""

from fastapi import APIRouter
from pydantic import Field

from domain.ids import OrganizationId
from domain.organization import ORGANIZATION
from domain.organization_commands import ChangeOrganizationLimits
from projections.organizations import OrganizationProfile, find_profile
from projections.projection import EVERYTHING
from web.auth import PlatformAdmin, Position, Served
from web.errors import not_found
from web.intent import Intended
from web.organization_shapes import Limit, Limits
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404

router = APIRouter(prefix="/organizations", tags=["organisations"])


class LimitsChange(Body):
    """What is not said stays as it is; null takes a limit away."""

    requests_per_minute: Limit = None
    tokens_per_minute: Limit = Field(None, description="Prompt and completion together; null: no limit.")
    concurrency: Limit = Field(None, description="Requests that run or wait at one moment; null: no limit.")
    spend_limit_eur_micros_per_month: Limit = Field(None, description="EUR millionths, calendar month in UTC.")
    max_completion_tokens: Limit = Field(None, description="Of one answer; a request for more is given this many.")


class LimitedOrganization(Reply):
    id: str
    name: str
    slug: str
    limits: Limits


@router.get("/{organization_id}/limits")
async def limits(
    organization_id: PathId, _admin: PlatformAdmin, services: Served, position: Position
) -> LimitedOrganization:
    wanted = OrganizationId(uuid_or_404("organization", organization_id))
    return LimitedOrganization.model_validate(await _profile(services, wanted, position))


@router.patch("/{organization_id}/limits")
async def change_limits(
    organization_id: PathId, body: LimitsChange, admin: PlatformAdmin, services: Served, intent: Intended
) -> LimitedOrganization:
    """How much of the platform an organisation may use is the platform's to say, as what it pays for is."""
    wanted = OrganizationId(uuid_or_404("organization", organization_id))
    command = ChangeOrganizationLimits(**body.model_dump(exclude_unset=True))
    await intent.send(ORGANIZATION, wanted, wanted, command, actor=admin.actor)
    return LimitedOrganization.model_validate(await _profile(services, wanted, intent.position))


async def _profile(services: Services, organization_id: OrganizationId, position: int) -> OrganizationProfile:
    """Across the tenants' wall: an administrator of the platform need not be a member."""
    async with services.read("organizations", position=position, scope=EVERYTHING) as connection:
        profile = await find_profile(connection, organization_id)
    if profile is None:
        raise not_found("organization")
    return profile
