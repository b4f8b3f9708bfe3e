"""A deed of its own for each event, in a world that does things twice when told twice: done once, in order, always.

The reaction here is the pattern for mails and webhooks. The harness cuts it off at each of its lines in turn: before
and after each write of the ledger, each deed, and each question.
"""

from dataclasses import dataclass, field

import pytest

from domain.api_key import API_KEY, RenameApiKey, RevokeApiKey
from domain.message import subject_of
from handlers.outcome import Done, Outcome, RetryAfter
from handlers.ports import Doors, Effect, Happened, Trigger
from tests.examples import key_to_issue
from tests.handlers.world import Fault, Killed, When, World

KEY = "key-1"
COMMANDS = (
    key_to_issue("first"),
    RenameApiKey(name="second"),
    RenameApiKey(name="third"),
    RevokeApiKey(),
)
EVERY_VERSION = [1, 2, 3, 4]
TIMEOUT_S = 5.0


@dataclass
class Letters:
    """Sends a letter for each event of a key.

    Attributes:
        answers: whether the post office tells, when asked, what was sent.
        blind: it answers "no" to everything.
    """

    world: World
    sent: list[int] = field(default_factory=list)
    answers: bool = True
    blind: bool = False

    async def send_letter_on_key_event(self, trigger: Trigger, doors: Doors) -> Outcome:
        version = trigger.done
        for envelope in await doors.history(trigger, after=trigger.done):
            version = envelope.version
            effect = Effect(
                reaction="send_letter_on_key_event",
                event_id=envelope.event_id,
                name="send_letter",
                subject=subject_of(envelope.organization, envelope.aggregate, envelope.id),
            )
            await self._send(doors, effect, version)
        return Done(version=version)

    async def _send(self, doors: Doors, effect: Effect, version: int) -> None:
        async def send() -> None:
            self.sent.append(version)

        async def look() -> Happened:
            if not self.answers:
                return "unknown"
            return "happened" if version in self.sent and not self.blind else "not_happened"

        await doors.effects.once(
            effect,
            act=lambda: self.world.effects.do("send", send),
            ask=lambda: self.world.effects.do("ask", look),
            timeout_s=TIMEOUT_S,
        )


async def send_all(world: World, letters: Letters) -> None:
    """Two events before the first look, one before each other; settled after each."""
    for command in COMMANDS:
        await world.command(API_KEY, KEY, command)
        if command is not COMMANDS[0]:
            await world.settle(letters.send_letter_on_key_event, "api_key", KEY)


async def test_each_event_has_its_letter_once_and_in_order() -> None:
    world = World()
    letters = Letters(world)
    await send_all(world, letters)
    assert letters.sent == EVERY_VERSION
    assert [row.state for row in world.ledger.kept.rows] == ["done"] * len(EVERY_VERSION)


async def test_a_look_goes_on_after_what_is_done() -> None:
    world = World()
    letters = Letters(world)
    await send_all(world, letters)
    lines = len(world.effects.names)
    newest = (await world.envelopes("api_key", KEY))[-1]
    trigger = Trigger(
        organization=newest.organization,
        aggregate="api_key",
        id=KEY,
        cause=newest.event_id,
        correlation="",
        version=4,
        done=4,
    )
    assert await letters.send_letter_on_key_event(trigger, world.doors) == Done(version=4)
    assert len(world.effects.names) == lines, "the ledger need not even be asked"


async def count_lines() -> int:
    world = World()
    await send_all(world, Letters(world))
    return len(world.effects.names)


def struck(number: int, when: When, error: BaseException) -> tuple[World, Letters]:
    world = World(Fault(number, when, error))
    return world, Letters(world)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [ConnectionError("no answer"), ValueError("our bug"), Killed()])
async def test_whichever_line_it_is_cut_off_at_each_letter_is_sent_once_and_in_order(
    when: When, error: BaseException
) -> None:
    lines = await count_lines()
    for number in range(1, lines + 1):
        world, letters = struck(number, when, error)
        await send_all(world, letters)
        assert letters.sent == EVERY_VERSION, f"cut off {when} line {number}, {world.effects.names[number - 1]}"
    assert lines >= 3 * len(EVERY_VERSION), "each letter is intended, sent, and noted"


async def test_control_a_post_office_that_denies_everything_sends_a_letter_twice() -> None:
    doubled = 0
    for number in range(1, await count_lines() + 1):
        world, letters = struck(number, "after", Killed())
        letters.blind = True
        await send_all(world, letters)
        doubled += len(letters.sent) - len(EVERY_VERSION)
    assert doubled > 0


async def test_while_nobody_can_tell_whether_a_letter_went_it_and_the_next_wait() -> None:
    world, letters = struck(2, "after", Killed())  # sent, and not noted
    letters.answers = False
    for command in COMMANDS[:2]:
        await world.command(API_KEY, KEY, command)
    for attempt in range(5):
        outcome = await world.tell(letters.send_letter_on_key_event, "api_key", KEY, attempt=attempt)
        assert isinstance(outcome, RetryAfter)
        world.later(2 * TIMEOUT_S)
    assert letters.sent == [1]
    letters.answers = True
    await world.settle(letters.send_letter_on_key_event, "api_key", KEY)
    assert letters.sent == [1, 2]
