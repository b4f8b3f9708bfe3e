"""A world for reactions: a real dispatcher on a log in memory, a clock that stands still, and a cloud that can fail.

    world = World(); await world.request_instance(); await world.settle(); world.cloud.created == [...]

`fault` strikes one effect: the n-th call of the cloud or of dispatch, before or after it was done. `settle` is what the
runtime does: tells the reaction everything twice, waits as asked, and goes on until nothing is left to do.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from typing import Any, Literal, TypeVar

from msgspec.structs import replace

from domain.aggregates import AGGREGATES
from domain.decider import Decider
from domain.deployment import DEPLOYMENT, Deployment
from domain.ids import DeploymentId, InstanceId, OrganizationId, WorkerId
from domain.instance import INSTANCE
from domain.instance_commands import ObserveWorker, RegisterWorker, RequestInstance
from domain.instance_state import ENDED, Instance
from domain.message import Context, Envelope, subject_of
from domain.ports import Receipt
from domain.values import Sealed
from handlers.advance_instance import advance_instance
from handlers.outcome import Done, Outcome, RetryAfter, outcome_of
from handlers.person_ports import HeldAddress, KeptKey, PersonTraces
from handlers.ports import AuditStanding, Doors, Effect, HandlerSettings, Happened, Mail, Owning, Trigger, Unsettled
from infra.dispatch import Dispatcher
from infra.doors import history_of
from infra.effects import EffectLedger, EffectRow, MemoryEffectRows, State
from infra.events.codec import Codec
from infra.events.memory import MemoryLog
from tests.given import NOON
from tests.handlers.fake_cloud import FakeCloud, FakeShell
from tests.handlers.fixed_clouds import FixedClouds

ACME = OrganizationId("0192aaaa-0000-7000-8000-00000000acme")
INSTANCE_1 = InstanceId("0192aaaa-0000-7000-8000-000000000001")
DEPLOYED = DeploymentId("0192aaaa-0000-7000-8000-0000000de910")
ALICE = Context(actor="user:alice", correlation="the-intent")
MAX_LOOKS = 60

T = TypeVar("T")
C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")
When = Literal["before", "after"]
React = Callable[[Trigger, Doors], Awaitable[Outcome]]


class Killed(BaseException):
    """The process ended on this line."""


@dataclass
class Fault:
    """Strikes once: at the effect with this number, before or after it is done."""

    number: int
    when: When
    error: BaseException


@dataclass
class Effects:
    """Counts every effect and lets the fault strike."""

    fault: Fault | None = None
    names: list[str] = field(default_factory=list)

    async def do(self, name: str, effect: Callable[[], Awaitable[T]]) -> T:
        self.names.append(name)
        fault = self.fault if self.fault is not None and self.fault.number == len(self.names) else None
        if fault is not None and fault.when == "before":
            raise fault.error
        result = await effect()
        if fault is not None:
            raise fault.error
        return result


@dataclass
class FragileRows:
    """The ledger's rows; each change of them is an effect that the fault may strike."""

    effects: Effects
    kept: MemoryEffectRows

    async def intend(self, effect: Effect) -> EffectRow | None:
        return await self.effects.do(f"intend {effect.name}", lambda: self.kept.intend(effect))

    async def intend_again(self, found: EffectRow) -> bool:
        return await self.effects.do(f"intend again {found.effect.name}", lambda: self.kept.intend_again(found))

    async def end(self, effect: Effect, state: State, detail: str) -> None:
        await self.effects.do(f"note {effect.name} {state}", lambda: self.kept.end(effect, state, detail))


class Secrets:
    def bootstrap_token(self, instance_id: str, attempt: int) -> str:
        return f"wb_{instance_id}_{attempt}"


class FakeSealer:
    """An audit log of so many entries; remembers what it sealed."""

    def __init__(self) -> None:
        self.standing_now = AuditStanding(entries=0, sealed=0, sealed_at=None)
        self.sealed: list[int] = []

    async def standing(self) -> AuditStanding:
        return self.standing_now

    async def seal(self, entries: int, at: datetime) -> None:
        self.sealed.append(entries)
        self.standing_now = AuditStanding(entries=entries, sealed=entries, sealed_at=at)


@dataclass
class FakeMailer:
    """A post office; `denies` makes it answer "no" when asked, as SMTP servers do."""

    effects: Effects
    mails: list[Mail] = field(default_factory=list)
    error: Exception | None = None
    denies: bool = False

    async def send(self, mail: Mail) -> None:
        await self.effects.do("send", lambda: self._send(mail))

    async def has_sent(self, message_id: str) -> Happened:
        async def look() -> Happened:
            sent = any(mail.message_id == message_id for mail in self.mails)
            return "happened" if sent and not self.denies else "not_happened"

        return await self.effects.do("ask", look)

    async def _send(self, mail: Mail) -> None:
        if self.error:
            raise self.error
        self.mails.append(mail)


class FakeVault:
    """Sealed text is "<person>:<clear text>"; `forgotten` persons do not open."""

    def __init__(self) -> None:
        self.forgotten: set[str] = set()

    async def open(self, sealed: Sealed) -> str | None:
        person, _, text = sealed.partition(":")
        return None if person in self.forgotten else text


class FakeTokens:
    def token(self, kind: str, subject: str) -> str:
        return f"{kind}-of-{subject}"


@dataclass
class FakeUpstreamKeys:
    """The vault's keys of upstreams: where each belongs, and when it was kept."""

    effects: Effects
    clock: Callable[[], datetime]
    kept: dict[str, tuple[KeptKey, datetime]] = field(default_factory=dict)

    def keep(self, deployment_id: DeploymentId, credential_id: str) -> None:
        self.kept[credential_id] = (KeptKey(ACME, deployment_id, credential_id), self.clock())

    async def destroy(self, organization: OrganizationId, deployment_id: DeploymentId, /, *, but: str) -> None:
        async def destroy() -> None:
            until = self.kept[but][1] if but in self.kept else None
            for name, (key, kept_at) in list(self.kept.items()):
                is_theirs = (key.organization, key.deployment_id) == (organization, deployment_id)
                if is_theirs and name != but and (until is None or kept_at < until):
                    del self.kept[name]

        await self.effects.do("destroy_upstream_keys", destroy)

    async def list_older(self, after: str, /, *, age_s: float) -> Sequence[KeptKey]:
        return sorted(
            (key for name, (key, kept_at) in self.kept.items() if name > after and self._is_old(kept_at, age_s)),
            key=lambda key: key.credential_id,
        )[:2]

    async def destroy_older(self, credential_id: str, /, *, age_s: float) -> None:
        async def destroy() -> None:
            if self._is_old(self.kept[credential_id][1], age_s):
                del self.kept[credential_id]

        await self.effects.do("destroy_older", destroy)

    def _is_old(self, kept_at: datetime, age_s: float) -> bool:
        return self.clock() - kept_at > timedelta(seconds=age_s)


@dataclass
class FakeEraser:
    """Notes its steps; destroying keys makes the vault forget."""

    effects: Effects
    vault: FakeVault
    steps: list[tuple[str, ...]] = field(default_factory=list)

    async def forget_replies(self, user_id: str, words: Sequence[str]) -> None:
        await self._note("forget_replies", user_id, *words)

    async def forget_sign_ins(self, user_id: str) -> None:
        await self._note("forget_sign_ins", user_id)

    async def destroy_keys(self, person_ids: Sequence[str]) -> None:
        await self._note("destroy_keys", *person_ids)
        self.vault.forgotten.update(person_ids)

    async def delete_mails(self, addresses: Sequence[HeldAddress]) -> None:
        await self._note("delete_mails", *(address.email for address in addresses))

    async def scrub(self) -> None:
        await self._note("scrub")

    async def finish(self, user_id: str) -> None:
        await self._note("finish", user_id)

    async def _note(self, *step: str) -> None:
        async def note() -> None:
            self.steps.append(step)

        await self.effects.do(step[0], note)


async def no_credentials(_organization: OrganizationId, _provider: str, /) -> Mapping[str, str]:
    return {}


async def no_traces(_user_id: str, _addresses: Sequence[HeldAddress], /, *, position: int) -> PersonTraces:
    assert position > 0
    return PersonTraces()


class Signer:
    def sign(self, text: str) -> str:
        return f"signed:{text}"


class World:
    def __init__(self, fault: Fault | None = None) -> None:
        self.now = NOON
        self.effects = Effects(fault)
        self.cloud = FakeCloud(self.effects, self.clock)
        self.shell = FakeShell(self.effects)
        self.log = MemoryLog()
        numbers = count(1)
        self.dispatcher = Dispatcher(self.log, Codec(AGGREGATES), self.clock, lambda: f"event-{next(numbers)}")
        self.unsettled: list[Unsettled] = []
        self.records_behind = False
        self.heard: dict[str, datetime] = {}
        self.answering: set[str] = set()
        self.deployments: list[DeploymentId] = []
        self.sealer = FakeSealer()
        self.mailer = FakeMailer(self.effects)
        self.vault = FakeVault()
        self.eraser = FakeEraser(self.effects, self.vault)
        self.upstream_keys = FakeUpstreamKeys(self.effects, self.clock)
        self.ledger = FragileRows(self.effects, MemoryEffectRows(self.clock))
        self.doors = Doors(
            dispatch=self._dispatch,
            load=self.dispatcher.load,
            clouds=FixedClouds({"local": self.cloud}),
            shell=self.shell,
            bootstrap_script=lambda environment: f"install {environment['INSTANCE_ID']}",
            probe=self._probe,
            last_heard=self._last_heard,
            secrets=Secrets(),
            signer=Signer(),
            clock=self.clock,
            settings=HandlerSettings(
                control_plane_url="http://127.0.0.1:8003",
                console_url="https://console.test",
                heartbeat_interval_s=5.0,
                drain_deadline_s=300,
            ),
            list_unsettled=self._list_unsettled,
            list_owning=self._list_owning,
            list_standing=self._list_standing,
            effects=EffectLedger(self.ledger),
            history=history_of(self.log),
            sealer=self.sealer,
            mailer=self.mailer,
            vault=self.vault,
            tokens=FakeTokens(),
            credentials=no_credentials,
            upstream_keys=self.upstream_keys,
            find_traces=no_traces,
            eraser=self.eraser,
        )

    def clock(self) -> datetime:
        return self.now

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    async def command(self, decider: Decider[Any, Any, Any], aggregate_id: str, command: object) -> None:
        """Somebody else's command, e.g. a person's: it is no effect of a reaction."""
        await self.dispatcher(decider, ACME, aggregate_id, command, ALICE)

    async def instance(self, instance_id: str = INSTANCE_1) -> Instance:
        return (await self.dispatcher.load(INSTANCE, ACME, instance_id)).state

    async def deployment(self) -> Deployment:
        return (await self.dispatcher.load(DEPLOYMENT, ACME, DEPLOYED)).state

    async def envelopes(self, aggregate: str = "instance", aggregate_id: str = INSTANCE_1) -> list[Envelope]:
        return [recorded.envelope for recorded in await self.log.read(subject_of(ACME, aggregate, aggregate_id))]

    async def types(self, aggregate: str = "instance", aggregate_id: str = INSTANCE_1) -> list[str]:
        return [envelope.type for envelope in await self.envelopes(aggregate, aggregate_id)]

    async def request_instance(self, **changes: Any) -> None:
        """As `instance_wanted`, with other fields where they are named."""
        await self.command(INSTANCE, INSTANCE_1, replace(instance_wanted(), **changes))

    async def worker_gets_ready(self) -> None:
        await self.command(INSTANCE, INSTANCE_1, WORKER)
        await self.command(INSTANCE, INSTANCE_1, heartbeat(queue_depth=0))

    async def tell(self, react: React, aggregate: str, aggregate_id: str, *, attempt: int = 0) -> Outcome:
        """One look, as the runtime takes it; a process that is killed in it answers nothing and looks again."""
        newest = (await self.envelopes(aggregate, aggregate_id))[-1]
        trigger = Trigger(
            organization=newest.organization,
            aggregate=aggregate,
            id=aggregate_id,
            cause=newest.event_id,
            correlation=newest.correlation,
            version=newest.version,
            attempt=attempt,
        )
        try:
            return await react(trigger, self.doors)
        except Killed:
            return RetryAfter(0.1, "killed")
        except Exception as error:  # noqa: BLE001 - that is the runtime's part
            return outcome_of(error, version=trigger.version, attempt=attempt, own_faults=0)

    async def settle(
        self, react: React = advance_instance, aggregate: str = "instance", aggregate_id: str = INSTANCE_1
    ) -> Outcome:
        """Tells everything twice until nothing is left to do before a deadline far away."""
        attempt = 0
        for _ in range(MAX_LOOKS):
            first = await self.tell(react, aggregate, aggregate_id, attempt=attempt)
            second = await self.tell(react, aggregate, aggregate_id, attempt=attempt)
            match second if isinstance(first, Done) else first:
                case RetryAfter(seconds=seconds):
                    attempt += 1
                    self.later(seconds)
                case Done(again_at=datetime() as again) if again - self.now < timedelta(seconds=60):
                    self.now = again
                case settled:
                    return settled
        raise AssertionError(f"not settled after {MAX_LOOKS} looks")

    async def _dispatch(
        self, decider: Decider[C, E, S], organization: str, aggregate_id: str, command: C, context: Context
    ) -> Receipt[E]:
        return await self.effects.do(
            f"dispatch {type(command).__name__}",
            lambda: self.dispatcher(decider, organization, aggregate_id, command, context),
        )

    async def _list_standing(self, organization: OrganizationId, /, *, position: int) -> Sequence[DeploymentId]:
        """Of those that the test put into `deployments`, one at a time."""
        assert position > 0
        loaded = [(one, await self.dispatcher.load(DEPLOYMENT, organization, one)) for one in self.deployments]
        return [one for one, found in loaded if found.state.request and not found.state.stopped][:1]

    async def _list_owning(
        self, after: str, /, *, organization: str = "", provider: str = "", current: bool = False
    ) -> Sequence[Owning]:
        """What the read model `instances` would show, of the whole log, two at a time."""
        if self.records_behind and current:
            raise ConnectionError("the read side is behind")
        found = []
        for subject in sorted(one for one in self.log._positions if one.startswith("evt.")):
            _, of, aggregate, instance_id = subject.split(".", 3)
            if aggregate == "instance" and instance_id > after and organization in {of, ""}:
                state = (await self.dispatcher.load(INSTANCE, of, instance_id)).state
                found += [_owning(OrganizationId(of), InstanceId(instance_id), state)]
        return [one for one in found if one.status not in ENDED and provider in {one.provider, ""}][:2]

    async def _last_heard(self, _organization: OrganizationId, instance_id: str, /) -> datetime | None:
        return self.heard.get(instance_id)

    async def _probe(self, agent_url: str, /) -> bool:
        return agent_url in self.answering

    async def _list_unsettled(self, after: str) -> Sequence[Unsettled]:
        return [instance for instance in self.unsettled if instance.instance_id > after][:2]


def _owning(organization: OrganizationId, instance_id: InstanceId, state: Instance) -> Owning:
    return Owning(
        organization=organization,
        instance_id=instance_id,
        provider=state.request.provider if state.request else "",
        status=state.status,
        provider_instance_id=state.provider_instance_id,
        agent_url=state.agent_url,
    )


def instance_wanted(*, provider: str = "local", engine: str = "simulated") -> RequestInstance:
    return RequestInstance(
        deployment_id=DEPLOYED,
        ordinal=1,
        model_code="mock-echo-model",
        engine=engine,
        provider=provider,
        zone="local",
        instance_type="mock-local-instance",
        gpu_count=1,
        vram_per_gpu_gb=2,
        price_eur_micros_per_hour=0,
        startup_timeout_s=300,
        activated=("technical", "economic"),
    )


WORKER = RegisterWorker(
    worker_id=WorkerId("worker-1"),
    token_sha256="a" * 64,
    token_prefix="wk_0192aaaa-",
    engine_url="http://127.8.0.1:8000",
    agent_url="http://127.8.0.1:8080",
    agent_version="1.0.0",
    agent_sha256="b" * 64,
)


def heartbeat(*, queue_depth: int) -> ObserveWorker:
    return ObserveWorker(
        status="ready",
        engine_up=True,
        model_loaded=True,
        warmed_up=True,
        queue_depth=queue_depth,
        agent_sha256="b" * 64,
    )
