"""Work that a reaction gave up on: seen, tried again, or let go, by a platform administrator."""

from datetime import datetime

from fastapi import APIRouter

from web.auth import PlatformAdmin, Served
from web.errors import not_found
from web.shapes import Reply

router = APIRouter(prefix="/parked", tags=["parked work"])


class ParkedWork(Reply):
    id: str
    reaction: str
    aggregate: str
    aggregate_id: str
    organization: str
    position: int
    event_id: str
    reason: str
    attempts: int
    parked_at: datetime


@router.get("")
async def parked(_admin: PlatformAdmin, services: Served) -> list[ParkedWork]:
    return [ParkedWork.model_validate(one) for one in await services.parking.list()]


@router.post("/{parked_id}/retry", status_code=202)
async def retry(parked_id: str, _admin: PlatformAdmin, services: Served) -> None:
    """Runs the reaction again, now."""
    if not await services.parking.retry(parked_id):
        raise not_found("parked_work")


@router.post("/{parked_id}/skip", status_code=202)
async def skip(parked_id: str, _admin: PlatformAdmin, services: Served) -> None:
    """Leaves it alone until something new happens to its aggregate."""
    if not await services.parking.skip(parked_id):
        raise not_found("parked_work")
