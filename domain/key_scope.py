"""What an API key may do: never more than whoever made it. Empty and None mean "no restriction of its own".

    scope ──validated──> as it is stored ──compiled──> what a request is held against: refusal_of(compiled, ...)
    is_within(child, parent): whatever `child` allows, `parent` allows too, at any time, from anywhere

The surprising rule: a list that is empty is the widest of all, so under a parent that has one it is refused.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import Literal, get_args

import msgspec
from msgspec.structs import replace

from domain.decider import Rejected
from domain.network import Network, networks_of
from domain.network import is_within as is_address_within
from domain.roles import Role

Endpoint = Literal[
    "models",
    "chat",
    "completions",
    "embeddings",
    "responses",
    "messages",
    "rerank",
    "score",
    "tokenize",
    "audio",
    "images",
    "rest",
]
"""`rest`: the REST API's routes that take keys; the others are the gateway's. `tokenize` goes both ways."""
ENDPOINTS: tuple[Endpoint, ...] = get_args(Endpoint)

ENGINE_PATHS: Mapping[str, Endpoint] = {
    "/v1/chat/completions": "chat",
    "/v1/completions": "completions",
    "/v1/embeddings": "embeddings",
    "/v1/responses": "responses",
    "/v1/messages": "messages",
    "/v1/rerank": "rerank",
    "/v1/score": "score",
    "/tokenize": "tokenize",
    "/v1/audio/transcriptions": "audio",
    "/v1/audio/translations": "audio",
    "/v1/audio/speech": "audio",
    "/v1/images/generations": "images",
}
"""By which of an engine's paths it is known to answer an endpoint."""


def endpoints_of(paths: Iterable[str]) -> tuple[Endpoint, ...]:
    """What an engine answers that has these paths, in the order of ENDPOINTS; paths that we do not know say nothing."""
    found = {ENGINE_PATHS.get(path) for path in paths}
    return tuple(endpoint for endpoint in ENDPOINTS if endpoint in found)


ScopeRefusal = Literal["api_key_expired", "ip_address_not_allowed", "endpoint_not_allowed", "model_not_allowed"]
SENTENCES: Mapping[ScopeRefusal, str] = {
    "api_key_expired": "This API key has expired; make or rotate to one that lasts longer.",
    "ip_address_not_allowed": "This API key may not be used from this address.",
    "endpoint_not_allowed": "This API key may not be used for this endpoint.",
    "model_not_allowed": "This API key may not be used for this model.",
}

MAX_MODELS = 100
MAX_IP_RANGES = 100
MAX_MODEL_LENGTH = 200
MAX_LIMIT = 2**53 - 1
"""The greatest whole number that every JSON reader keeps exact."""

_MAPPED = IPv6Network("::ffff:0:0/96")
"""IPv4 addresses as IPv6 writes them; an address is compared as IPv4, so a range is kept as IPv4 too."""


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


class CompiledScope(msgspec.Struct, frozen=True, kw_only=True):
    """A scope made ready to be asked with every request: addresses parsed, lists as sets. Keep it beside the key."""

    role: Role
    models: frozenset[str]
    endpoints: frozenset[Endpoint]
    networks: tuple[Network, ...]
    expires_at: datetime | None


def compiled(scope: KeyScope) -> CompiledScope:
    """Of a scope that `validated` let through."""
    return CompiledScope(
        role=scope.role,
        models=frozenset(scope.models),
        endpoints=frozenset(scope.endpoints),
        networks=networks_of(scope.ip_ranges),
        expires_at=scope.expires_at,
    )


def refusal_of(
    scope: CompiledScope, *, endpoint: Endpoint, address: str, now: datetime, model: str | None = None
) -> ScopeRefusal | None:
    """Why a request may not be made with a key of this scope; None: it may.

    `address` is the client's; one that is no address fits no range. `model` is a catalogue code or `org_slug/code`, and
    None for a request that names none.
    """
    if scope.expires_at is not None and now >= scope.expires_at:
        return "api_key_expired"
    if scope.networks and not is_address_within(address, scope.networks):
        return "ip_address_not_allowed"
    if scope.endpoints and endpoint not in scope.endpoints:
        return "endpoint_not_allowed"
    if model is not None and scope.models and model not in scope.models:
        return "model_not_allowed"
    return None


def is_role_within(role: Role, limit: Role) -> bool:
    """Whether the role may do no more: user is below manager and admin, which are strangers; owner is above all."""
    return role in (limit, "user") or limit == "owner"


def lesser_role(one: Role, other: Role) -> Role:
    """The greatest role that is within both: what a key may do for an owner who may do less."""
    if is_role_within(one, other):
        return one
    return other if is_role_within(other, one) else "user"


def is_within(child: KeyScope, parent: KeyScope) -> bool:
    """True when everything that `child` allows, `parent` allows too. Both as `validated` leaves them."""
    return (
        is_role_within(child.role, parent.role)
        and _is_list_within(child.models, parent.models)
        and _is_list_within(child.endpoints, parent.endpoints)
        and _are_ranges_within(child.ip_ranges, parent.ip_ranges)
        and _ends_within(child.expires_at, parent.expires_at)
        and all(_is_limit_within(getattr(child, name), getattr(parent, name)) for name in LIMITS)
    )


LIMITS = ("requests_per_minute", "tokens_per_minute", "concurrency", "spend_limit_eur_micros")


def _is_list_within(child: Sequence[str], parent: Sequence[str]) -> bool:
    return not parent or (bool(child) and set(child) <= set(parent))


def _are_ranges_within(child: Sequence[str], parent: Sequence[str]) -> bool:
    """A range may lie across several that border one another: those are joined first."""
    if not parent or not child:
        return not parent
    inner, outer = networks_of(child), networks_of(parent)
    old = list(collapse_addresses(n for n in outer if isinstance(n, IPv4Network)))
    new = list(collapse_addresses(n for n in outer if isinstance(n, IPv6Network)))
    return all(
        any(n.subnet_of(o) for o in old) if isinstance(n, IPv4Network) else any(n.subnet_of(o) for o in new)
        for n in inner
    )


def _ends_within(child: datetime | None, parent: datetime | None) -> bool:
    return parent is None or (child is not None and child <= parent)


def _is_limit_within(child: int | None, parent: int | None) -> bool:
    return parent is None or (child is not None and child <= parent)


def validated(scope: KeyScope, *, at: datetime) -> KeyScope:
    """The scope as it is stored: ranges as networks, nothing twice.

    Raises:
        Rejected: too_many_models, invalid_model_code, too_many_ip_ranges, invalid_ip_range, expiry_in_the_past,
            invalid_limit.
    """
    if scope.expires_at is not None and scope.expires_at <= at:
        raise Rejected("expiry_in_the_past", "A key cannot expire in the past.")
    for name in LIMITS:
        limit = getattr(scope, name)
        if limit is not None and not 0 < limit <= MAX_LIMIT:
            raise Rejected("invalid_limit", f"{name} is a whole number above 0, or null for no limit of its own.")
    return replace(
        scope,
        models=_valid_models(scope.models),
        endpoints=tuple(endpoint for endpoint in ENDPOINTS if endpoint in scope.endpoints),
        ip_ranges=_valid_ranges(scope.ip_ranges),
    )


def _valid_models(models: Sequence[str]) -> tuple[str, ...]:
    if len(models) > MAX_MODELS:
        raise Rejected("too_many_models", f"A key names at most {MAX_MODELS} models.")
    if not all(_is_model_code(model) for model in models):
        raise Rejected("invalid_model_code", "A key names models by their code, or offerings as org_slug/code.")
    return tuple(sorted(set(models)))


def _is_model_code(text: str) -> bool:
    return 0 < len(text) <= MAX_MODEL_LENGTH and text.isprintable() and " " not in text


def _valid_ranges(ranges: Sequence[str]) -> tuple[str, ...]:
    if len(ranges) > MAX_IP_RANGES:
        raise Rejected("too_many_ip_ranges", f"A key names at most {MAX_IP_RANGES} address ranges.")
    networks = [_unmapped(_network(one)) for one in ranges]
    return tuple(dict.fromkeys(str(network) for network in networks))


def _network(text: str) -> Network:
    refused = Rejected("invalid_ip_range", "A range is an address or a CIDR, like 10.0.0.0/8 or 2001:db8::/32.")
    if "%" in text:  # a zone is one machine's own word for one of its wires
        raise refused
    try:
        return networks_of([text.strip()])[0]
    except ValueError:
        raise refused from None


def _unmapped(network: Network) -> Network:
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        address = IPv6Address(network.network_address).ipv4_mapped
        return IPv4Network((str(address), network.prefixlen - _MAPPED.prefixlen))
    return network
