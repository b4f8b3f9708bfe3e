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
SIMULATED_MODEL = "mock-echo-model"


class RequestDeployment(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted, and what the catalogue said about it (None: unknown or inactive there).

    `provider_known` and `zone_known` tell an unknown provider from an unknown zone or type. `activate`: the flags that
    its instances have from the beginning, which the caller's role must allow.
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


class StopDeployment(msgspec.Struct, frozen=True):
    pass


DeploymentCommand = (
    RequestDeployment | ConnectUpstream | ReplaceUpstreamKey | ActivateUpstream | DeactivateUpstream | StopDeployment
)


class DeploymentRequested(msgspec.Struct, frozen=True, kw_only=True):
    """`activated`: the flags that its instances begin with."""

    SCHEMA: ClassVar[int] = 2

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
    offer = command.offer
    requested = DeploymentRequested(
        model_code=command.model_code,
        instances=command.instances,
        engine=command.engine,
        provider=command.provider,
        zone=command.zone,
        instance_type=command.instance_type,
        gpu_count=offer.gpu_count if offer else 0,
        vram_per_gpu_gb=offer.vram_per_gpu_gb if offer else 0,
        price_eur_micros_per_hour=offer.price_eur_micros_per_hour if offer else 0,
        startup_timeout_s=command.startup_timeout_s,
        activated=command.activate,
    )
    return [requested, DeploymentRefused(code=refusal.code, message=refusal.message)] if refusal else [requested]


def refusal_of(command: RequestDeployment) -> Refusal | None:
    """The first reason why this cannot be deployed, with SPEC 1.6's codes; None when it can."""
    if not command.model_code:
        return Refusal("MISSING_MODEL", "Name the model to deploy; `inventiv model ls` lists them.")
    if not (command.provider and command.zone and command.instance_type):
        return Refusal("MISSING_PARAMS", "Provider, zone and instance type are needed.")
    if not 1 <= command.instances <= MAX_INSTANCES:
        return Refusal("MISSING_PARAMS", f"Between 1 and {MAX_INSTANCES} instances can be deployed at once.")
    if not command.provider_known:
        return Refusal("INVALID_PROVIDER", f"Provider {command.provider} is unknown or inactive.")
    if not command.zone_known:
        return Refusal("INVALID_ZONE", f"Provider {command.provider} has no active zone {command.zone}.")
    if command.offer is None:
        return Refusal("INVALID_INSTANCE_TYPE", f"Instance type {command.instance_type} is unknown or inactive.")
    if not command.offered_in_zone:
        return Refusal(
            "INSTANCE_TYPE_NOT_AVAILABLE_IN_ZONE", f"{command.instance_type} is not offered in {command.zone}."
        )
    if command.model is None:
        return Refusal("INVALID_MODEL", f"Model {command.model_code} is not in the catalogue; see `inventiv model ls`.")
    return _misfit(command, command.model, command.offer)


def _misfit(command: RequestDeployment, model: ModelListed, offer: InstanceType) -> Refusal | None:
    vram_gb = offer.gpu_count * offer.vram_per_gpu_gb
    if command.engine == "simulated":
        return None
    if model.code == SIMULATED_MODEL:
        return Refusal("INCOMPATIBLE_MODEL_INSTANCE", f"{SIMULATED_MODEL} has no weights: use --engine simulated.")
    if vram_gb < model.required_vram_gb:
        return Refusal(
            "INCOMPATIBLE_MODEL_INSTANCE",
            f"{model.code} needs {model.required_vram_gb} GB of VRAM; {offer.code} has {vram_gb} GB.",
        )
    return None


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
