"""How an API key is shown: everything but its secret, which one reply alone carries."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from domain.key_scope import Endpoint
from domain.roles import Role
from projections.api_keys import ApiKeyView
from web.activation import ActivationShown, activation_shown
from web.shapes import Reply

Owner = Literal["user", "organization"]


class Scope(Reply):
    """Empty and null: no restriction of its own."""

    role: Role
    models: list[str]
    endpoints: list[Endpoint]
    ip_ranges: list[str]
    expires_at: datetime | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    concurrency: int | None
    spend_limit_eur_micros: int | None


class FlagChanges(Reply):
    """Who changed each flag last ("user:<id>", "key:<id>"), and when; empty and null: it never was set."""

    technical_by: str
    technical_at: datetime | None
    economic_by: str
    economic_at: datetime | None


class ApiKey(Reply):
    """`user_id` is null for an organisation's key, `made_by_key` for one that a person made."""

    id: str
    name: str
    key_prefix: str
    owner: Owner
    user_id: str | None
    created_by: str
    made_by_key: str | None
    scope: Scope
    activation: ActivationShown
    flag_changes: FlagChanges
    previous_valid_until: datetime | None
    created_at: datetime
    last_used_at: datetime | None
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


def key_shown(key: ApiKeyView, last_used_at: datetime | None) -> ApiKey:
    return ApiKey(
        id=key.id,
        name=key.name,
        key_prefix=key.key_prefix,
        owner="organization" if key.owner is None else "user",
        user_id=key.owner,
        created_by=key.created_by,
        made_by_key=key.made_by_key,
        scope=Scope.model_validate(key.scope),
        activation=activation_shown(key.activation),
        flag_changes=FlagChanges.model_validate(key.flag_changes),
        previous_valid_until=key.previous_valid_until,
        created_at=key.created_at,
        last_used_at=last_used_at,
        revoked_at=key.revoked_at,
    )
