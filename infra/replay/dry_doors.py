"""Doors through which nothing can be done: what a reaction would do is noted, and nothing else happens.

    load, history ──> the log as it was at a position        dispatch ──> decides, notes the events, appends nothing
    clouds        ──> note the call                          effects  ──> note the deed

There is no way from here to a writer, a provider or a table: the doors are made of a function that reads a subject, and
of lists. The surprising rule: a look ends where the world or the log would have to answer. What follows the first call
of a provider depends on its answer; what follows an event of the aggregate's own is the next event's look.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NoReturn, TypeVar

from domain.decider import Decider
from domain.ids import DeploymentId, EventId, OrganizationId
from domain.message import Context, Envelope, Recorded, subject_of
from domain.ports import Loaded, Receipt
from domain.values import Sealed
from handlers.person_ports import HeldAddress, KeptKey, PersonTraces
from handlers.ports import AuditStanding, Doors, Effect, HandlerSettings, Happened, Mail, Trigger, Unsettled
from infra.clouds import never_heard, no_probe
from infra.events.codec import Codec
from infra.replay.dry_clouds import Deed, DryClouds, DryShell, LookEnds
from infra.replay.history import fold_until

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")
T = TypeVar("T")

ReadSubject = Callable[[str], Awaitable[Sequence[Recorded]]]
"""A literal subject -> all of its messages, oldest first."""

CACHED_SUBJECTS = 2_000
PLACEHOLDER = "rehearsed"


class LogThen:
    """The log as it was at a position, for many positions: each subject is read once."""

    def __init__(self, read: ReadSubject) -> None:
        self._read = read
        self._subjects: OrderedDict[str, Sequence[Recorded]] = OrderedDict()

    async def until(self, subject: str, position: int) -> list[Recorded]:
        if subject not in self._subjects:
            self._subjects[subject] = await self._read(subject)
            if len(self._subjects) > CACHED_SUBJECTS:
                self._subjects.popitem(last=False)
        self._subjects.move_to_end(subject)
        return [recorded for recorded in self._subjects[subject] if recorded.position <= position]


class DryRun:
    """One look of one reaction, at one moment.

    Attributes:
        deeds: what it would have done so far.
    """

    def __init__(self, log: LogThen, codec: Codec, trigger: Trigger, position: int, at: datetime) -> None:
        self.deeds: list[Deed] = []
        self._log = log
        self._codec = codec
        self._subject = subject_of(trigger.organization, trigger.aggregate, trigger.id)
        self._position = position
        self._at = at
        self._decided: dict[str, Loaded[Any]] = {}

    def doors(self, settings: HandlerSettings, providers: Collection[str]) -> Doors:
        return Doors(
            dispatch=self._dispatch,
            load=self._load,
            clouds=DryClouds(self.deeds, providers),
            shell=DryShell(self.deeds),
            bootstrap_script=lambda _environment: PLACEHOLDER,
            probe=no_probe,
            last_heard=never_heard,
            secrets=_Placeholders(),
            signer=_Placeholders(),
            clock=lambda: self._at,
            settings=settings,
            list_unsettled=_none_unsettled,
            list_owning=_owning_is_not_known,
            list_standing=_standing_is_not_known,
            effects=_DryEffects(self.deeds),
            history=self._history,
            sealer=_DrySealer(),
            mailer=_DryMailer(),
            vault=_Placeholders(),
            tokens=_Placeholders(),
            credentials=_no_credentials,
            upstream_keys=_DryUpstreamKeys(),
            find_traces=_no_traces,
            eraser=_DryEraser(),
        )

    async def _load(self, decider: Decider[C, E, S], organization: str, aggregate_id: str) -> Loaded[S]:
        subject = subject_of(organization, decider.aggregate, aggregate_id)
        if subject in self._decided:
            return self._decided[subject]
        events = await self._log.until(subject, self._position)
        moment = fold_until(decider, self._codec.decode_event, events, None)
        return Loaded(moment.state, moment.version, moment.last.position if moment.last else 0)

    async def _dispatch(
        self,
        decider: Decider[C, E, S],
        organization: str,
        aggregate_id: str,
        command: C,
        context: Context,  # noqa: ARG002 - the port's
    ) -> Receipt[E]:
        """Decides as dispatch would; a unique name that is taken is not noticed. Raises Rejected, and LookEnds."""
        loaded = await self._load(decider, organization, aggregate_id)
        events = decider.decide(loaded.state, command, self._at)
        state = loaded.state
        for event in events:
            state = decider.evolve(state, event, self._at)
            self.deeds.append(Deed("event", type(event).__name__, f"{decider.aggregate}/{aggregate_id}"))
        version = loaded.version + len(events)
        subject = subject_of(organization, decider.aggregate, aggregate_id)
        self._decided[subject] = Loaded(state, version, loaded.position)
        if events and subject == self._subject:
            raise LookEnds(asked=False)
        ids = tuple(EventId(f"{PLACEHOLDER}-{version - n}") for n in reversed(range(len(events))))
        return Receipt(loaded.position, version, tuple(events), ids)

    async def _history(self, trigger: Trigger, /, *, after: int) -> Sequence[Envelope]:
        subject = subject_of(trigger.organization, trigger.aggregate, trigger.id)
        events = await self._log.until(subject, self._position)
        return [recorded.envelope for recorded in events if recorded.envelope.version > after]


class _DryEffects:
    def __init__(self, deeds: list[Deed]) -> None:
        self._deeds = deeds

    async def once(
        self,
        effect: Effect,
        *,
        act: Callable[[], Awaitable[object]],  # noqa: ARG002 - the port's; never called, that is the point
        ask: Callable[[], Awaitable[Happened]],  # noqa: ARG002 - the port's
        timeout_s: float,  # noqa: ARG002 - the port's
    ) -> None:
        self._deeds.append(Deed("call", effect.name, effect.key))

    async def record(self, effect: Effect, act: Callable[[], Awaitable[T]]) -> T:  # noqa: ARG002 - never called
        self._deeds.append(Deed("call", effect.name, effect.key))
        raise LookEnds(asked=True)


class _DrySealer:
    async def standing(self) -> AuditStanding:
        raise LookEnds(asked=True)

    async def seal(self, entries: int, at: datetime) -> None:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)


class _DryMailer:
    """Never asked: mails go through the ledger, which notes them and sends none."""

    async def send(self, mail: Mail) -> None:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)

    async def has_sent(self, message_id: str) -> Happened:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)


class _DryUpstreamKeys:
    async def destroy(self, organization: OrganizationId, deployment_id: DeploymentId, /, *, but: str) -> None:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)

    async def list_older(self, after: str, /, *, age_s: float) -> Sequence[KeptKey]:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)

    async def destroy_older(self, credential_id: str, /, *, age_s: float) -> None:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)


class _DryEraser:
    """Never asked: an erasure looks for traces first, and there a rehearsal ends."""

    async def forget_replies(self, user_id: str, words: Sequence[str]) -> None:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)

    async def forget_sign_ins(self, user_id: str) -> None:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)

    async def destroy_keys(self, person_ids: Sequence[str]) -> None:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)

    async def delete_mails(self, addresses: Sequence[HeldAddress]) -> None:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)

    async def scrub(self) -> None:
        raise LookEnds(asked=True)

    async def finish(self, user_id: str) -> None:  # noqa: ARG002 - the port's
        raise LookEnds(asked=True)


class _Placeholders:
    """Secrets and signatures are not needed to see what would be done, so a rehearsal has no key."""

    async def open(self, sealed: Sealed) -> str | None:  # noqa: ARG002 - the port's
        return PLACEHOLDER

    def token(self, kind: str, subject: str) -> str:  # noqa: ARG002 - the port's
        return PLACEHOLDER

    def bootstrap_token(self, instance_id: str, attempt: int) -> str:  # noqa: ARG002 - the port's
        return PLACEHOLDER

    def sign(self, text: str) -> str:  # noqa: ARG002 - the port's
        return PLACEHOLDER


async def _standing_is_not_known(_organization: OrganizationId, /, *, position: int) -> NoReturn:  # noqa: ARG001 - the port's
    """Which deployments stood is in a read model, and those know only today."""
    raise LookEnds(asked=True)


async def _owning_is_not_known(
    _after: str,
    /,
    *,
    organization: str = "",  # noqa: ARG001 - the port's
    provider: str = "",  # noqa: ARG001 - the port's
    current: bool = False,  # noqa: ARG001 - the port's
) -> NoReturn:
    """A read model, and those know only today."""
    raise LookEnds(asked=True)


async def _no_credentials(_organization: OrganizationId, _provider: str, /) -> Mapping[str, str]:
    """What a machine is told of them is no deed, and decides none: the look goes on without."""
    return {}


async def _no_traces(
    _user_id: str,
    _addresses: Sequence[HeldAddress],
    /,
    *,
    position: int,  # noqa: ARG001 - the port's
) -> PersonTraces:
    raise LookEnds(asked=True)


async def _none_unsettled(_after: str) -> Sequence[Unsettled]:
    return ()
