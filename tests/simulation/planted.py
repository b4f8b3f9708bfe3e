"""Bugs that the simulation must find: each is planted by replacing one function of the product, and nothing else.

They are the ones that peers have had: a repeated create, an error taken for an absence, a sweep that takes what is
being made, a machine that nobody watches any more.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from domain import instance, instance_server, instance_steps
from domain.instance_commands import RecordServerCreated, RecordServerGone, RequestReplacement
from domain.instance_events import (
    InstanceTerminated,
    ServerDiscarded,
    ServerReplacementRequested,
    TerminationRequested,
)
from domain.instance_state import ENDED, Instance
from domain.instance_steps import Wait
from handlers import (
    account_listing,
    instance_steps_in_cloud,
    keep_instances_advancing,
    reconcile_account,
    strays,
)
from handlers.cloud_ports import Absent, Cloud, Present, Server, Unknown
from handlers.instance_look import Look, asked, look_for_server
from handlers.ports import Doors
from handlers.server_tags import Owner
from infra.events.port import Append
from tests.simulation.scene import play
from tests.simulation.stores import FaultyLog

MOST_SEEDS = 600
"""A bug that needs more worlds than these to show itself counts as not found."""


@dataclass(frozen=True)
class Bug:
    name: str
    plant: Callable[[], Any]


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    with bug.plant():
        yield


def seeds_until_found(name: str) -> int:
    """How many worlds it took; 0 when it was not found."""
    bug = next(bug for bug in BUGS if bug.name == name)
    with planted(bug):
        return next((seed for seed in range(1, MOST_SEEDS + 1) if play(seed).violations), 0)


async def _create_again(look: Look, cloud: Cloud) -> Any:
    """Not found by its name: made once more, although the first may only be late."""
    found = await look_for_server(cloud, name=look.state.server_name, zone=look.place.zone)
    if isinstance(found, Present):
        return RecordServerCreated(provider_instance_id=found.server.provider_instance_id)
    request = await instance_steps_in_cloud._server_request(look)
    server = await asked("create_server", cloud.create_server(request))
    return RecordServerCreated(provider_instance_id=server.provider_instance_id)


_request_as_intended = instance_steps_in_cloud._server_request


async def _request_by_another_name(look: Look) -> Any:
    request = await _request_as_intended(look)
    return replace(request, name=f"{request.name}-{random.randrange(1_000_000)}")


async def _unknown_is_absent(cloud: Cloud, *, name: str = "", zone: str = "", server_id: str = "") -> Present | Absent:
    found = await cloud.find_server(name=name, zone=zone, provider_instance_id=server_id)
    return Absent() if isinstance(found, Unknown) else found


def _gone_at_once(_traits: object) -> RecordServerGone:
    return RecordServerGone(confirm_after_s=0)


def _end_without_looking(state: Instance, reason: str) -> Sequence[Any]:
    if state.status in {*ENDED, "terminating"}:
        return []
    requested = TerminationRequested(reason=reason)
    return [requested] if state.provider_instance_id else [requested, InstanceTerminated(reason=reason)]


def _wants_only_what_is_recorded(record: Instance, server: Server, _owner: Owner) -> bool:
    return record.provider_instance_id == server.provider_instance_id


def _believe_tags(tags: Any, _signer: object) -> Owner | None:
    if "attempt" not in tags:
        return None
    return Owner(tags["organization"], tags["instance"], int(tags["attempt"]))


def _replace_at_once(state: Instance, command: RequestReplacement) -> Sequence[Any]:
    return [
        ServerReplacementRequested(reason=command.reason),
        ServerDiscarded(attempt=state.attempt, provider_instance_id=state.provider_instance_id),
    ]


def _wait_for_ever(_state: Instance, _lost_at: datetime, _now: datetime) -> Wait:
    return Wait(until=None)


async def _wake_nobody(_doors: Doors) -> Sequence[Any]:
    return ()


async def _acknowledge_unstored(log: FaultyLog, appends: Sequence[Append]) -> int:
    """As a server does that answers before its disk has it, at a power cut."""
    if random.random() < 0.01:
        return await log.head() + sum(len(append.messages) for append in appends)
    return await _store(log, appends)


_store = FaultyLog._append


def _keeps_volumes(_state: Instance) -> tuple[str, ...]:
    return ()


@contextmanager
def _hasty_sweep() -> Iterator[None]:
    with (
        patch.object(strays, "_wants_server", _wants_only_what_is_recorded),
        patch.object(reconcile_account, "GRACE_S", 0),
    ):
        yield


BUGS: tuple[Bug, ...] = (
    Bug("an unanswered create is repeated", lambda: patch.object(instance_steps_in_cloud, "_create", _create_again)),
    Bug(
        "each try has a new name",
        lambda: patch.object(instance_steps_in_cloud, "_server_request", _request_by_another_name),
    ),
    Bug(
        "an unknown is taken for an absence",
        lambda: patch.object(instance_steps_in_cloud, "look_for_server", _unknown_is_absent),
    ),
    Bug("one sighting is proof enough", lambda: patch.object(instance_steps_in_cloud, "_gone", _gone_at_once)),
    Bug(
        "ended without a look for what was being made",
        lambda: patch.object(instance, "_terminate", _end_without_looking),
    ),
    Bug("the sweep takes what is being made", _hasty_sweep),
    Bug("the sweep believes unsigned tags", lambda: patch.object(account_listing, "owner_of", _believe_tags)),
    Bug("a replaced server is not waited for", lambda: patch.object(instance_server, "_replace", _replace_at_once)),
    Bug("a lost worker is waited for, for ever", lambda: patch.object(instance_steps, "_unavailable", _wait_for_ever)),
    Bug(
        "nobody wakes what lost its wake-up",
        lambda: patch.object(keep_instances_advancing, "keep_instances_advancing", _wake_nobody),
    ),
    Bug("acknowledged before it is stored", lambda: patch.object(FaultyLog, "_append", _acknowledge_unstored)),
    Bug("volumes are forgotten", lambda: patch.object(Instance, "volumes_to_delete", property(_keeps_volumes))),
)
