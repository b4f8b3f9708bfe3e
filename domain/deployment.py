"""A deployment: a public model code wanted N times. It is a wish; instances are how it comes true.

RequestDeployment ──> DeploymentRequested ──> handler requests instances 1..N (their ids derive from ours)
                 └──> DeploymentRequested + DeploymentRefused(code)   every refusal is on record, with SPEC's code
ConnectUpstream   ──> UpstreamConnected       somebody else's server answers, and there are no instances (upstream.py)
"""

from collections.abc import Sequence
from datetime import datetime
from typing import ClassVar, Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain import upstream
from domain.activation import Flag
from domain.catalogue import InstanceType
from domain.decider import Decider, Rejected
from domain.ids import DeploymentId, InstanceId, derived_id
from domain.model import ModelListed
from domain.place import Place
from domain.planning import LOCAL, fit, served_context_tokens
from domain.upstream import (
    ActivateUpstream,
    ConnectUpstream,
    DeactivateUpstream,
    ReplaceUpstreamKey,
    Upstream,
    UpstreamActivated,
    UpstreamConnected,
    UpstreamDeactivated,
    UpstreamKeyReplaced,
)
from domain.values import Refusal

Engine = Literal["simulated", "vllm"]
MAX_INSTANCES = 64
"""Most instances in one deployment; a slip of the keyboard should not rent a data centre."""
MAX_ALTERNATIVES = 8
"""Places that one wish may name besides its first."""
SIMULATED_MODEL = "mock-echo-model"


class NamedPlace(msgspec.Struct, frozen=True, kw_only=True):
    """A further place of a wish as it was named, and what is offered there; see RequestDeployment."""

    zone: str
    instance_type: str
    zone_known: bool
    offer: InstanceType | None
    offered_in_zone: bool


class RequestDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted, and what is known about it.

    Attributes:
        provider_known, zone_known: tell an unknown provider from an unknown zone or type.
        offer: the type as it is offered; None: unknown or inactive. A price of None is refused.
        activate: the flags that its instances have from the beginning, which the caller's role must allow.
        alternatives: where else the same provider may be asked, in this order, when it has none left.
        disk_gb: wanted size of the boot volumes; 0 leaves it to the provider.
        context_tokens: that the engines shall serve; 0: as much as the model was listed with.
        credentials_missing: names of what the organisation's account still lacks.
    """

    model_code: str
    instances: int
    engine: Engine
    provider: str
    zone: str
    instance_type: str
    startup_timeout_s: int
    provider_known: bool
    zone_known: bool
    model: ModelListed | None
    offer: InstanceType | None
    offered_in_zone: bool
    activate: tuple[Flag, ...]
    alternatives: tuple[NamedPlace, ...] = ()
    disk_gb: int = 0
    context_tokens: int = 0
    credentials_missing: tuple[str, ...] = ()

    @property
    def places(self) -> tuple[NamedPlace, ...]:
        """In the order in which they are asked."""
        first = NamedPlace(
            zone=self.zone,
            instance_type=self.instance_type,
            zone_known=self.zone_known,
            offer=self.offer,
            offered_in_zone=self.offered_in_zone,
        )
        return (first, *self.alternatives)


class StopDeployment(msgspec.Struct, frozen=True):
    pass


DeploymentCommand = (
    RequestDeployment | ConnectUpstream | ReplaceUpstreamKey | ActivateUpstream | DeactivateUpstream | StopDeployment
)


class DeploymentRequested(msgspec.Struct, frozen=True, kw_only=True):
    """What its instances begin with.

    Attributes:
        activated: the flags that they have.
        alternatives: where else each may be rented, in this order, when the place that it names has none left.
        disk_gb: wanted size of their boot volumes; 0 leaves it to the provider.
        context_tokens: that their engines are told to serve; 0 leaves it to the engine.
    """

    SCHEMA: ClassVar[int] = 3

    model_code: str
    instances: int
    engine: Engine
    provider: str
    zone: str
    instance_type: str
    gpu_count: int
    vram_per_gpu_gb: int
    price_eur_micros_per_hour: int
    startup_timeout_s: int
    activated: tuple[Flag, ...]
    alternatives: tuple[Place, ...] = ()
    disk_gb: int = 0
    context_tokens: int = 0


class DeploymentRefused(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    message: str


class DeploymentStopped(msgspec.Struct, frozen=True):
    pass


DeploymentEvent = (
    DeploymentRequested
    | DeploymentRefused
    | DeploymentStopped
    | UpstreamConnected
    | UpstreamKeyReplaced
    | UpstreamActivated
    | UpstreamDeactivated
)


class Deployment(msgspec.Struct, frozen=True, kw_only=True):
    """Wants machines (`request`) or has an upstream; never both."""

    request: DeploymentRequested | None = None
    refusal: Refusal | None = None
    stopped: bool = False
    upstream: Upstream | None = None

    @property
    def standing_upstream(self) -> Upstream | None:
        """None once it was stopped, too."""
        return None if self.stopped else self.upstream


def instance_ids(deployment_id: DeploymentId, instances: int) -> tuple[InstanceId, ...]:
    """Ids of a deployment's instances 1..N: always the same, so that asking for them twice asks for them once."""
    return tuple(InstanceId(derived_id(deployment_id, f"instance/{n}")) for n in range(1, instances + 1))


def evolve(state: Deployment, event: DeploymentEvent, _at: datetime) -> Deployment:
    match event:
        case DeploymentRequested():
            return replace(state, request=event)
        case DeploymentRefused():
            return replace(state, refusal=Refusal(event.code, event.message))
        case DeploymentStopped():
            return replace(state, stopped=True)
        case UpstreamConnected() | UpstreamKeyReplaced() | UpstreamActivated() | UpstreamDeactivated():
            return replace(state, upstream=upstream.evolve(state.upstream, event))
        case _:
            assert_never(event)


def decide(state: Deployment, command: DeploymentCommand, _at: datetime) -> Sequence[DeploymentEvent]:
    match command:
        case RequestDeployment():
            return _request(state, command)
        case ConnectUpstream():
            return [] if _begun(state) else upstream.connect(command)
        case ReplaceUpstreamKey() | ActivateUpstream() | DeactivateUpstream():
            return upstream.change(_standing_upstream(state), command)
        case StopDeployment():
            _require_begun(state)
            return [] if state.stopped or state.refusal else [DeploymentStopped()]
        case _:
            assert_never(command)


def _begun(state: Deployment) -> bool:
    return state.request is not None or state.upstream is not None


def _require_begun(state: Deployment) -> None:
    if not _begun(state):
        raise Rejected("deployment_not_found", "There is no deployment with this id.")


def _standing_upstream(state: Deployment) -> Upstream:
    _require_begun(state)
    if state.upstream is None:
        raise Rejected("deployment_has_no_upstream", "This deployment runs on machines; it has no upstream.")
    if state.stopped:
        raise Rejected("deployment_stopped", "This deployment was stopped; its upstream's key is destroyed.")
    return state.upstream


def _request(state: Deployment, command: RequestDeployment) -> Sequence[DeploymentEvent]:
    if _begun(state):
        return []
    refusal = refusal_of(command)
    first, *others = (_place(named) for named in command.places)
    requested = DeploymentRequested(
        model_code=command.model_code,
        instances=command.instances,
        engine=command.engine,
        provider=command.provider,
        zone=command.zone,
        instance_type=command.instance_type,
        gpu_count=first.gpu_count,
        vram_per_gpu_gb=first.vram_per_gpu_gb,
        price_eur_micros_per_hour=first.price_eur_micros_per_hour,
        startup_timeout_s=command.startup_timeout_s,
        activated=command.activate,
        alternatives=tuple(others),
        disk_gb=command.disk_gb,
        context_tokens=_served_context_tokens(command),
    )
    return [requested, DeploymentRefused(code=refusal.code, message=refusal.message)] if refusal else [requested]


def _served_context_tokens(command: RequestDeployment) -> int:
    """0 where nothing is planned: the simulated engine has its own, and so has the one that is prepared on `local`."""
    if command.model is None or command.engine == "simulated" or command.provider == LOCAL:
        return 0
    return served_context_tokens(command.model, asked=command.context_tokens)


def _place(named: NamedPlace) -> Place:
    """Zeroes where nothing is known, which is refused."""
    offer = named.offer
    return Place(
        zone=named.zone,
        instance_type=named.instance_type,
        gpu_count=offer.gpu_count if offer else 0,
        vram_per_gpu_gb=offer.vram_per_gpu_gb if offer else 0,
        price_eur_micros_per_hour=(offer.price_eur_micros_per_hour or 0) if offer else 0,
    )


def refusal_of(command: RequestDeployment) -> Refusal | None:
    """The first reason why this cannot be deployed, with SPEC 1.6's codes; None when it can."""
    if not command.model_code:
        return Refusal("MISSING_MODEL", "Name the model to deploy; `inventiv model ls` lists them.")
    if not (command.provider and all(named.zone and named.instance_type for named in command.places)):
        return Refusal("MISSING_PARAMS", "Provider, zone and instance type are needed.")
    if not 1 <= command.instances <= MAX_INSTANCES:
        return Refusal("MISSING_PARAMS", f"Between 1 and {MAX_INSTANCES} instances can be deployed at once.")
    if len(command.alternatives) > MAX_ALTERNATIVES:
        return Refusal("MISSING_PARAMS", f"At most {MAX_ALTERNATIVES} further places can be named.")
    if not command.provider_known:
        return Refusal("INVALID_PROVIDER", f"Provider {command.provider} is unknown or inactive.")
    for named in command.places:
        if refusal := _not_offered(command.provider, named):
            return refusal
    if command.model is None:
        return Refusal("INVALID_MODEL", f"Model {command.model_code} is not in the catalogue; see `inventiv model ls`.")
    for named in command.places:
        if named.offer is not None and (refusal := _misfit(command, command.model, named.offer)):
            return refusal
    if command.credentials_missing:
        missing = ", ".join(command.credentials_missing)
        cure = f"`inventiv provider credentials {command.provider}` takes them."
        return Refusal("MISSING_PROVIDER_CREDENTIALS", f"The account at {command.provider} lacks {missing}; {cure}")
    return None


def _not_offered(provider: str, named: NamedPlace) -> Refusal | None:
    if not named.zone_known:
        return Refusal("INVALID_ZONE", f"Provider {provider} has no active zone {named.zone}.")
    if named.offer is None:
        return Refusal("INVALID_INSTANCE_TYPE", f"Instance type {named.instance_type} is unknown or inactive.")
    if not named.offered_in_zone:
        return Refusal("INSTANCE_TYPE_NOT_AVAILABLE_IN_ZONE", f"{named.instance_type} is not offered in {named.zone}.")
    if named.offer.price_eur_micros_per_hour is None:
        message = f"Nobody knows what an hour of {named.instance_type} costs in EUR; say it with price_eur_per_hour."
        return Refusal("PRICE_UNKNOWN", message)
    return None


def _misfit(command: RequestDeployment, model: ModelListed, offer: InstanceType) -> Refusal | None:
    """Too small for the model with the context that it shall serve: its engine would not start, and yet be paid for."""
    if command.engine == "simulated":
        return None
    if model.code == SIMULATED_MODEL:
        return Refusal("INCOMPATIBLE_MODEL_INSTANCE", f"{SIMULATED_MODEL} has no weights: use --engine simulated.")
    found = fit(model, command.provider, offer, context_tokens=command.context_tokens)
    match found.verdict:
        case "fits":
            return None
        case "shorter_context":
            cure = f"Ask for a context_tokens of {found.longest_context_tokens} or fewer, or for a larger machine."
            return Refusal("INCOMPATIBLE_MODEL_INSTANCE", f"{found.reason} {cure}")
        case "does_not_fit":
            return Refusal("INCOMPATIBLE_MODEL_INSTANCE", found.reason)


DEPLOYMENT: Decider[DeploymentCommand, DeploymentEvent, Deployment] = Decider(
    aggregate="deployment",
    events=(
        DeploymentRequested,
        DeploymentRefused,
        DeploymentStopped,
        UpstreamConnected,
        UpstreamKeyReplaced,
        UpstreamActivated,
        UpstreamDeactivated,
    ),
    initial=Deployment(),
    state_type=Deployment,
    evolve=evolve,
    decide=decide,
)
