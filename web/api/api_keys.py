"""API keys: who may call the gateway, and the REST routes that take keys. A secret is shown in one reply, never again.

    maker (a person by their role, a key by its own scope) ──POST──> key, never wider ──rotate──> a second secret ...

Members see their own keys and the organisation's; who may set a flag sees all, for a flag is set on what one can find.
Others' keys are changed by owners and admins, but rotated by nobody else: the new secret would let them act as another
person. What a key made ends with it. When a key was last used is told by the read model `usage`; reads here wait for
`api_keys` alone, since usage follows a stream of its own, whose positions are others.
"""

from datetime import timedelta
from typing import Annotated, Literal

from fastapi import APIRouter, Depends
from msgspec.structs import replace
from pydantic import Field

from domain.activation import Flag
from domain.api_key import (
    API_KEY,
    MAX_OVERLAP,
    SECRET_BYTES,
    SHOWN_PREFIX_LENGTH,
    ActivateApiKey,
    ApiKeyCommand,
    ChangeApiKeyScope,
    DeactivateApiKey,
    IssueApiKey,
    RenameApiKey,
    RevokeApiKey,
    RotateApiKey,
    key_from,
    key_hash,
)
from domain.ids import ApiKeyId, UserId
from domain.key_scope import KeyScope
from domain.permissions import granted_flags
from projections.api_keys import (
    ApiKeyView,
    Column,
    find_api_key,
    list_api_keys,
    list_made_by,
    search_api_keys,
)
from projections.projection import Connection
from projections.query import MAX_LIST_ROWS
from projections.usage import find_last_uses, list_usage
from web.activation import ActivationShown, FlagChange, require_flag
from web.auth import Member, Position, Served, member
from web.errors import ApiError, not_found
from web.intent import Intended, Intent
from web.key_shapes import ApiKey, ApiKeyPage, IssuedApiKey, Owner, key_shown
from web.key_wish import ScopeWish, fresh_scope, scope_of
from web.services import Services
from web.shapes import Body, PathId, uuid_or_404

router = APIRouter(prefix="/api_keys", tags=["API keys"])

KeyHolder = Annotated[Member, Depends(member("api_keys.own"))]
KeyMaker = Annotated[Member, Depends(member("api_keys.own", keys=True))]
Activator = Annotated[Member, Depends(member("activation.change"))]

DEFAULT_OVERLAP_S = 3600


class KeyName(Body):
    name: str


class KeyWish(ScopeWish):
    """A new key. Left out: the lowest role, 90 days, and the restrictions of the key that makes it."""

    name: str
    owner: Owner | None = Field(None, description="Left out: whoever makes it, a person or an organisation's key.")
    activate: list[Flag] | None = Field(None, description="Flags to set at once; left out: all that your role may set.")


class Rotation(Body):
    overlap_s: int = Field(
        DEFAULT_OVERLAP_S,
        ge=0,
        le=int(MAX_OVERLAP.total_seconds()),
        description="How long the old secret still works; one from an earlier rotation ends now.",
    )


@router.get("")
async def api_keys(
    holder: KeyHolder, services: Served, position: Position, revoked: bool | None = None
) -> list[ApiKey]:
    """The caller's own keys and the organisation's; everybody's for its owners, admins and managers. Newest first."""
    async with services.read("api_keys", position=position) as connection:
        keys = await list_api_keys(connection, holder.organization_id, seen_by=_seen_by(holder), revoked=revoked)
        return await _shown(connection, keys)


@router.get("/search")
async def search_keys(
    holder: KeyHolder,
    services: Served,
    position: Position,
    revoked: bool | None = None,
    offset: Annotated[int, Field(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Field(ge=1, le=500)] = 200,
    sort_by: Column = "created_at",
    sort_dir: Literal["asc", "desc"] = "desc",
) -> ApiKeyPage:
    """The same in pages. Sorted by last use, of more than 1000 used keys some count as never used."""
    async with services.read("api_keys", position=position) as connection:
        uses = {}
        if sort_by == "last_used_at":
            totals = await list_usage(connection, holder.organization_id, by="api_key_id")
            uses = {total.of: total.last_request_at for total in totals if total.last_request_at}
        page = await search_api_keys(
            connection,
            holder.organization_id,
            seen_by=_seen_by(holder),
            revoked=revoked,
            offset=offset,
            limit=limit,
            sort_by=sort_by,
            sort_dir=sort_dir,
            last_uses=uses,
        )
        rows = await _shown(connection, page.rows)
    return ApiKeyPage(
        offset=page.offset,
        limit=page.limit,
        total_count=page.total_count,
        filtered_count=page.filtered_count,
        rows=rows,
    )


@router.post("", status_code=201)
async def create_key(body: KeyWish, maker: KeyMaker, services: Served, intent: Intended) -> IssuedApiKey:
    """Issues a key of the caller or of the organisation, which may do no more than its maker may."""
    key_id = ApiKeyId(intent.draw.id("api_key"))
    secret = key_from(intent.draw.secret("api_key", SECRET_BYTES))
    own_key = await _own_key(services, maker)
    limit = _limit_of(maker, own_key)
    command = IssueApiKey(
        name=body.name,
        owner=_owner_of(body, maker),
        created_by=own_key.created_by if own_key else maker.user_id,
        key_sha256=key_hash(secret),
        key_prefix=secret[:SHOWN_PREFIX_LENGTH],
        scope=scope_of(fresh_scope(limit, at=intent.draw.at), body, at=intent.draw.at),
        limit=limit,
        activate=granted_flags(maker.role, body.activate),
    )
    await _send(intent, maker, key_id, command)
    return IssuedApiKey(key=await _shown_after(services, maker, key_id, intent), api_key=secret)


@router.get("/{key_id}")
async def api_key(key_id: PathId, holder: KeyHolder, services: Served, position: Position) -> ApiKey:
    key = await _find(services, holder, key_id, position)
    async with services.read("api_keys", position=position) as connection:
        return (await _shown(connection, [key]))[0]


@router.put("/{key_id}")
async def rename_key(
    key_id: PathId, body: KeyName, holder: KeyHolder, services: Served, intent: Intended, position: Position
) -> ApiKey:
    key = await _changeable(services, holder, key_id, position)
    await _send(intent, holder, key.id, RenameApiKey(name=body.name))
    return await _shown_after(services, holder, key.id, intent, position)


@router.put("/{key_id}/scope")
async def change_key_scope(
    key_id: PathId, body: ScopeWish, holder: KeyHolder, services: Served, intent: Intended, position: Position
) -> ApiKey:
    """Changes the fields that are sent, to no more than the caller may do. What is left out stays as it is."""
    key = await _changeable(services, holder, key_id, position)
    scope = scope_of(key.scope, body, at=intent.draw.at)
    await _send(intent, holder, key.id, ChangeApiKeyScope(scope=scope, limit=_limit_of(holder)))
    return await _shown_after(services, holder, key.id, intent, position)


@router.post("/{key_id}/rotate")
async def rotate_key(
    key_id: PathId, body: Rotation, holder: KeyHolder, services: Served, intent: Intended, position: Position
) -> IssuedApiKey:
    """Gives the key a new secret; the old one works on for a while, so that its users can change over."""
    key = await _changeable(services, holder, key_id, position)
    if key.owner not in {None, holder.user_id}:
        message = "Only its owner is shown a new secret of this key; revoke it if you do not trust it."
        raise ApiError(403, "api_key_does_not_belong_to_user", message)
    secret = key_from(intent.draw.secret("api_key", SECRET_BYTES))
    command = RotateApiKey(
        key_sha256=key_hash(secret),
        key_prefix=secret[:SHOWN_PREFIX_LENGTH],
        previous_valid_until=intent.draw.at + timedelta(seconds=body.overlap_s),
        limit=_limit_of(holder),
    )
    await _send(intent, holder, key.id, command)
    return IssuedApiKey(key=await _shown_after(services, holder, key.id, intent, position), api_key=secret)


@router.put("/{key_id}/activation")
async def change_key_activation(
    key_id: PathId, body: FlagChange, activator: Activator, services: Served, intent: Intended, position: Position
) -> ActivationShown:
    """Sets or clears one flag; the key works while both are set. What counts is the caller's role, not the key's."""
    require_flag(activator, body.flag)
    key = await _find(services, activator, key_id, position)
    command = (ActivateApiKey if body.value else DeactivateApiKey)(flag=body.flag)
    await _send(intent, activator, key.id, command)
    return (await _shown_after(services, activator, key.id, intent, position)).activation


@router.delete("/{key_id}", status_code=204)
async def revoke_key(key_id: PathId, holder: KeyHolder, services: Served, intent: Intended, position: Position) -> None:
    """Ends the key at once, and every key that it made; they stay in the list."""
    key = await _changeable(services, holder, key_id, position)
    await _send(intent, holder, key.id, RevokeApiKey())
    async with services.read("api_keys", position=max(position, intent.position)) as connection:
        made = await list_made_by(connection, holder.organization_id, key.id)
    for made_id in made:
        await _send(intent, holder, made_id, RevokeApiKey())
    if len(made) == MAX_LIST_ROWS:
        message = "This key made very many others; some of them still work. Ask again until this is a success."
        raise ApiError(503, "made_keys_remain", message, {"retry-after": "0"})


async def _send(
    intent: Intent,
    caller: Member,
    key_id: ApiKeyId,
    command: ApiKeyCommand,
) -> None:
    await intent.send(API_KEY, caller.organization_id, key_id, command, actor=caller.caller.actor)


async def _own_key(services: Services, maker: Member) -> ApiKeyView | None:
    """The key that makes a key; None when a person does."""
    if maker.caller.api_key_id is None:
        return None
    async with services.read("api_keys") as connection:
        return await find_api_key(connection, maker.organization_id, maker.caller.api_key_id)


def _limit_of(caller: Member, own_key: ApiKeyView | None = None) -> KeyScope:
    """What the caller may do: a person whatever their role may, a key what its scope and that role say."""
    return KeyScope(role=caller.role) if own_key is None else replace(own_key.scope, role=caller.role)


def _owner_of(body: KeyWish, maker: Member) -> UserId | None:
    """Raises ApiError: 403 insufficient_permissions."""
    acts_for_nobody = not maker.user_id
    owner: Owner = body.owner or ("organization" if acts_for_nobody else "user")
    if owner == "user" and acts_for_nobody:
        raise ApiError(403, "insufficient_permissions", "An organisation's key makes keys of its organisation only.")
    if owner == "organization" and not maker.may("api_keys.all"):
        raise _not_allowed(maker)
    return maker.user_id if owner == "user" else None


def _not_allowed(caller: Member) -> ApiError:
    return ApiError(403, "insufficient_permissions", f"Role {caller.role} does not allow api_keys.all.")


def _seen_by(holder: Member) -> str | None:
    return None if holder.may("activation.change") else holder.user_id


async def _find(services: Services, holder: Member, key_id: str, position: int) -> ApiKeyView:
    """The key, when the caller may see it; another's is answered like one that does not exist."""
    wanted = uuid_or_404("api_key", key_id)
    async with services.read("api_keys", position=position) as connection:
        key = await find_api_key(connection, holder.organization_id, wanted)
    if key is None or (_seen_by(holder) is not None and key.owner not in {None, holder.user_id}):
        raise not_found("api_key")
    return key


async def _changeable(services: Services, holder: Member, key_id: str, position: int) -> ApiKeyView:
    """The same, when it is the caller's own, or the caller may change those of others and of the organisation.

    Raises:
        ApiError: 404 api_key_not_found, 403 insufficient_permissions.
    """
    key = await _find(services, holder, key_id, position)
    if key.owner != holder.user_id and not holder.may("api_keys.all"):
        raise _not_allowed(holder)
    return key


async def _shown_after(
    services: Services, caller: Member, key_id: ApiKeyId, intent: Intent, position: int = 0
) -> ApiKey:
    """The key as it is once the intent's effect is visible."""
    async with services.read("api_keys", position=max(position, intent.position)) as connection:
        key = await find_api_key(connection, caller.organization_id, key_id)
        if key is None:
            raise not_found("api_key")
        return (await _shown(connection, [key]))[0]


async def _shown(connection: Connection, keys: list[ApiKeyView]) -> list[ApiKey]:
    last_uses = await find_last_uses(connection, [key.id for key in keys])
    return [key_shown(key, last_uses.get(key.id)) for key in keys]
