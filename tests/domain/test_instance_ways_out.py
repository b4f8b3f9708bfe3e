"""No state of an instance without a way out: whatever was said to it, it has a step, a deadline, or it is at rest.

Random conversations lead into every corner; then a world that cooperates, or one that never answers, takes over.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.decider import Rejected
from domain.instance import INSTANCE
from domain.instance_commands import (
    FailStartup,
    InstanceCommand,
    IntendServerCreate,
    RecordAddress,
    RecordBootstrapPhase,
    RecordOverdue,
    RecordPortsOpened,
    RecordServerCreated,
    RecordServerCreateFailed,
    RecordServerGone,
    RecordServerReinstalled,
    RecordServerStarted,
    RecordServerStartFailed,
    RecordSshReached,
    RecordVolumeDeleted,
    RecordVolumeResized,
    RecordVolumes,
    RequestInstance,
    RequestReplacement,
    RequestTermination,
)
from domain.instance_state import Instance, Status
from domain.instance_steps import (
    Abilities,
    CreateServer,
    DeleteServer,
    DeleteVolume,
    FindAddress,
    GiveUpAttempt,
    GiveUpStartup,
    InstallBySsh,
    ListVolumes,
    MarkOverdue,
    OpenPorts,
    RecordIntent,
    ReinstallServer,
    ReplaceServer,
    ResizeBootVolume,
    StartServer,
    Step,
    Terminate,
    Wait,
    next_step,
)
from tests.examples import COMMAND_EXAMPLES, ELSEWHERE, example
from tests.given import COMMANDS, NOON

AT_REST: frozenset[Status] = frozenset({"ready", "terminated", "archived"})
MAX_STEPS = 200
ABILITIES = (Abilities(), Abilities(has_volumes=True, has_ports=True, has_ssh=True, list_lag_s=5.0))
WISH = replace(example(RequestInstance), alternatives=(ELSEWHERE,), disk_gb=200)
SAID: list[Any] = [
    *(command for command in COMMAND_EXAMPLES if COMMANDS[type(command)] is INSTANCE),
    RecordServerCreateFailed(code="PROVIDER_OUT_OF_STOCK", message="none left"),
    RecordServerStartFailed(code="PROVIDER_START_TIMEOUT", message="late"),
    RecordBootstrapPhase(phase="done"),
    FailStartup(code="AGENT_CHECKSUM_FAILED", message="no"),
]
CONVERSATIONS = st.lists(st.tuples(st.sampled_from(SAID), st.sampled_from((0, 1, 5, 60, 400))), max_size=40)


@dataclass
class Life:
    """An instance and its clock."""

    state: Instance = INSTANCE.initial
    now: datetime = NOON

    def say(self, command: InstanceCommand) -> None:
        try:
            events = INSTANCE.decide(self.state, command, self.now)
        except Rejected:
            return
        for event in events:
            self.state = INSTANCE.evolve(self.state, event, self.now)

    def later(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def life_after(conversation: Sequence[tuple[Any, float]]) -> Life:
    life = Life()
    life.say(WISH)
    for command, pause_s in conversation:
        life.say(command)
        life.later(pause_s)
    return life


def waits_for_a_person(state: Instance) -> bool:
    """Nothing is rented, and nothing will be before both flags are set."""
    return state.status == "provisioning" and not state.create_intended and not state.activation.operational


@forall(CONVERSATIONS, st.sampled_from(ABILITIES))
def test_every_state_but_those_at_rest_has_a_step_or_a_deadline(
    conversation: list[tuple[Any, float]], abilities: Abilities
) -> None:
    life = life_after(conversation)
    step = next_step(life.state, life.now, abilities)
    at_rest = life.state.status in AT_REST or waits_for_a_person(life.state)
    assert at_rest == (step == Wait(until=None)), (life.state.status, step)
    assert not (isinstance(step, Wait) and step.until is not None and step.until <= life.now), "it would spin"


@forall(CONVERSATIONS, st.sampled_from(ABILITIES))
def test_whoever_asks_for_the_end_gets_it_from_every_state(
    conversation: list[tuple[Any, float]], abilities: Abilities
) -> None:
    life = life_after(conversation)
    life.say(RequestTermination(reason="user"))
    cooperate(life, abilities)
    assert life.state.status in {"terminated", "archived"}
    assert not life.state.may_own_a_server
    assert life.state.volumes_to_delete == ()


@forall(CONVERSATIONS, st.sampled_from(ABILITIES))
def test_left_alone_an_instance_comes_to_rest(conversation: list[tuple[Any, float]], abilities: Abilities) -> None:
    """No worker ever reports again: what does not become ready ends, and nothing is left behind."""
    life = life_after(conversation)
    cooperate(life, abilities)
    assert life.state.status in AT_REST or waits_for_a_person(life.state)


@pytest.mark.parametrize("abilities", ABILITIES, ids=["local", "rented"])
def test_control_a_world_that_never_answers_leaves_it_asking_for_ever(abilities: Abilities) -> None:
    life = Life()
    life.say(WISH)
    life.say(IntendServerCreate(server_name="s-1"))
    for _ in range(MAX_STEPS):
        step = next_step(life.state, life.now, abilities)
        if isinstance(step, GiveUpAttempt | MarkOverdue):
            life.say(answer(step, life))
        life.later(60)
    assert isinstance(next_step(life.state, life.now, abilities), DeleteServer), "and so it is never forgotten"


def cooperate(life: Life, abilities: Abilities) -> None:
    """A world in which every step succeeds, until nothing is to be done."""
    for _ in range(MAX_STEPS):
        step = next_step(life.state, life.now, abilities)
        if step == Wait(until=None):
            return
        if isinstance(step, Wait):
            assert step.until is not None
            life.now = step.until
        else:
            life.say(answer(step, life))
            life.later(1)
    raise AssertionError(f"not at rest after {MAX_STEPS} steps: {life.state.status}")


def answer(step: Step, life: Life) -> InstanceCommand:
    state = life.state
    match step:
        case RecordIntent():
            return IntendServerCreate(server_name=f"s-{state.attempt + 1}")
        case CreateServer():
            return RecordServerCreated(provider_instance_id=f"srv-{state.attempt}")
        case ListVolumes():
            return RecordVolumes(volumes=example(RecordVolumes).volumes)
        case ResizeBootVolume():
            return RecordVolumeResized(provider_volume_id=step.provider_volume_id, size_gb=step.size_gb)
        case StartServer():
            return RecordServerStarted()
        case FindAddress():
            return RecordAddress(ip_address="127.8.0.1")
        case OpenPorts():
            return RecordPortsOpened(ports=(22,))
        case InstallBySsh():
            return RecordSshReached() if state.status == "booting" else RecordBootstrapPhase(phase="done")
        case ReinstallServer():
            return RecordServerReinstalled()
        case GiveUpAttempt():
            return RecordServerStartFailed(code="PROVIDER_START_TIMEOUT", message="late")
        case GiveUpStartup():
            return FailStartup(code=step.code, message="late")
        case ReplaceServer():
            return RequestReplacement(reason="lost")
        case Terminate():
            return RequestTermination(reason=step.reason)
        case MarkOverdue():
            return RecordOverdue()
        case DeleteServer() if not step.provider_instance_id and state.attempt % 2:
            return RecordServerCreated(provider_instance_id="found-by-name")
        case DeleteServer():
            return RecordServerGone(confirm_after_s=5)
        case DeleteVolume():
            return RecordVolumeDeleted(provider_volume_id=step.provider_volume_id)
        case Wait():
            raise AssertionError("waiting is no deed")
