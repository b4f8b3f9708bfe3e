"""An upstream: somebody else's OpenAI-compatible server that answers for a deployment, in place of rented machines.

    connect ──> connected ──replace key──> ... ──stop (deployment.py)──> its key is destroyed
                    └── technical and economic flag, as everything that works and costs has them

It may be a provider on the internet, or another gateway in front of its own engines. The surprising rule: a refused
wish leaves no event. What was typed as a URL may hold a password, and events are for ever.
"""

import re
from collections.abc import Sequence
from ipaddress import ip_address
from typing import assert_never
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from domain.activation import Activation, Flag, activation_with, with_flag
from domain.decider import Rejected
from domain.ids import derived_id
from domain.model import require_model_code
from domain.outbound import MAX_PORT, is_host_name
from domain.values import Digest

MAX_URL_LENGTH = 2048
MAX_MODEL_LENGTH = 256
BASE_PATH = "/v1"
"""Where an OpenAI-compatible server has its endpoints when its URL names no path."""
IPV6 = 6
_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_DEFAULT_PORTS = {"http": 80, "https": 443}


class ConnectUpstream(msgspec.Struct, frozen=True, kw_only=True):
    """Let `url` answer for `model_code`, under which name the organisation's callers know it.

    Attributes:
        url: as OpenAI's clients take it for `base_url`.
        upstream_model: what the upstream calls the model.
        key_digest: of the key that the vault keeps; "" for an upstream that needs none.
        found: the URL's host has an address.
        allowed: each of its addresses may be called (outbound.py).
        activate: the flags that it has from the beginning, which the caller's role must allow.
    """

    model_code: str
    url: str
    upstream_model: str
    key_digest: Digest
    found: bool
    allowed: bool
    activate: tuple[Flag, ...]


class ReplaceUpstreamKey(msgspec.Struct, frozen=True, kw_only=True):
    """The vault keeps the new one."""

    key_digest: Digest


class ActivateUpstream(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class DeactivateUpstream(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


UpstreamCommand = ConnectUpstream | ReplaceUpstreamKey | ActivateUpstream | DeactivateUpstream


class UpstreamConnected(msgspec.Struct, frozen=True, kw_only=True):
    """`activated`: the flags that it begins with."""

    model_code: str
    url: str
    upstream_model: str
    key_digest: Digest
    activated: tuple[Flag, ...]


class UpstreamKeyReplaced(msgspec.Struct, frozen=True, kw_only=True):
    key_digest: Digest


class UpstreamActivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


class UpstreamDeactivated(msgspec.Struct, frozen=True, kw_only=True):
    flag: Flag


UpstreamEvent = UpstreamConnected | UpstreamKeyReplaced | UpstreamActivated | UpstreamDeactivated


class Upstream(msgspec.Struct, frozen=True, kw_only=True):
    """Part of a deployment's state."""

    model_code: str
    url: str
    upstream_model: str
    key_digest: Digest
    activation: Activation


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a URL leads: `host` in lower case and without brackets; `path` empty, or /a/b without a final slash."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.path or BASE_PATH}"


def credential_id_of(deployment_id: str, key_digest: Digest) -> str:
    """Under which id the vault keeps a deployment's key; another key has another one. "" for none.

    So a key in the vault is never overwritten: until the event is read that names the new one, the old one serves.
    """
    return derived_id(deployment_id, f"upstream_key/{key_digest}") if key_digest else ""


def place_of_url(url: str) -> Place:
    """Where a URL leads that may be an upstream's.

    Raises:
        Rejected: invalid_upstream_url.
    """
    if not (0 < len(url) <= MAX_URL_LENGTH and url.isascii() and url.isprintable()):
        raise _invalid_url(f"A URL has 1 to {MAX_URL_LENGTH} printable ASCII characters.")
    if set(url) & set("@?#\\ "):
        raise _invalid_url("A URL of an upstream has no user, query, fragment or blank; what is secret is its key.")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or ""), parts.port
    except ValueError:
        raise _invalid_url("This is no URL.") from None
    if parts.scheme not in _DEFAULT_PORTS:
        raise _invalid_url("A URL of an upstream begins with https:// (or http://, where the operator allows it).")
    if not (is_host_name(host) or _is_ipv6(host)) or (port is not None and not 1 <= port <= MAX_PORT):
        raise _invalid_url("The URL names no host, or an impossible port.")
    path = parts.path.rstrip("/")
    if not _PATH.fullmatch(path) or {".", ".."} & set(path.split("/")):
        raise _invalid_url("The URL's path has other characters than letters, digits and . _ ~ - /.")
    return Place(scheme=parts.scheme, host=host, port=port or _DEFAULT_PORTS[parts.scheme], path=path)


def evolve(state: Upstream | None, event: UpstreamEvent) -> Upstream | None:
    match event:
        case UpstreamConnected():
            return Upstream(
                model_code=event.model_code,
                url=event.url,
                upstream_model=event.upstream_model,
                key_digest=event.key_digest,
                activation=activation_with(event.activated),
            )
        case _ if state is None:
            return None
        case UpstreamKeyReplaced():
            return replace(state, key_digest=event.key_digest)
        case UpstreamActivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=True))
        case UpstreamDeactivated():
            return replace(state, activation=with_flag(state.activation, event.flag, value=False))
        case _:
            assert_never(event)


def connect(command: ConnectUpstream) -> Sequence[UpstreamEvent]:
    require_model_code(command.model_code)
    model = command.upstream_model
    if not (0 < len(model) <= MAX_MODEL_LENGTH and model.isprintable()):
        message = f"The upstream's name of the model has 1 to {MAX_MODEL_LENGTH} printable characters."
        raise Rejected("invalid_upstream_model", message)
    place = place_of_url(command.url)
    if not command.found:
        raise Rejected("upstream_host_not_found", f"The host {place.host} has no address.")
    if not command.allowed:
        raise Rejected(
            "upstream_address_not_allowed",
            f"{place.host} may not be called: an upstream is on the public internet and speaks https, or the "
            "operator lists it in INVENTIV_UPSTREAM_ALLOW.",
        )
    return [
        UpstreamConnected(
            model_code=command.model_code,
            url=place.url,
            upstream_model=model,
            key_digest=command.key_digest,
            activated=command.activate,
        )
    ]


def change(
    upstream: Upstream, command: ReplaceUpstreamKey | ActivateUpstream | DeactivateUpstream
) -> list[UpstreamEvent]:
    """What follows for a standing upstream."""
    match command:
        case ReplaceUpstreamKey():
            if not command.key_digest:
                message = "Say the new key; an upstream that needs none is connected anew."
                raise Rejected("upstream_key_required", message)
            is_same = upstream.key_digest == command.key_digest
            return [] if is_same else [UpstreamKeyReplaced(key_digest=command.key_digest)]
        case ActivateUpstream():
            return [] if upstream.activation.is_set(command.flag) else [UpstreamActivated(flag=command.flag)]
        case DeactivateUpstream():
            return [UpstreamDeactivated(flag=command.flag)] if upstream.activation.is_set(command.flag) else []
        case _:
            assert_never(command)


def _is_ipv6(host: str) -> bool:
    """Without a zone, which means another wire on each machine."""
    try:
        return "%" not in host and ip_address(host).version == IPV6
    except ValueError:
        return False


def _invalid_url(message: str) -> Rejected:
    return Rejected("invalid_upstream_url", message)
