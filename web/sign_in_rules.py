"""How often one may try to sign in: three tallies of failures, and what each of them forbids.

    attempt ──> address:           20 a minute, then wait for the next one
            ──> account+network:   5, then 1 s, 2 s, 4 s ... 15 min between two of them
            ──> account:           100 in a row, then only the reset link helps

An attempt is counted as a failure before its password is looked at, and taken back when it was right: so a hundred at
once are no more than a hundred in a row. The surprising rule: a network from which the account was signed in to lately
does not hear of the third tally, for a stranger elsewhere must not be able to lock the owner out.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import msgspec
from msgspec.structs import replace

MAX_ADDRESS_FAILURES = 20
ADDRESS_WINDOW = timedelta(minutes=1)
FREE_FAILURES = 5
QUIET = timedelta(minutes=15)
"""After so long without a failure, account+network begins anew."""
FIRST_DELAY = timedelta(seconds=1)
MAX_DELAY = timedelta(minutes=15)
MAX_DOUBLINGS = 10
"""2 to that many seconds is over MAX_DELAY; more would leave the range of a timedelta one day."""
MAX_CONSECUTIVE_FAILURES = 100
"""NIST SP 800-63B, 3.2.2: at most 100 on one account."""
KNOWN_FOR = timedelta(days=30)
"""A network counts as the owner's for so long after a login from there."""
IPV4_NETWORK_BITS = 24
IPV6_NETWORK_BITS = 64


@dataclass(frozen=True)
class SignInAttempt:
    """Who tries, as far as it is known before the password is looked at.

    Attributes:
        user_id: None when nobody has that name.
        name: keyed digest of the name that nobody has; "" for a user.
        address: the client's.
    """

    user_id: str | None
    name: str
    address: str


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """Failures of one address, account, or account on one network.

    Attributes:
        failures: since it last began anew.
        in_a_row: since the last success.
        began_at: of the current window.
        failed_at: the last one.
        blocked_until: no attempt before that.
        succeeded_at: the last login.
    """

    failures: int = 0
    in_a_row: int = 0
    began_at: datetime | None = None
    failed_at: datetime | None = None
    blocked_until: datetime | None = None
    succeeded_at: datetime | None = None


class Tallies(msgspec.Struct, frozen=True, kw_only=True):
    """The three that an attempt concerns."""

    address: Tally = Tally()
    account_here: Tally = Tally()
    account: Tally = Tally()


@dataclass(frozen=True)
class Wait:
    """Too many: come again after `seconds` (1 or more)."""

    seconds: int


class ResetNeeded(msgspec.Struct, frozen=True):
    """Only the reset link helps."""


def network_of(address: str) -> str:
    """The /24 or /64 that an address lies in; what is no address stands for itself."""
    parsed = _parsed(address)
    if parsed is None:
        return address
    bits = IPV4_NETWORK_BITS if parsed.version == 4 else IPV6_NETWORK_BITS
    return str(ip_network(f"{parsed}/{bits}", strict=False))


def source_of(address: str) -> str:
    """Who one address is: itself, or its /64, of which one host has all."""
    parsed = _parsed(address)
    return network_of(address) if isinstance(parsed, IPv6Address) else str(parsed or address)


def _parsed(address: str) -> IPv4Address | IPv6Address | None:
    try:
        parsed = ip_address(address)
    except ValueError:
        return None
    return getattr(parsed, "ipv4_mapped", None) or parsed


def admitted(tallies: Tallies, at: datetime) -> Tallies | Wait | ResetNeeded:
    """The tallies with one more failure, to be stored before the password is looked at; or why not to look at it."""
    address, here, account = _current(tallies.address, at), _rested(tallies.account_here, at), tallies.account
    if address.failures >= MAX_ADDRESS_FAILURES and address.began_at is not None:
        return _wait(address.began_at + ADDRESS_WINDOW, at)
    if here.blocked_until is not None and at < here.blocked_until:
        return _wait(here.blocked_until, at)
    if (here if is_known(here, at) else account).in_a_row >= MAX_CONSECUTIVE_FAILURES:
        return ResetNeeded()
    here = _failed(here, at)
    return Tallies(
        address=_failed(address, at),
        account_here=replace(here, blocked_until=_delayed(here.failures, at)),
        account=_failed(account, at),
    )


def taken_back(tallies: Tallies, at: datetime) -> Tallies:
    """After a right password: the failure counted ahead was none, and the account begins anew."""
    return Tallies(
        address=_one_less(tallies.address), account_here=Tally(succeeded_at=at), account=Tally(succeeded_at=at)
    )


def withdrawn(tallies: Tallies) -> Tallies:
    """When nobody looked at the password: as if the attempt had not been, but for a delay that others have earned."""
    here = _one_less(tallies.account_here)
    return Tallies(
        address=_one_less(tallies.address),
        account_here=replace(here, blocked_until=here.blocked_until if here.failures >= FREE_FAILURES else None),
        account=_one_less(tallies.account),
    )


def _one_less(tally: Tally) -> Tally:
    return replace(tally, failures=max(0, tally.failures - 1), in_a_row=max(0, tally.in_a_row - 1))


def counted(address: Tally, at: datetime) -> Tally | Wait:
    """One more request of a kind that is limited by address alone."""
    address = _current(address, at)
    if address.failures >= MAX_ADDRESS_FAILURES and address.began_at is not None:
        return _wait(address.began_at + ADDRESS_WINDOW, at)
    return _failed(address, at)


def is_known(here: Tally, at: datetime) -> bool:
    return here.succeeded_at is not None and at - here.succeeded_at < KNOWN_FOR


def _current(address: Tally, at: datetime) -> Tally:
    over = address.began_at is not None and at - address.began_at >= ADDRESS_WINDOW
    return replace(address, failures=0, began_at=None) if over else address


def _rested(here: Tally, at: datetime) -> Tally:
    """In a row stays: it counts until a login."""
    quiet_since = here.blocked_until or here.failed_at
    over = quiet_since is not None and at - quiet_since >= QUIET
    return replace(here, failures=0, began_at=None, blocked_until=None) if over else here


def _failed(tally: Tally, at: datetime) -> Tally:
    return replace(
        tally,
        failures=tally.failures + 1,
        in_a_row=tally.in_a_row + 1,
        began_at=tally.began_at or at,
        failed_at=at,
    )


def _delayed(failures: int, at: datetime) -> datetime | None:
    if failures < FREE_FAILURES:
        return None
    doublings = min(failures - FREE_FAILURES, MAX_DOUBLINGS)
    delay: timedelta = min(MAX_DELAY, FIRST_DELAY * 2**doublings)
    return at + delay


def _wait(until: datetime, at: datetime) -> Wait:
    """Rounded up: who comes after so many seconds is let through."""
    return Wait(max(1, -(-(until - at) // timedelta(seconds=1))))
