"""What must hold in every simulated world, at each moment or when it has come to rest.

    at each deletion   it is ours, and its record does not want it any more               wrong_deletes
    at each creation   its name's intent is on record, and it is that name's first server  servers_per_intent
    all the time       a living server that no record wants is gone within ORPHAN_S        orphans
    at each ending     what is said to be gone is gone, server and volumes                 said_gone_alive
    at rest            nothing is on its way; wanted ones are ready, or say why not        stuck

An orphan's age counts only while its provider and its control plane are well: nobody deletes through a dead line.
"""

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from domain.instance import INSTANCE
from domain.instance_events import InstanceTerminated, ServerDiscarded
from domain.instance_state import Instance
from handlers.server_tags import PLATFORM_TAG, server_name
from tests.simulation.provider import FORGED_NAME, Machine, Truth
from tests.simulation.virtual_time import now

ORPHAN_S = 120.0
LOOK_EVERY_S = 5.0
AT_REST = frozenset({"ready", "terminated", "archived"})
ENDED = frozenset({"terminated", "archived"})


@dataclass
class Violation:
    rule: str
    words: str


@dataclass
class Checks:
    """Watches a provider's truth; `violations` is empty in a world that is well.

    Attributes:
        counting: whether an orphan's age counts now.
        made: how many servers each name was given by calls of ours.
    """

    truth: Truth
    records: Mapping[str, Instance]
    list_lag_s: float
    counting: bool = True
    violations: list[Violation] = field(default_factory=list)
    made_by_name: Counter[str] = field(default_factory=Counter)
    oldest_orphan_s: float = 0.0
    _orphans: dict[str, float] = field(default_factory=dict)

    def made(self, machine: Machine) -> None:
        if not _is_ours(machine):
            return
        name, attempt = machine.request.name, int(machine.request.tags["attempt"])
        if self._state(machine).attempt < attempt or name != server_name(machine.request.tags["instance"], attempt):
            self._found("servers_without_intent", name)
        self.made_by_name[name] += not machine.is_double
        if self.made_by_name[name] > 1:
            self._found("servers_per_intent", f"{name} was made twice")

    def started(self, machine: Machine) -> None:
        """Starting what exists breaks no law."""

    def deleting(self, machine: Machine) -> None:
        if not _is_ours(machine):
            self._found("wrong_deletes", f"{machine.id} is not ours")
        elif wants(state := self._state(machine), machine):
            self._found("wrong_deletes", f"{machine.id}: {state.status}, attempt {state.attempt}")

    def by_hand(self, machine: Machine) -> None:
        """Somebody deletes it in the provider's console: no deed of ours."""
        watchers, self.truth.watchers = self.truth.watchers, [w for w in self.truth.watchers if w is not self]
        self.truth.delete(machine)
        self.truth.watchers = watchers

    def recorded(self, instance_id: str, event: object, before: Instance) -> None:
        """An event was stored: what it says of the world must be true."""
        match event:
            case InstanceTerminated() | ServerDiscarded():
                for machine in self.truth.living():
                    if _is_ours(machine) and self._is_known(instance_id, before, machine):
                        self._found("said_gone_alive", f"{machine.id} lives after {type(event).__name__}")
                for volume in before.volumes.values():
                    disk = self.truth.disks[volume.provider_volume_id]
                    if volume.delete_on_terminate and disk.gone_at is None:
                        self._found("said_gone_alive", f"{disk.id} is there after {type(event).__name__}")
            case _:
                return

    def _is_known(self, instance_id: str, before: Instance, machine: Machine) -> bool:
        """On record, or there for so long that a look by its name must find it; a late one is the sweep's."""
        if machine.request.tags["instance"] != instance_id or not owns(before, machine):
            return False
        return bool(before.provider_instance_id) or (now() - machine.made_at).total_seconds() > self.list_lag_s

    async def watch(self) -> None:
        """Measures orphans until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for machine in self.truth.living():
                self._look_at(machine)

    def _look_at(self, machine: Machine) -> None:
        if not _is_ours(machine):
            return
        state = self._state(machine)
        if owns(state, machine):
            self._orphans.pop(machine.id, None)
        elif self.counting:
            age_s = self._orphans.get(machine.id, 0.0) + LOOK_EVERY_S
            self._orphans[machine.id] = age_s
            self.oldest_orphan_s = max(self.oldest_orphan_s, age_s)
            if age_s - LOOK_EVERY_S < ORPHAN_S <= age_s:
                self._found("orphans", f"{machine.id} {machine.request.name}: {state.status}, attempt {state.attempt}")

    def at_rest(self, wanted: Collection[str]) -> None:
        """`wanted`: instances that nobody has ended, and that some place can hold."""
        for instance_id, state in self.records.items():
            theirs = [machine for machine in self.truth.living() if _is_ours(machine)]
            living = [machine for machine in theirs if machine.request.tags["instance"] == instance_id]
            if state.status not in AT_REST:
                self._found("stuck", f"{instance_id} is {state.status}: {state.error_code}")
            if state.status in ENDED and living:
                self._found("stuck", f"{instance_id} is {state.status}, and {living[0].id} lives")
            if state.status == "ready" and not [m for m in living if m.id == state.provider_instance_id]:
                self._found("stuck", f"{instance_id} is ready without its server")
            if len(living) > 1:
                self._found("servers_per_intent", f"{instance_id} has {len(living)} servers")
            if instance_id in wanted and state.status != "ready" and not _has_a_reason(state):
                self._found("stuck", f"{instance_id} is wanted, and {state.status}: {state.termination_reason}")
        self._look_for_leftovers()

    def _look_for_leftovers(self) -> None:
        for disk in self.truth.disks.values():
            is_ours = disk.tags.get("platform") == PLATFORM_TAG and not disk.name.startswith(FORGED_NAME)
            if is_ours and disk.gone_at is None and not disk.attached_to:
                self._found("leftover_volumes", f"{disk.id} {disk.name}")

    def _state(self, machine: Machine) -> Instance:
        return self.records.get(machine.request.tags["instance"], INSTANCE.initial)

    def _found(self, rule: str, words: str) -> None:
        at: datetime = now()
        self.violations.append(Violation(rule, f"{at:%H:%M:%S} {words}"))


def _has_a_reason(state: Instance) -> bool:
    """The user is told why a wish did not come true."""
    return bool(state.error_code) or state.termination_reason not in {"", "user"}


def owns(state: Instance, machine: Machine) -> bool:
    """The record knows of this server, and will end it one day."""
    if not state.may_own_a_server:
        return False
    if state.provider_instance_id:
        return state.provider_instance_id == machine.id
    return state.attempt == int(machine.request.tags["attempt"])


def wants(state: Instance, machine: Machine) -> bool:
    """The record means to go on with this server."""
    ending = {"terminating", "terminated", "archived", "provisioning_failed"}
    return owns(state, machine) and state.status not in ending and not state.discarding


def _is_ours(machine: Machine) -> bool:
    return machine.request.tags.get("platform") == PLATFORM_TAG and machine.request.name != FORGED_NAME
