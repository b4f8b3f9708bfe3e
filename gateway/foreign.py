"""What is different about a foreign upstream: where its endpoints are, which addresses it may have, who its 401 is for.

    base_url of OpenAI's clients + /v1/chat/completions ──> path     its 401, 402, 403, 3xx ──> 502 upstream_refused_us

Pure. The surprising rule: what a foreign server says of our key or our account is told to nobody. The caller may belong
to another organisation than the key does, and would take a passed-on 401 for one of its own.
"""

from collections.abc import Callable
from typing import Protocol

from domain.outbound import OutboundRules
from gateway.http import Headers
from gateway.wire import Refusal

VERSIONED = "/v1"
DEFAULT_RETRY_AFTER_S = 5
MAX_RETRY_AFTER_DIGITS = 5
"""A day has 86,400 seconds; a longer wait is no advice."""
_ABOUT_US = frozenset({401, 402, 403, 407})
"""What an HTTP server says to whom it does not know, or who has not paid."""

FindKey = Callable[[str], str | None]
"""Credential id -> the key that an upstream wants; None while it cannot be opened."""


class Addressed(Protocol):
    """Where a connection goes, as calls.Origin says it."""

    @property
    def scheme(self) -> str: ...

    @property
    def host(self) -> str: ...

    @property
    def port(self) -> int: ...


def target_path(base: str, path: str) -> str:
    """Where an endpoint is at a server.

    Args:
        base: the path of the server's URL, without a final slash; "" for engines of ours.
        path: ours, e.g. "/v1/chat/completions" or "/tokenize".
    """
    if not base:
        return path
    if path.startswith(f"{VERSIONED}/"):
        return base + path.removeprefix(VERSIONED)
    return base.removesuffix(VERSIONED) + path


def address_allowed(rules: OutboundRules) -> Callable[[Addressed, str], bool]:
    """What Calls asks of each address before it connects for a foreign upstream."""

    def allowed(origin: Addressed, address: str) -> bool:
        return rules.allows(origin.host.lower(), origin.port, address, encrypted=origin.scheme == "https")

    return allowed


def key_unavailable() -> Refusal:
    """A request is never sent without the key that its upstream wants."""
    return Refusal(502, "upstream_key_unavailable", "The key for this model's upstream cannot be read now. Try again.")


def refusal_by_foreign(status: int, headers: Headers) -> Refusal | None:
    """What a client is told instead of a foreign upstream's answer; None: its answer may be shown."""
    if status in _ABOUT_US or 300 <= status < 400:
        message = "The upstream of this model did not let us in. Its organisation has to look at its key and account."
        return Refusal(502, "upstream_refused_us", message)
    if status == 429:
        message = "The upstream of this model takes no more requests for now."
        return Refusal(429, "upstream_rate_limited", message, headers=((b"retry-after", _retry_after(headers)),))
    return None


def _retry_after(headers: Headers) -> bytes:
    """In whole seconds; a date, which HTTP allows too, is not worth its parser."""
    given = next((value for name, value in headers if name == b"retry-after"), b"")
    is_sane = given.isdigit() and len(given) <= MAX_RETRY_AFTER_DIGITS
    return given if is_sane else b"%d" % DEFAULT_RETRY_AFTER_S
