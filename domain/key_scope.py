"""What an API key may do: never more than whoever made it. Empty and None mean "no restriction of its own".

is_within(child, parent)       true when everything that `child` allows, `parent` allows too
"""

from datetime import datetime
from typing import Literal

import msgspec

from domain.roles import Role

Endpoint = Literal["models", "chat", "completions", "embeddings", "rest"]
"""`rest`: the REST API's routes that take keys; the others are the gateway's."""


class KeyScope(msgspec.Struct, frozen=True, kw_only=True):
    """The restrictions of one key.

    Attributes:
        role: the key never acts with more than this role, nor with more than its owner has at the moment.
        models: model codes and `org_slug/code` offerings; empty: all that its organisation may call.
        endpoints: empty: all.
        ip_ranges: CIDRs from which it may be used; empty: from everywhere.
        expires_at: UTC; None: never.
        requests_per_minute, tokens_per_minute, concurrency: None: as its organisation.
        spend_limit_eur_micros: in all, over the key's life; None: as its organisation.
    """

    role: Role = "user"
    models: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    ip_ranges: tuple[str, ...] = ()
    expires_at: datetime | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    spend_limit_eur_micros: int | None = None
