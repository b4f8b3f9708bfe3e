"""What the platform lets one organisation use of it, over all its keys. None means no limit.

    organisation's limits ─┐
    key's own limits ──────┴─> a request needs room under both (gateway/limits.py)

The surprising rule: a key's spend counts over its whole life, an organisation's within a calendar month (UTC), because
a key is a budget that somebody was given and an organisation is a customer that goes on.
"""

from collections.abc import Mapping

import msgspec
from msgspec.structs import replace

from domain.decider import Rejected
from domain.key_scope import MAX_LIMIT


class OrganizationLimits(msgspec.Struct, frozen=True, kw_only=True):
    """All of an organisation's.

    Attributes:
        requests_per_minute, tokens_per_minute: in any minute; prompt and completion tokens together.
        concurrency: requests that run or wait at one moment.
        spend_limit_eur_micros_per_month: EUR millionths within a calendar month, UTC.
        max_completion_tokens: of one answer; a request that asks for more, or names none, is given this many.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    spend_limit_eur_micros_per_month: int | None = None
    max_completion_tokens: int | None = None


UNLIMITED = OrganizationLimits()


def changed_limits(
    limits: OrganizationLimits, wanted: Mapping[str, int | msgspec.UnsetType | None]
) -> OrganizationLimits:
    """The limits with what is wanted of them; UNSET leaves one as it is.

    Raises:
        Rejected: invalid_limit.
    """
    changes = {name: limit for name, limit in wanted.items() if limit is not msgspec.UNSET}
    for name, limit in changes.items():
        if isinstance(limit, int) and not 0 < limit <= MAX_LIMIT:
            raise Rejected("invalid_limit", f"{name} is a whole number above 0, or null for no limit.")
    return replace(limits, **changes)
