"""Which addresses this platform may call because a customer named them: the public ones, and what its operator allows.

    https://api.example.com ──resolved──> every address public? ──> may be called
    http://10.1.2.3:8000    ──resolved──> listed by the operator? ──> may be called, in clear too

Whoever may name a URL could otherwise reach what only our own machines can: databases on loopback, the cloud's metadata
service. The surprising rule: the answer holds for one connection. A name may mean another address a second later, so
whoever connects asks again.
"""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

import msgspec

from domain.network import Network

MAX_LISTED = 256
"""Entries of an operator's list; it is walked for each new connection."""
MAX_PORT = 65_535
MAX_HOST_LENGTH = 253
MAX_LABEL_LENGTH = 63
"""Both of RFC 1035."""
_HOST_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.")
_SPECIAL = tuple(
    ip_network(block)
    for block in ("192.0.0.0/24", "192.88.99.0/24", "100.64.0.0/10", "2001::/23", "3fff::/20", "5f00::/16", "fec0::/10")
)
"""Registered for special purposes (RFC 6890 and its successors), which not every release of `ipaddress` knows."""
_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))
"""NAT64 (RFC 6052, 8215): the last 32 bits are an IPv4 address that a router on the way may put in their place."""


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the operator's list: a host's name or a network, and a port; `port` 0: any."""

    host: str = ""
    network: Network | None = None
    port: int = 0


class OutboundRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator allows beyond the public internet."""

    listed: tuple[Listed, ...] = ()

    def allows(self, host: str, port: int, address: str, *, encrypted: bool) -> bool:
        """Whether a connection to `address`, found under `host`, may carry a customer's prompts and key.

        Args:
            host: as the URL names it, in lower case.
            port: of the URL.
            address: numeric; what is none is refused.
            encrypted: https; in clear only to what is listed.
        """
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return (encrypted and is_public(parsed)) or any(_matches(one, host, port, parsed) for one in self.listed)


PUBLIC_ONLY = OutboundRules()


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """False for loopback, private, shared, link-local, metadata, multicast and reserved addresses, however wrapped."""
    inner = _inside(address)
    if inner is not None:
        return is_public(inner)
    if any(address in block for block in _SPECIAL):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def rules_of(entries: Iterable[str]) -> OutboundRules:
    """From `10.1.0.0/16`, `127.0.0.1:11434`, `[fd00::5]:8000`, `llm-d.internal` or `llm-d.internal:8000`.

    Raises:
        ValueError: an entry is none of these, or there are more than MAX_LISTED.
    """
    listed = tuple(_listed(entry.strip()) for entry in entries if entry.strip())
    if len(listed) > MAX_LISTED:
        raise ValueError(f"at most {MAX_LISTED} hosts and networks can be listed")
    return OutboundRules(listed=listed)


def _inside(address: IPv4Address | IPv6Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return None
    if any(address in network for network in _TRANSLATED):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _matches(one: Listed, host: str, port: int, address: IPv4Address | IPv6Address) -> bool:
    if one.port not in {0, port}:
        return False
    if one.network is None:
        return one.host == host
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address) in one.network


def _listed(entry: str) -> Listed:
    place, port = _split(entry)
    try:
        return Listed(network=ip_network(place, strict=False), port=port)
    except ValueError:
        pass
    if not is_host_name(place.lower()) or place.replace(".", "").isdigit():
        raise ValueError(f"{entry!r} is neither a host nor a network")
    return Listed(host=place.lower(), port=port)


def _split(entry: str) -> tuple[str, int]:
    """A bare IPv6 address or network holds colons of its own, so its port needs brackets."""
    if entry.startswith("["):
        place, bracket, rest = entry[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError(f"{entry!r} is neither a host nor a network")
        return place, _port(rest[1:], entry) if rest else 0
    place, colon, port = entry.partition(":")
    if not colon or ":" in port:
        return entry, 0
    return place, _port(port, entry)


def _port(text: str, entry: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= MAX_PORT):
        raise ValueError(f"the port of {entry!r} is not between 1 and {MAX_PORT}")
    return int(text)


def is_host_name(text: str) -> bool:
    """A name as DNS has it, in lower case and without the final dot."""
    labels = text.split(".")
    return (
        len(text) <= MAX_HOST_LENGTH
        and set(text) <= _HOST_LETTERS
        and all(0 < len(label) <= MAX_LABEL_LENGTH and not label.startswith("-") for label in labels)
    )
