"""API keys: who may call the gateway. The secret is shown in one reply, and never again.

When a key was last used is told by the read model `usage`; reads here wait for `api_keys` alone, since usage follows a
stream of its own, whose positions are others.
"""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from pydantic import Field

from domain.api_key import (
    API_KEY,
    SECRET_BYTES,
    SHOWN_PREFIX_LENGTH,
    IssueApiKey,
    RenameApiKey,
    RevokeApiKey,
    key_from,
    key_hash,
)
from domain.ids import ApiKeyId
from domain.key_scope import KeyScope
from domain.permissions import granted_flags
from projections.api_keys import ApiKeyView, Column, find_api_key, list_api_keys, search_api_keys
from projections.projection import Connection
from projections.usage import find_last_uses
from web.auth import Member, Position, Served, member
from web.errors import not_found
from web.intent import Intended
from web.services import Services
from web.shapes import Body, PathId, Reply, uuid_or_404

router = APIRouter(prefix="/api_keys", tags=["API keys"])

KeyHolder = Annotated[Member, Depends(member("api_keys.own"))]


class KeyName(Body):
    name: str


class ApiKey(Reply):
    id: str
    name: str
    key_prefix: str
    owner: str
    created_at: datetime
    last_used_at: datetime | None = None
    revoked_at: datetime | None


class IssuedApiKey(Reply):
    key: ApiKey
    api_key: str = Field(description="The secret itself; it is not stored, and not shown again.")


class ApiKeyPage(Reply):
    offset: int
    limit: int
    total_count: int
    filtered_count: int
    rows: list[ApiKey]


@router.get("")
async def api_keys(holder: KeyHolder, services: Served, position: Position) -> list[ApiKey]:
    """The caller's own keys; all of the organisation for its owners and admins. Newest first."""
    async with services.read("api_keys", position=position) as connection:
        keys = await list_api_keys(connection, holder.organization_id, owner=_only_of(holder))
        return await _shown(connection, keys)


@router.get("/search")
async def search_keys(
    holder: KeyHolder,
    services: Served,
    position: Position,
    offset: Annotated[int, Field(ge=0)] = 0,
    limit: Annotated[int, Field(ge=1, le=500)] = 200,
    sort_by: Column = "created_at",
    sort_dir: Literal["asc", "desc"] = "desc",
) -> ApiKeyPage:
    async with services.read("api_keys", position=position) as connection:
        page = await search_api_keys(
            connection,
            holder.organization_id,
            owner=_only_of(holder),
            offset=offset,
            limit=limit,
            sort_by=sort_by,
            sort_dir=sort_dir,
        )
        rows = await _shown(connection, page.rows)
    return ApiKeyPage(
        offset=page.offset, limit=page.limit, total_count=page.total_count, filtered_count=page.total_count, rows=rows
    )


@router.post("", status_code=201)
async def create_key(body: KeyName, holder: KeyHolder, services: Served, intent: Intended) -> IssuedApiKey:
    """Issues a key for the caller in the current organisation."""
    key_id = ApiKeyId(intent.draw.id("api_key"))
    secret = key_from(intent.draw.secret("api_key", SECRET_BYTES))
    command = IssueApiKey(
        name=body.name,
        owner=holder.user_id,
        created_by=holder.user_id,
        key_sha256=key_hash(secret),
        key_prefix=secret[:SHOWN_PREFIX_LENGTH],
        scope=KeyScope(role=holder.role),
        limit=KeyScope(role=holder.role),
        activate=granted_flags(holder.role, None),
    )
    await intent.send(API_KEY, holder.organization_id, key_id, command, actor=holder.caller.actor)
    key = await _find(services, holder, key_id, intent.position)
    return IssuedApiKey(key=key, api_key=secret)


@router.put("/{key_id}")
async def rename_key(
    key_id: PathId, body: KeyName, holder: KeyHolder, services: Served, intent: Intended, position: Position
) -> ApiKey:
    key = await _find(services, holder, key_id, position)
    await intent.send(API_KEY, holder.organization_id, key.id, RenameApiKey(name=body.name), actor=holder.caller.actor)
    return await _find(services, holder, key_id, intent.position)


@router.delete("/{key_id}", status_code=204)
async def revoke_key(key_id: PathId, holder: KeyHolder, services: Served, intent: Intended, position: Position) -> None:
    """Ends the key at once; it stays in the list."""
    key = await _find(services, holder, key_id, position)
    await intent.send(API_KEY, holder.organization_id, key.id, RevokeApiKey(), actor=holder.caller.actor)


def _only_of(holder: Member) -> str | None:
    return None if holder.may("api_keys.all") else holder.user_id


async def _find(services: Services, holder: Member, key_id: str, position: int) -> ApiKey:
    """The key, when the caller may see it; another member's is answered like one that does not exist."""
    wanted = uuid_or_404("api_key", key_id)
    async with services.read("api_keys", position=position) as connection:
        key = await find_api_key(connection, holder.organization_id, wanted)
        if key is None or _only_of(holder) not in {None, key.owner}:
            raise not_found("api_key")
        return (await _shown(connection, [key]))[0]


async def _shown(connection: Connection, keys: list[ApiKeyView]) -> list[ApiKey]:
    last_uses = await find_last_uses(connection, [key.id for key in keys])
    shown = [ApiKey.model_validate(key) for key in keys]
    return [key.model_copy(update={"last_used_at": last_uses.get(key.id)}) for key in shown]
