"""A worker's own token: `wk_<uuid>_<uuid>`. Only its hash is kept; how old it is stands in the token itself.

The second half is a UUIDv7, so a token that proved genuine also tells truly when it was made, and nobody need remember
that. A token of before this rule has no time in it, and counts as old.
"""

import hmac
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from domain.instance_state import Instance
from web.draw import Draw

TOKEN_PREFIX = "wk_"  # noqa: S105 - how tokens begin, not one of them
SHOWN_PREFIX_LENGTH = 12


def new_token(draw: Draw) -> str:
    return f"{TOKEN_PREFIX}{UUID(bytes=draw.secret('worker/1', 16), version=4)}_{draw.id('worker/2')}"


def digest_of(token: str) -> str:
    """As the log keeps it: SHA-256, hex."""
    return sha256(token.encode()).hexdigest()


def is_current(instance: Instance, digest: str) -> bool:
    return _same(instance.token_sha256, digest)


def is_known(instance: Instance, digest: str) -> bool:
    """The worker's token, or the next one that it was given and has not used yet."""
    return is_current(instance, digest) or _same(instance.next_token_sha256, digest)


def is_old(token: str, *, now: datetime, ttl: timedelta) -> bool:
    """Whether a genuine token should be replaced."""
    try:
        made = UUID(token.rpartition("_")[2])
    except ValueError:
        return True
    if made.version != 7:
        return True
    return now - datetime.fromtimestamp((made.int >> 80) / 1000, UTC) >= ttl


def _same(kept: str, digest: str) -> bool:
    return bool(kept) and hmac.compare_digest(kept, digest)
