"""What the web room needs of the world, as types: the ports behind every endpoint.

One frozen `Services` travels through the application; nothing in web/ is global, opens a socket or reads a clock.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import msgspec

from domain.message import Envelope, Recorded
from domain.network import Network
from domain.outbound import PUBLIC_ONLY, OutboundRules
from domain.ports import Clock, Dispatch, Load
from domain.seal import SealKey, StoredSeal
from domain.setting import Value
from domain.telemetry import WorkerSeen
from domain.values import Digest, Sealed
from projections.projection import Read
from web.agent_release import ANY_AGENT, AgentRelease
from web.sign_in_rules import ResetNeeded, SignInAttempt, Wait


class TooManyLoginsError(Exception):
    """The queue of password checks is full; trying again in a second may work."""


class Vault(Protocol):
    """Reads and seals personal data; see infra/vault.py."""

    def digest(self, kind: str, value: str) -> Digest: ...

    async def seal(self, person_id: str, field: str, text: str) -> Sealed:
        """`text` as that person's ciphertext, each time another one."""
        ...

    async def open_all(self, sealed: Sequence[Sealed]) -> list[str | None]: ...

    async def erased_at(self, person_id: str) -> datetime | None:
        """When the last trace of a forgotten person was gone; None until then."""
        ...


class Credentials(Protocol):
    """An organisation's credentials, taken in and never given out again: only handlers can open them."""

    async def set(self, organization_id: str, purpose: str, values: Mapping[str, str]) -> None:
        """Replaces all of that purpose (a provider's code)."""
        ...

    async def remove(self, organization_id: str, purpose: str) -> None: ...

    async def names(self, organization_id: str, purpose: str) -> tuple[str, ...]: ...

    async def account(self, organization_id: str, provider: str) -> str:
        """Which account at the provider they open, no secret; "" where there are none, or they do not tell."""
        ...


class UpstreamKeys(Protocol):
    """Keys of foreign upstreams, taken in and never given out again: only gateways can open them."""

    async def keep(self, organization_id: str, deployment_id: str, credential_id: str, key: str) -> None: ...


class Resolve(Protocol):
    async def __call__(self, host: str, port: int, /) -> Sequence[str]:
        """The host's numeric addresses; none when there is no such host. Raises OSError: nobody can say now."""
        ...


class Passwords(Protocol):
    async def verify(self, user_id: str | None, password: str) -> bool:
        """As slow for no user as for a wrong password. Raises TooManyLoginsError."""
        ...

    async def hashed(self, password: str) -> str:
        """What `keep` takes. Raises TooManyLoginsError."""
        ...

    async def keep(self, user_id: str, hashed: str) -> None:
        """From now on this is the user's password."""
        ...


class SignInLimits(Protocol):
    """Tallies of failures, kept for all web processes together; the rules stand in sign_in_rules.py."""

    async def admit(self, attempt: SignInAttempt, at: datetime) -> Wait | ResetNeeded | None:
        """None: look at the password; the attempt counts as a failure until `succeeded`."""
        ...

    async def succeeded(self, attempt: SignInAttempt, at: datetime) -> None: ...

    async def withdraw(self, attempt: SignInAttempt, at: datetime) -> None:
        """The password was not looked at."""
        ...

    async def count(self, kind: str, address: str, at: datetime) -> Wait | None:
        """For requests that are limited by their address alone; one tally for each `kind`."""
        ...

    async def clear(self, user_id: str) -> None:
        """The account begins anew, on every network: its owner proved to read its mails."""
        ...


class SessionUses(Protocol):
    """When sessions were last used; a cache that may be a minute behind."""

    def note(self, session_id: str, user_id: str, at: datetime) -> None:
        """At once, without I/O."""
        ...

    async def last_used(self, session_ids: Sequence[str]) -> Mapping[str, datetime]: ...


class WorkerTokens(Protocol):
    def bootstrap_attempt(self, instance_id: str, token: str) -> int | None:
        """The attempt that the bootstrap token belongs to; None when it is not this instance's."""
        ...


class OneTimeTokens(Protocol):
    """Tokens that mails carry. Derived from the master key, so the handler that sends the mail derives it again."""

    def token(self, kind: str, subject: str) -> str:
        """32 letters and digits; the same for the same `kind` ("invitation", "password_reset") and `subject`."""
        ...


class Log(Protocol):
    """The part of the event log that live updates and resumed requests read."""

    async def read(self, subject: str, *, after: int = 0) -> list[Recorded]: ...

    async def head(self) -> int: ...

    def follow(
        self, *, after: int, subjects: Sequence[str] = (), batch: int = 500
    ) -> AbstractAsyncContextManager[AsyncIterator[Sequence[Recorded]]]: ...


class Telemetry(Protocol):
    async def publish(self, seen: WorkerSeen) -> None:
        """Hands a heartbeat on; one lost is one sample less. Raises OSError when the stream is away."""
        ...


class KeptReply(msgspec.Struct, frozen=True, kw_only=True):
    """A finished reply as it is replayed; header names in lower case."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Claimed(msgspec.Struct, frozen=True, kw_only=True):
    """The request may run.

    Attributes:
        seed: 32 random bytes, the same at every attempt; ids and secrets are drawn from it.
        at: when the key was first used; also the same at every attempt.
        resumed: an earlier attempt began and left no reply: part of its effect may be there already.
    """

    seed: bytes
    at: datetime
    resumed: bool


class InFlight(msgspec.Struct, frozen=True):
    """An attempt is running, or died less than a lease ago."""


class KeyReused(msgspec.Struct, frozen=True):
    """The key was used for another request."""


class Idempotency(Protocol):
    """Remembers each Idempotency-Key of a principal: its seed before anything is done, its reply at the end."""

    async def claim(
        self, principal: str, key: str, request: bytes, at: datetime
    ) -> Claimed | KeptReply | InFlight | KeyReused: ...

    async def finish(self, principal: str, key: str, reply: KeptReply) -> None: ...

    async def release(self, principal: str, key: str, *, untouched: bool) -> None:
        """The attempt ended without a reply worth keeping: the next one may run at once, from the same seed.

        `untouched`: nothing can have been done, so the key is forgotten altogether.
        """
        ...


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """Work that a reaction gave up on."""

    id: str
    reaction: str
    aggregate: str
    aggregate_id: str
    organization: str
    position: int
    event_id: str
    reason: str
    attempts: int
    parked_at: datetime


class Parking(Protocol):
    """Work that handlers gave up on. Raises OSError when the store is away; False for an unknown id."""

    async def list(self) -> Sequence[Parked]: ...

    async def retry(self, parked_id: str) -> bool: ...

    async def skip(self, parked_id: str) -> bool: ...


class Seals(Protocol):
    """The audit log's seals and the keys that sign them. Raises OSError when the stream is away."""

    async def latest(self) -> StoredSeal | None: ...

    async def page(self, *, after: int = 0, limit: int = 500) -> Sequence[StoredSeal]:
        """The next ones after a number, oldest first."""
        ...

    async def keys(self) -> Sequence[SealKey]: ...


class FieldChange(msgspec.Struct, frozen=True, kw_only=True):
    """`field`: dotted path within an aggregate's state; values as JSON would hold them, None where it was not there."""

    field: str
    before: Any
    after: Any


class FoldedState(msgspec.Struct, frozen=True, kw_only=True):
    """An aggregate after the event at `position`; `fields` is its state as JSON would hold it."""

    version: int
    position: int
    fields: Mapping[str, Any]


class UnreadableHistoryError(Exception):
    """Events that this release does not know, or not all of an aggregate's events."""


class Histories(Protocol):
    """Folds stored events with today's laws, and reads nothing. Every method raises UnreadableHistoryError."""

    def event(self, envelope: Envelope) -> Any:
        """The domain's struct, lifted to its shape of today."""
        ...

    def state(self, aggregate: str, events: Iterable[Recorded], until: int | datetime | None) -> FoldedState | None:
        """As it was at a position or a time (both inclusive; None: after all); None before its first event.

        `events`: all of the aggregate, oldest first.
        """
        ...

    def changes(
        self, aggregate: str, events: Sequence[Recorded], wanted: Collection[int]
    ) -> Mapping[int, Sequence[FieldChange]]:
        """What each of the events at the wanted positions changed.

        `events`: all of the aggregate up to the last wanted one, oldest first.
        """
        ...


class ReadModelProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a read model has read its stream.

    Attributes:
        position: of the last message that its rows know of.
        updated_at: when it last moved.
        built_percent: below 100, readers are asked to come back.
    """

    name: str
    stream: str
    position: int
    updated_at: datetime
    built_percent: int


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`heads`: stream -> position of its newest message."""

    heads: Mapping[str, int] = {}
    read_models: Sequence[ReadModelProgress] = ()


async def _no_progress() -> Progress:
    return Progress()


@dataclass(frozen=True)
class Settings:
    """Units as the names say; `token_key` signs sign-in tokens (32 bytes)."""

    token_key: bytes = field(repr=False)
    session_ttl_s: int = 43_200
    cookie_secure: bool = False
    heartbeat_interval_s: float = 5.0
    drain_deadline_s: int = 300
    version: str = "0"
    build_time: str = ""
    trusted_proxies: tuple[Network, ...] = ()
    outbound: OutboundRules = PUBLIC_ONLY
    host_networks: tuple[Network, ...] = ()
    """Of which loopback and link-local addresses hosts may be enrolled."""
    min_password_length: int = 15
    console_url: str = ""
    """Where mails point to; empty: the API's own address."""
    defaults: Mapping[str, Value] = field(default_factory=dict)
    """What this process's environment says of settings (domain/setting.py)."""
    data_volume_gb: int = 0
    """Of every rented machine's disk, whatever else is known; 0: as models and organisations say."""
    agent: AgentRelease = ANY_AGENT
    worker_token_ttl_s: int = 86_400
    tunnel_url: str = ""
    """Where gateways reach the relay of tunnels; empty: there is none."""


@dataclass(frozen=True)
class Services:
    """Ports of one web process.

    Attributes:
        chance: n -> n random bytes.
        checks: name -> raises OSError while that dependency is away; for /readyz.
        progress: how far streams and read models are, for /metrics; raises OSError.
    """

    dispatch: Dispatch
    load: Load
    read: Read
    log: Log
    vault: Vault
    passwords: Passwords
    sign_in_limits: SignInLimits
    session_uses: SessionUses
    worker_tokens: WorkerTokens
    one_time_tokens: OneTimeTokens
    credentials: Credentials
    upstream_keys: UpstreamKeys
    resolve: Resolve
    idempotency: Idempotency
    telemetry: Telemetry
    parking: Parking
    seals: Seals
    histories: Histories
    clock: Clock
    chance: Callable[[int], bytes]
    settings: Settings
    checks: Mapping[str, Callable[[], Awaitable[object]]] = field(default_factory=dict)
    progress: Callable[[], Awaitable[Progress]] = _no_progress
