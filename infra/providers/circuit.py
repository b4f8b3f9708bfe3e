"""A circuit around a Cloud: an account whose provider does not answer is left in peace for a while.

    closed ── FAILURES_TO_OPEN unavailable in a row, or a Retry-After ──> open ── pause over ──> one probe
       ^                                                                   ^                       │   │
       │                                                                   └──── longer pause ─────┘   │
       └─────────────────────────────── any answer, a refusal too ─────────────────────────────────────┘

The first half is pure: states, moments and chance in, states out. The surprising rule: "no" is a healthy answer, and so
is "not yet" (StillBusyError); only silence, nonsense and overload open the circuit. While it is open nothing is asked,
and the answer is what it would be anyway: unknown.
"""

import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from handlers.cloud_ports import (
    Absent,
    Cloud,
    CloudRefusedError,
    CloudUnavailableError,
    Existence,
    Offer,
    Offers,
    Ports,
    Server,
    ServerRequest,
    Unknown,
    Volume,
    Volumes,
)
from infra.providers.calling import StillBusyError

T = TypeVar("T")

FAILURES_TO_OPEN = 5
"""In a row. One instance that is being made asks about this often, so a single hiccup stops nobody."""
FIRST_PAUSE_S = 5.0
LONGEST_PAUSE_S = 60.0
"""Orphans shall be gone within 120 s (the issue's bound), so a provider that came back is noticed well before."""
LONGEST_ASKED_PAUSE_S = 300.0
"""A provider that asks for more is asked once more after this."""


class Circuit(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes: failures in a row; openings in a row; closed while `open_until` is None; probing: one call is out."""

    failures: int = 0
    openings: int = 0
    open_until: float | None = None
    probing: bool = False


def wait_s(circuit: Circuit, now: float) -> float:
    """0: a call may go out. Otherwise the seconds until one may; while a probe is out, the shortest pause."""
    if circuit.open_until is None:
        return 0.0
    if circuit.probing:
        return FIRST_PAUSE_S
    return max(0.0, circuit.open_until - now)


def sent(circuit: Circuit) -> Circuit:
    """A call went out; of an open circuit it is the probe."""
    return circuit if circuit.open_until is None else replace(circuit, probing=True)


def answered(_circuit: Circuit) -> Circuit:
    return Circuit()


def unanswered(circuit: Circuit, now: float, *, chance: float, asked_pause_s: float = 0.0) -> Circuit:
    """No trusted answer came. `chance` in 0..1 spreads the pause over half to all of its length.

    A call that went out before the circuit opened changes nothing: it tells the same trouble again.
    """
    failures = circuit.failures + 1
    if circuit.open_until is not None and not circuit.probing:
        return replace(circuit, failures=failures)
    if not circuit.probing and failures < FAILURES_TO_OPEN and not asked_pause_s:
        return replace(circuit, failures=failures)
    longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(circuit.openings, 16))
    pause_s = max(longest * (0.5 + chance / 2), min(asked_pause_s, LONGEST_ASKED_PAUSE_S))
    return Circuit(failures=failures, openings=circuit.openings + 1, open_until=now + pause_s)


def abandoned(circuit: Circuit) -> Circuit:
    """The caller went away before an answer; another probe may go out."""
    return replace(circuit, probing=False)


class Breaker:
    """Holds one circuit and guards calls with it.

    Args:
        name: of the account, for messages; no secret.
        monotonic: seconds.
        chance: 0..1.
    """

    def __init__(
        self,
        name: str,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._name = name
        self._monotonic = monotonic
        self._chance = chance
        self.circuit = Circuit()

    async def guard(self, call: Callable[[], Awaitable[T]]) -> T:
        """Raises CloudUnavailableError without a call while the circuit is open."""
        pause_s = wait_s(self.circuit, self._monotonic())
        if pause_s:
            text = f"{self._name}: not asked, since its last {self.circuit.failures} calls got no answer"
            raise CloudUnavailableError(text, "transient", pause_s)
        self.circuit, is_over = sent(self.circuit), False
        try:
            answer = await call()
            is_over = True
        except (CloudRefusedError, StillBusyError):
            is_over = True
            self.circuit = answered(self.circuit)
            raise
        except CloudUnavailableError as trouble:
            is_over = True
            self._fail(trouble.retry_after_s)
            raise
        finally:
            if not is_over:
                self.circuit = abandoned(self.circuit)
        if isinstance(answer, Unknown):
            self._fail()
        else:
            self.circuit = answered(self.circuit)
        return answer

    def _fail(self, asked_pause_s: float = 0.0) -> None:
        self.circuit = unanswered(self.circuit, self._monotonic(), chance=self._chance(), asked_pause_s=asked_pause_s)


class CircuitCloud:
    """Implements Cloud, with the traits and abilities of the one within."""

    def __init__(self, cloud: Cloud, breaker: Breaker) -> None:
        self._cloud = cloud
        self._guard = breaker.guard
        self.traits = cloud.traits
        self.volumes: Volumes | None = _GuardedVolumes(cloud.volumes, breaker) if cloud.volumes else None
        self.ports: Ports | None = _GuardedPorts(cloud.ports, breaker) if cloud.ports else None
        self.offers: Offers | None = _GuardedOffers(cloud.offers, breaker) if cloud.offers else None

    async def create_server(self, request: ServerRequest) -> Server:
        return await self._guard(lambda: self._cloud.create_server(request))

    async def start_server(self, provider_instance_id: str) -> None:
        await self._guard(lambda: self._cloud.start_server(provider_instance_id))

    async def stop_server(self, provider_instance_id: str) -> None:
        await self._guard(lambda: self._cloud.stop_server(provider_instance_id))

    async def reinstall_server(self, provider_instance_id: str) -> None:
        await self._guard(lambda: self._cloud.reinstall_server(provider_instance_id))

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:
        """An open circuit is one more reason not to know."""
        find = self._cloud.find_server
        try:
            return await self._guard(lambda: find(name=name, zone=zone, provider_instance_id=provider_instance_id))
        except CloudUnavailableError as trouble:
            return Unknown(str(trouble))

    async def list_servers(self) -> Sequence[Server]:
        return await self._guard(self._cloud.list_servers)

    async def delete_server(self, provider_instance_id: str) -> None:
        await self._guard(lambda: self._cloud.delete_server(provider_instance_id))


class _GuardedVolumes:
    def __init__(self, volumes: Volumes, breaker: Breaker) -> None:
        self._volumes = volumes
        self._guard = breaker.guard

    async def list_volumes(self, provider_instance_id: str) -> Sequence[Volume]:
        return await self._guard(lambda: self._volumes.list_volumes(provider_instance_id))

    async def list_own_volumes(self) -> Sequence[Volume]:
        return await self._guard(self._volumes.list_own_volumes)

    async def find_volume(self, provider_volume_id: str) -> Volume | Absent | Unknown:
        try:
            return await self._guard(lambda: self._volumes.find_volume(provider_volume_id))
        except CloudUnavailableError as trouble:
            return Unknown(str(trouble))

    async def resize_volume(self, provider_volume_id: str, size_gb: int) -> None:
        await self._guard(lambda: self._volumes.resize_volume(provider_volume_id, size_gb))

    async def create_volume(self, *, name: str, zone: str, size_gb: int, tags: Mapping[str, str]) -> Volume:
        create = self._volumes.create_volume
        return await self._guard(lambda: create(name=name, zone=zone, size_gb=size_gb, tags=tags))

    async def attach_volume(self, provider_volume_id: str, provider_instance_id: str) -> None:
        await self._guard(lambda: self._volumes.attach_volume(provider_volume_id, provider_instance_id))

    async def delete_volume(self, provider_volume_id: str) -> None:
        await self._guard(lambda: self._volumes.delete_volume(provider_volume_id))


class _GuardedPorts:
    def __init__(self, ports: Ports, breaker: Breaker) -> None:
        self._ports = ports
        self._guard = breaker.guard

    async def open_ports(self, provider_instance_id: str, ports: Sequence[int]) -> None:
        await self._guard(lambda: self._ports.open_ports(provider_instance_id, ports))


class _GuardedOffers:
    def __init__(self, offers: Offers, breaker: Breaker) -> None:
        self._offers = offers
        self._guard = breaker.guard

    async def list_offers(self) -> Sequence[Offer]:
        return await self._guard(self._offers.list_offers)
