"""Who may pass: an API key, looked up by its SHA-256, pure and in memory.

    Authorization: Bearer sk-inv-...   or   X-API-Key: sk-inv-...   ──> the key's row, or 401 with a code

The four codes give nothing away: a mistyped key fails its own checksum, and "revoked" is told only to one who holds
the whole secret. No message repeats the key.
"""

from collections.abc import Callable

from domain.api_key import is_well_formed, key_hash
from gateway.wire import Headers, Refusal
from projections.routing_table import KeyRow

_CHALLENGE = ((b"www-authenticate", b'Bearer realm="inventiv"'),)


def admit(headers: Headers, find_key: Callable[[str], KeyRow | None]) -> KeyRow:
    """The caller's key.

    Raises:
        Refusal: 401 missing_api_key, malformed_api_key, invalid_api_key or revoked_api_key.
    """
    presented = _presented(headers)
    if not presented:
        raise _unauthorized("missing_api_key", "Send your API key as `Authorization: Bearer sk-inv-...`.")
    if not is_well_formed(presented):
        raise _unauthorized("malformed_api_key", "This is not an API key of this platform; is a character missing?")
    key = find_key(key_hash(presented))
    if key is None:
        raise _unauthorized("invalid_api_key", "This API key is not known here.")
    if key.revoked:
        raise _unauthorized("revoked_api_key", "This API key has been revoked.")
    return key


def _presented(headers: Headers) -> str:
    """The key as sent; another scheme than Bearer comes back whole, and so is malformed."""
    api_key = ""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, rest = value.decode("latin-1").strip().partition(" ")
            return rest.strip() if scheme.lower() == "bearer" else value.decode("latin-1")
        if name == b"x-api-key":
            api_key = value.decode("latin-1").strip()
    return api_key


def _unauthorized(code: str, message: str) -> Refusal:
    return Refusal(401, code, message, headers=_CHALLENGE)
