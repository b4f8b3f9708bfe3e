"""What was used: requests and tokens, by model, key, instance or deployment."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends

from projections.usage import Grouping, list_usage
from web.auth import Member, Served, member
from web.shapes import Reply

router = APIRouter(prefix="/usage", tags=["usage"])

Viewer = Annotated[Member, Depends(member("usage.view", keys=True))]


class UsageTotals(Reply):
    """Sums over the requests that have `of` in common: a model code or an id."""

    of: str
    total_requests: int
    successful_requests: int
    failed_requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    total_tokens: int
    first_request_at: datetime | None
    last_request_at: datetime | None


@router.get("")
async def usage(viewer: Viewer, services: Served, by: Grouping = "model_code") -> list[UsageTotals]:
    """The organisation's totals. Usage follows a stream of its own: `Event-Position` does not wait for it."""
    async with services.read("usage") as connection:
        found = await list_usage(connection, viewer.organization_id, by=by)
    return [UsageTotals.model_validate(one) for one in found]
