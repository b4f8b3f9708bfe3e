"""How many looks in a row a reaction is told of: pauses grow with them, and only over one and the same state."""

from typing import Any, cast

from domain.api_key import API_KEY, RenameApiKey
from domain.message import subject_of
from handlers.outcome import Outcome, RetryAfter
from handlers.ports import Doors, Trigger, Waking
from handlers.subscriptions import Reaction
from infra.reacting import Reactor, Stores
from tests.examples import key_to_issue
from tests.handlers.world import ACME, ALICE, World
from tests.simulation.stores import MemoryParking, MemoryTimers, MemoryTurns

KEY = "key-1"
WAKING = Waking("look_on_api_key", ACME, "api_key", KEY)


class Patient:
    """Always answers "again later"; `moves` makes it record something itself at each look."""

    def __init__(self, *, moves: bool = False) -> None:
        self.attempts: list[int] = []
        self.moves = moves

    async def __call__(self, trigger: Trigger, doors: Doors) -> Outcome:
        self.attempts.append(trigger.attempt)
        if self.moves:
            name = f"name {len(self.attempts)}"
            await doors.dispatch(API_KEY, ACME, KEY, RenameApiKey(name=name), ALICE)
        loaded = await doors.load(API_KEY, ACME, KEY)
        return RetryAfter(1.0, "not yet", loaded.version)


async def _house(react: Patient) -> tuple[World, Reactor]:
    world = World()
    await world.command(API_KEY, KEY, key_to_issue())
    events = frozenset(event.__name__ for event in API_KEY.events)
    reaction = Reaction(name=WAKING.reaction, aggregate="api_key", events=events, react=react)
    stores = Stores(world.log, MemoryTurns(), cast("Any", MemoryParking()), cast("Any", MemoryTimers()))
    return world, Reactor([reaction], world.doors, stores)


async def test_looks_at_the_same_state_are_counted() -> None:
    patient = Patient()
    _, reactor = await _house(patient)
    for _ in range(4):
        await reactor.wake(WAKING)
    assert patient.attempts == [0, 1, 2, 3]


async def test_an_event_of_somebody_else_begins_the_count_anew() -> None:
    patient = Patient()
    world, reactor = await _house(patient)
    for _ in range(3):
        await reactor.wake(WAKING)
    await world.command(API_KEY, KEY, RenameApiKey(name="another"))
    newest = await world.log.last(subject_of(ACME, "api_key", KEY))
    assert newest is not None
    await reactor.tell(reactor.reactions[WAKING.reaction], newest.envelope, newest.position)
    await reactor.wake(WAKING)
    assert patient.attempts == [0, 1, 2, 0, 1]


async def test_a_look_that_moved_on_itself_begins_the_count_anew() -> None:
    patient = Patient(moves=True)
    _, reactor = await _house(patient)
    for _ in range(4):
        await reactor.wake(WAKING)
    assert patient.attempts == [0, 1, 1, 1]
