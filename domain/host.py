"""A machine that an organisation owns and lends to the platform: a server of the provider `bare_metal`.

    enrol ──> enrolled ──change──> ... ──withdraw──> withdrawn ──enrol──> enrolled

Slots are weekly windows (UTC) in which it may serve; none means always. The surprising rule: who holds a host stands on
the host itself (infra/providers/bare_metal.py), not here, so that two platforms can never both take it.
"""

import math
import re
from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import NewType, assert_never

import msgspec

from domain.decider import Decider, Rejected
from domain.ids import OrganizationId, derived_id

HostId = NewType("HostId", str)

PROVIDER = "bare_metal"
DEFAULT_ZONE = "default"
DAYS = 7
DAY_MINUTES = 1_440
WEEK_S = DAYS * DAY_MINUTES * 60
MAX_SLOTS = 64
MAX_GPUS = 64
MAX_VRAM_GB = 4_096
MAX_CPUS = 4_096
MAX_RAM_GB = 65_536
MAX_PRICE_EUR_MICROS = 10_000_000_000
"""10,000 EUR an hour."""
MAX_PORT = 65_535
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_FINGERPRINT = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """A weekly window in UTC; `day` 0 is Monday, minutes count from midnight, 1440 is the next midnight."""

    day: int
    start_minute: int
    end_minute: int


class HostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What its owner says of a host.

    Attributes:
        name: what people call it.
        zone: a label of the owner's, e.g. a room; part of what a deployment asks for.
        host_key_fingerprint: "SHA256:...", as its owner confirmed it; another key is never spoken to.
        cpu_count, ram_gb: 0 when its owner does not say.
        price_eur_micros_per_hour: what an hour costs its owner, for the books.
        slots: when it may serve; empty: always.
    """

    name: str
    zone: str = DEFAULT_ZONE
    ssh_user: str = "root"
    host_key_fingerprint: str
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int = 0
    ram_gb: int = 0
    price_eur_micros_per_hour: int = 0
    slots: tuple[Slot, ...] = ()

    @property
    def instance_type(self) -> str:
        return f"host:{self.gpu_count}x{self.vram_per_gpu_gb}"


class EnrolHost(msgspec.Struct, frozen=True, kw_only=True):
    """`allowed`: the operator lets organisations enrol hosts at this address."""

    address: str
    ssh_port: int
    facts: HostFacts
    allowed: bool


class ChangeHost(msgspec.Struct, frozen=True, kw_only=True):
    facts: HostFacts


class WithdrawHost(msgspec.Struct, frozen=True, kw_only=True):
    """`serves`: an instance that has not ended is on it."""

    serves: bool


HostCommand = EnrolHost | ChangeHost | WithdrawHost


class HostEnrolled(msgspec.Struct, frozen=True, kw_only=True):
    address: str
    ssh_port: int
    facts: HostFacts


class HostChanged(msgspec.Struct, frozen=True, kw_only=True):
    facts: HostFacts


class HostWithdrawn(msgspec.Struct, frozen=True, kw_only=True):
    pass


HostEvent = HostEnrolled | HostChanged | HostWithdrawn


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """`facts` is None while it is not enrolled."""

    address: str = ""
    ssh_port: int = 0
    facts: HostFacts | None = None


def host_id_of(organization_id: OrganizationId, address: str, ssh_port: int) -> HostId:
    """One host for an address and port of an organisation."""
    return HostId(derived_id(organization_id, f"host/{address}/{ssh_port}"))


def open_for_s(slots: Sequence[Slot], at: datetime) -> float:
    """For how many seconds from `at` (UTC) a host may still serve: 0 outside its slots, infinite without slots.

    Slots that touch or overlap count as one, over the end of the week too.
    """
    if not slots:
        return math.inf
    start = at.weekday() * DAY_MINUTES * 60 + at.hour * 3600 + at.minute * 60 + at.second + at.microsecond / 1e6
    reached, windows = start, sorted(_week_seconds(slot) for slot in slots)
    for week in (0, WEEK_S, 2 * WEEK_S):
        for opens, closes in windows:
            if opens + week <= reached < closes + week:
                reached = float(closes + week)
    return math.inf if reached - start >= WEEK_S else reached - start


def _week_seconds(slot: Slot) -> tuple[int, int]:
    midnight = slot.day * DAY_MINUTES
    return (midnight + slot.start_minute) * 60, (midnight + slot.end_minute) * 60


def evolve(state: Host, event: HostEvent, _at: datetime) -> Host:
    match event:
        case HostEnrolled():
            return Host(address=event.address, ssh_port=event.ssh_port, facts=event.facts)
        case HostChanged():
            return Host(address=state.address, ssh_port=state.ssh_port, facts=event.facts)
        case HostWithdrawn():
            return Host(address=state.address, ssh_port=state.ssh_port)
        case _:
            assert_never(event)


def decide(state: Host, command: HostCommand, _at: datetime) -> Sequence[HostEvent]:
    match command:
        case EnrolHost():
            return _enrol(state, command)
        case ChangeHost():
            return _change(state, command)
        case WithdrawHost():
            return _withdraw(state, command)
        case _:
            assert_never(command)


def _enrol(state: Host, command: EnrolHost) -> Sequence[HostEvent]:
    _require_address(command)
    _require_facts(command.facts)
    if state.facts == command.facts:
        return []
    if state.facts is not None:
        message = f"{command.address} is enrolled already, as {state.facts.name}; change it instead."
        raise Rejected("host_already_enrolled", message)
    return [HostEnrolled(address=command.address, ssh_port=command.ssh_port, facts=command.facts)]


def _change(state: Host, command: ChangeHost) -> Sequence[HostEvent]:
    if state.facts is None:
        raise Rejected("host_not_found", "There is no such host.")
    _require_facts(command.facts)
    return [] if state.facts == command.facts else [HostChanged(facts=command.facts)]


def _withdraw(state: Host, command: WithdrawHost) -> Sequence[HostEvent]:
    if state.facts is None:
        return []
    if command.serves:
        raise Rejected("host_serves", "An instance runs on this host; terminate it first.")
    return [HostWithdrawn()]


def _require_address(command: EnrolHost) -> None:
    try:
        address = ip_address(command.address)
    except ValueError:
        raise _invalid("A host's address is an IP address.") from None
    odd = getattr(address, "ipv4_mapped", None) is not None or "%" in command.address
    if odd or str(address) != command.address or address.is_unspecified or address.is_multicast:
        raise _invalid("This is no address that one machine can have, or not its usual spelling.")
    if not 1 <= command.ssh_port <= MAX_PORT:
        raise _invalid(f"A port is 1 to {MAX_PORT}.")
    if not command.allowed:
        message = f"The operator of this platform lets nobody enrol {command.address} (INVENTIV_HOST_ALLOW)."
        raise Rejected("host_address_not_allowed", message)


def _require_facts(facts: HostFacts) -> None:
    if not _NAME.fullmatch(facts.name) or not _NAME.fullmatch(facts.zone):
        raise _invalid("A host's name and zone have lower-case letters, digits, dots and hyphens, at most 63.")
    if not _USER.fullmatch(facts.ssh_user):
        raise _invalid("This is no name of a user on a host.")
    if not _FINGERPRINT.fullmatch(facts.host_key_fingerprint):
        raise _invalid("A host key's fingerprint looks like SHA256: and 43 letters, as ssh-keygen -l shows it.")
    if not (0 <= facts.gpu_count <= MAX_GPUS and 0 <= facts.vram_per_gpu_gb <= MAX_VRAM_GB):
        raise _invalid(f"A host has 0 to {MAX_GPUS} GPUs of 0 to {MAX_VRAM_GB} GB.")
    if not (0 <= facts.cpu_count <= MAX_CPUS and 0 <= facts.ram_gb <= MAX_RAM_GB):
        raise _invalid(f"A host has 0 to {MAX_CPUS} CPUs and 0 to {MAX_RAM_GB} GB of memory.")
    if not 0 <= facts.price_eur_micros_per_hour <= MAX_PRICE_EUR_MICROS:
        raise _invalid("An hour costs 0 to 10,000 EUR.")
    _require_slots(facts.slots)


def _require_slots(slots: Sequence[Slot]) -> None:
    if len(slots) > MAX_SLOTS:
        raise _invalid(f"A host has at most {MAX_SLOTS} slots.")
    for slot in slots:
        if not (0 <= slot.day < DAYS and 0 <= slot.start_minute < slot.end_minute <= DAY_MINUTES):
            raise _invalid("A slot is a day (0 is Monday) and minutes of it (0 to 1440), its start before its end.")


def _invalid(message: str) -> Rejected:
    return Rejected("invalid_host", message)


HOST: Decider[HostCommand, HostEvent, Host] = Decider(
    aggregate="host",
    events=(HostEnrolled, HostChanged, HostWithdrawn),
    initial=Host(),
    state_type=Host,
    evolve=evolve,
    decide=decide,
)
