"""Who may pass: an API key, looked up by its SHA-256, and held against its scope; pure and in memory.

    Authorization: Bearer sk-inv-...   or   X-API-Key: sk-inv-...
         └──> known? ──> revoked? ──> operational? ──> expired, address, endpoint? ──> Caller ──> model?
              401         401          403              401, 403, 403                              403

The 401 codes give nothing away: a mistyped key fails its own checksum, and "revoked" is told only to one who holds the
whole secret. No message repeats the key. The surprising rule: two credentials in one request are refused, whatever they
are, since somebody in front of us may have looked at the other one.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from domain.api_key import is_well_formed, key_hash
from domain.entitlement import missing_flags
from domain.key_scope import SENTENCES, Endpoint, refusal_of
from domain.network import Network, client_address
from gateway.http import Headers
from gateway.wire import Refusal
from projections.routing_table import KnownKey, RoutingTable

_CHALLENGE = ((b"www-authenticate", b'Bearer realm="inventiv"'),)
_CREDENTIALS = frozenset({b"authorization", b"x-api-key"})


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a request before its body is read.

    Attributes:
        address: the client's; see address_of.
        now: UTC.
    """

    headers: Headers
    endpoint: Endpoint
    address: str
    now: datetime


def address_of(peer: str, headers: Headers, trusted: Sequence[Network]) -> str:
    """The client's address, as our own proxies tell it."""
    forwarded = [value.decode("latin-1") for name, value in headers if name == b"x-forwarded-for"]
    return client_address(peer, forwarded, trusted)


def admit(asked: Asked, table: RoutingTable) -> KnownKey:
    """The caller's key, good for this endpoint, from this address, at this moment.

    Raises:
        Refusal: 400 multiple_credentials; 401 missing_api_key, malformed_api_key, invalid_api_key, revoked_api_key or
            api_key_expired; 403 api_key_not_operational, ip_address_not_allowed or endpoint_not_allowed.
    """
    presented = _presented(asked.headers)
    if not presented:
        raise _unauthorized("missing_api_key", "Send your API key as `Authorization: Bearer sk-inv-...`.")
    if not is_well_formed(presented):
        raise _unauthorized("malformed_api_key", "This is not an API key of this platform; is a character missing?")
    key_sha256 = key_hash(presented)
    key = table.find_key(key_sha256)
    if key is not None and (key.row.state.revoked or table.is_orphaned(key.row)):
        raise _unauthorized("revoked_api_key", "This API key has been revoked.")
    if key is None or not key.row.state.accepts(key_sha256, asked.now):
        raise _unauthorized("invalid_api_key", "This API key is not known here.")
    if not key.row.state.activation.operational:
        message = f"This API key does not work yet: {missing_flags(key.row.state.activation)}."
        raise Refusal(403, "api_key_not_operational", message)
    _hold_against_scope(key, asked)
    return key


def require_model(key: KnownKey, asked: Asked, model: str) -> None:
    """Nothing, when the key may be used for a model, by the name that the caller used.

    Raises:
        Refusal: 403 model_not_allowed; 401 or 403 as `admit`, when the body took its time.
    """
    _hold_against_scope(key, asked, model)


def _hold_against_scope(key: KnownKey, asked: Asked, model: str | None = None) -> None:
    code = refusal_of(key.scope, endpoint=asked.endpoint, address=asked.address, now=asked.now, model=model)
    if code == "api_key_expired":
        raise _unauthorized(code, SENTENCES[code])
    if code is not None:
        raise Refusal(403, code, SENTENCES[code], param="model" if code == "model_not_allowed" else None)


def _presented(headers: Headers) -> str:
    """The key as sent; another scheme than Bearer comes back whole, and so is malformed.

    Raises:
        Refusal: 400 multiple_credentials.
    """
    sent = [(name, value.decode("latin-1").strip()) for name, value in headers if name in _CREDENTIALS]
    if len(sent) > 1:
        raise Refusal(400, "multiple_credentials", "Send one credential: Authorization or X-API-Key, once.")
    for name, value in sent:
        scheme, _, rest = value.partition(" ")
        return rest.strip() if name == b"authorization" and scheme.lower() == "bearer" else value
    return ""


def _unauthorized(code: str, message: str) -> Refusal:
    return Refusal(401, code, message, headers=_CHALLENGE)
