"""What a request says about a key's scope, and the scope that comes of it. Pure.

    left out ──> as the base has it: for a new key its maker's own restrictions, for a change what the key has now
    null, [] ──> no restriction

The surprising rule: a new key is no copy of its maker. Left out, its role is the lowest, and it ends after 90 days.
"""

from datetime import datetime, timedelta
from typing import Annotated

from msgspec.structs import asdict, replace
from pydantic import Field

from domain.key_scope import Endpoint, KeyScope
from domain.roles import Role
from web.shapes import Body

DEFAULT_EXPIRY_DAYS = 90
MAX_EXPIRY_DAYS = 3650
_LISTS = frozenset({"models", "endpoints", "ip_ranges"})

Limit = Annotated[int | None, Field(description="null: no limit of its own.")]


class ScopeWish(Body):
    """Fields of a scope; each may be left out."""

    role: Role = Field("user", description="It never does more than this role may, nor more than its owner may.")
    models: list[str] | None = Field(None, description="Model codes, or org_slug/code; null or []: all.")
    endpoints: list[Endpoint] | None = Field(None, description="null or []: all.")
    ip_ranges: list[str] | None = Field(None, description="Addresses or CIDRs to be used from; null or []: all.")
    expires_in_days: int | None = Field(None, ge=1, le=MAX_EXPIRY_DAYS, description="From now on; null: never.")
    requests_per_minute: Limit = None
    tokens_per_minute: Limit = None
    concurrency: Limit = None
    spend_limit_eur_micros: Limit = None


def fresh_scope(limit: KeyScope, *, at: datetime) -> KeyScope:
    """Of a new key whose maker may do `limit`, where the request says nothing."""
    expires_at = at + timedelta(days=DEFAULT_EXPIRY_DAYS)
    return replace(limit, role="user", expires_at=min(expires_at, limit.expires_at or expires_at))


def scope_of(base: KeyScope, wish: ScopeWish, *, at: datetime) -> KeyScope:
    """The base with what the wish names."""
    changes = {name: getattr(wish, name) for name in wish.model_fields_set & _FIELDS}
    changes |= {name: tuple(changes[name] or ()) for name in _LISTS & changes.keys()}
    if "expires_in_days" in wish.model_fields_set:
        days = wish.expires_in_days
        changes["expires_at"] = None if days is None else at + timedelta(days=days)
    return replace(base, **changes)


_FIELDS = frozenset(asdict(KeyScope()))
