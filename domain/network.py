"""Where a request comes from, and whether a key may be used from there. An address is never a credential.

peer ── a trusted proxy? ──> the right-most forwarded address that is not one of ours
└─ no ──> the peer itself, whatever it claims
"""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

Network = IPv4Network | IPv6Network

MAX_HOPS = 16
"""Forwarded addresses that are looked at; nobody honest stands behind more proxies."""


def networks_of(ranges: Sequence[str]) -> tuple[Network, ...]:
    """CIDRs or single addresses.

    Raises:
        ValueError: one of them is neither.
    """
    return tuple(ip_network(one, strict=False) for one in ranges)


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """False for what is no address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    mapped = getattr(parsed, "ipv4_mapped", None)
    return any((mapped or parsed) in network for network in networks)


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The client's address.

    Args:
        peer: of the socket.
        forwarded: the values of X-Forwarded-For, in the order of the headers; each may hold several addresses.
        trusted: our own proxies.
    """
    hops = [hop.strip() for value in forwarded for hop in value.split(",")][-MAX_HOPS:]
    address = peer
    while hops and is_within(address, trusted):
        hop = hops.pop()
        if not _is_address(hop):
            return address
        address = hop
    return address


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
