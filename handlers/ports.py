"""The doors through which handlers touch the world, as types; those to providers stand in cloud_ports.py."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol, TypeVar

import msgspec

from domain.ids import DeploymentId, EventId, InstanceId, OrganizationId
from domain.instance_state import Status
from domain.message import Envelope
from domain.ports import Clock, Dispatch, Load
from handlers.cloud_ports import Clouds, LastHeard, Shell, WorkerProbe
from handlers.person_ports import Eraser, FindTraces, OneTimeTokens, OpenCredentials, UpstreamKeyVault, Vault

T = TypeVar("T")


class WorkerSecrets(Protocol):
    """Derives the one-time token with which an instance's agent registers, the same each time it is asked."""

    def bootstrap_token(self, instance_id: str, attempt: int) -> str: ...


class TagSigner(Protocol):
    """Signs a server's tags with this platform's own key: a tag can be forged, its signature cannot."""

    def sign(self, text: str) -> str: ...


class Unsettled(msgspec.Struct, frozen=True):
    """An instance that is not at rest, as the read model knows it."""

    organization: OrganizationId
    instance_id: InstanceId


class ListUnsettled(Protocol):
    """A page of the instances that are not at rest, by id, after the last page's last. Raises OSError: unknown now."""

    async def __call__(self, after: str, /) -> Sequence[Unsettled]: ...


class Owning(msgspec.Struct, frozen=True, kw_only=True):
    """An instance that has not ended, as the read model knows it: it may own a server, and a worker.

    Attributes:
        provider_instance_id: empty while no server is recorded.
        agent_url: empty before its worker registered.
    """

    organization: OrganizationId
    instance_id: InstanceId
    provider: str
    status: Status
    provider_instance_id: str
    agent_url: str


class ListOwning(Protocol):
    """A page of the instances that have not ended, by id, after the last page's last.

    Raises:
        OSError: not known now; with `current` also when the read side is behind the log's head of this moment, or the
            log is shorter than what was read from it: then our records are not to be trusted.
    """

    async def __call__(
        self, after: str, /, *, organization: str = "", provider: str = "", current: bool = False
    ) -> Sequence[Owning]:
        """`organization`, `provider`: "" for all."""
        ...


class ListStanding(Protocol):
    """A page of the deployments that an organisation still wants, as of `position`. Raises OSError: not known now."""

    async def __call__(self, organization: OrganizationId, /, *, position: int) -> Sequence[DeploymentId]: ...


class Waking(msgspec.Struct, frozen=True):
    """Which reaction shall look at which aggregate, without a new event."""

    reaction: str
    organization: OrganizationId
    aggregate: str
    id: str


class Trigger(msgspec.Struct, frozen=True, kw_only=True):
    """What woke a reaction: an aggregate, and its newest known event. The truth is loaded, never read from here.

    Attributes:
        cause: id of that event, for the envelopes of what follows.
        version: of that event; what a refusal has settled.
        attempt: 0, then the number of times in a row that this aggregate asked to be looked at again.
        done: newest version for which an earlier look answered Done. A reaction with a deed of its own for each event
            goes on after it; it may have been forgotten and stand lower, never higher.
    """

    organization: OrganizationId
    aggregate: str
    id: str
    cause: EventId
    correlation: str
    version: int
    attempt: int = 0
    done: int = 0


class History(Protocol):
    """The aggregate's events after a version, oldest first, for a reaction with a deed of its own for each of them.

    Raises:
        OSError: the log cannot be reached.
    """

    async def __call__(self, trigger: Trigger, /, *, after: int) -> Sequence[Envelope]: ...


class Effect(msgspec.Struct, frozen=True, kw_only=True):
    """One deed in the world. No secret and no personal data: it is written down for operators.

    Attributes:
        reaction: whose deed, by name; or a duty's.
        event_id: because of which event; "" when no event is behind it (a duty).
        name: what is done, e.g. "create_server".
        key: tells several of one name apart, e.g. the server's name.
        subject: of the aggregate that it is done for.
    """

    reaction: str
    event_id: str
    name: str
    key: str = ""
    subject: str = ""

    @property
    def idempotency_key(self) -> str:
        """For a receiver that knows such keys: the same at every try of this deed, and of no other."""
        return f"{self.event_id}/{self.reaction}/{self.name}/{self.key}"


Happened = Literal["happened", "not_happened", "unknown"]


class Effects(Protocol):
    """The ledger of deeds: each is written down as intended, done, and written down as done.

    Raises:
        OSError: it is not known whether the deed was done, or the ledger is away: look again later.
    """

    async def once(
        self,
        effect: Effect,
        *,
        act: Callable[[], Awaitable[object]],
        ask: Callable[[], Awaitable[Happened]],
        timeout_s: float,
    ) -> None:
        """Does it exactly once, for a world that would do it twice when told twice. What was refused for good is raised
        once, and never tried again.

        Args:
            effect: which deed.
            act: does it; hand `effect.idempotency_key` on where the receiver takes one.
            ask: looks whether it happened, and is asked only when an earlier try was cut off.
            timeout_s: `act` is given up after it, and what it had sent has no effect later than twice that.
        """
        ...

    async def record(self, effect: Effect, act: Callable[[], Awaitable[T]]) -> T:
        """Writes down what is done and how it ended, and decides nothing: for deeds that the log's intents guard."""
        ...


class AuditStanding(msgspec.Struct, frozen=True, kw_only=True):
    """How far the audit log has come, and how far it is sealed (`sealed_at` None: never), in entries."""

    entries: int
    sealed: int
    sealed_at: datetime | None


class AuditSealer(Protocol):
    """Signs the head of the audit log's tree. Raises OSError when a store is away."""

    async def standing(self) -> AuditStanding: ...

    async def seal(self, entries: int, at: datetime) -> None:
        """Seals the first `entries`, unless they are sealed already; refuses where sealed history has changed."""
        ...


class Mail(msgspec.Struct, frozen=True, kw_only=True):
    """One mail to one person, in plain text.

    Attributes:
        to: e-mail address.
        message_id: the same at every try of this mail, without angle brackets or domain.
    """

    to: str
    subject: str
    text: str
    message_id: str


class MailRefusedError(Exception):
    """This mail will never go out. `code` says why and names nobody, e.g. "smtp_550"."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class MailUnavailableError(OSError):
    """No mail can go out now, or nobody knows whether it did; the message names no person."""


class Mailer(Protocol):
    """Hands mails to a mail server.

    Raises:
        MailRefusedError: for good.
        MailUnavailableError: look again later.
    """

    async def send(self, mail: Mail) -> None: ...

    async def has_sent(self, message_id: str) -> Happened:
        """Whether this mail went out, as far as the receiver can tell."""
        ...


class BootstrapScript(Protocol):
    """The text that makes a host a worker, for `sh`; it may be run again at any time, and then continues."""

    def __call__(self, environment: Mapping[str, str], /) -> str: ...


class HandlerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What handlers tell to others.

    Attributes:
        control_plane_url: where agents reach the API.
        console_url: where people reach the console, for links in mails.
        heartbeat_interval_s: seconds between an agent's heartbeats.
        drain_deadline_s: seconds that running answers get when their deployment stops.
        worker_silent_s: seconds without a heartbeat after which a worker is asked itself.
        tunnel_url: where agents behind NAT reach the relay; empty: at control_plane_url.
    """

    control_plane_url: str
    console_url: str
    heartbeat_interval_s: float
    drain_deadline_s: int
    worker_silent_s: float = 30.0
    tunnel_url: str = ""


@dataclass(frozen=True, kw_only=True)
class Doors:
    """All that a reaction or a duty may touch."""

    dispatch: Dispatch
    load: Load
    clouds: Clouds
    shell: Shell
    bootstrap_script: BootstrapScript
    probe: WorkerProbe
    last_heard: LastHeard
    secrets: WorkerSecrets
    signer: TagSigner
    clock: Clock
    settings: HandlerSettings
    list_unsettled: ListUnsettled
    list_owning: ListOwning
    list_standing: ListStanding
    effects: Effects
    history: History
    sealer: AuditSealer
    mailer: Mailer
    vault: Vault
    tokens: OneTimeTokens
    credentials: OpenCredentials
    upstream_keys: UpstreamKeyVault
    find_traces: FindTraces
    eraser: Eraser
