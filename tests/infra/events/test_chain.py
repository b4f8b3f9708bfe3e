"""What a checked reader notices, what it cannot, and that it does not forget what it stopped at."""

from collections.abc import Sequence

import pytest

from domain.message import Recorded
from infra.events.chain import Chain, CheckedReader
from projections.projection import LogDamagedError
from tests.infra.events.doctored import DAMAGES, Damage, DoctoredLog, altered, closed_up, hole, honest_messages

MESSAGES = honest_messages()


def checked(messages: Sequence[Recorded], *, after: int = 0, batch: int = 3, remembered: int = 10) -> Chain:
    chain = Chain(after=after, remembered=remembered)
    for start in range(0, len(messages), batch):
        chain.check(messages[start : start + batch])
    return chain


@pytest.mark.parametrize("batch", [1, 3, 100])
def test_an_honest_log_passes(batch: int) -> None:
    assert checked(MESSAGES, batch=batch).position == len(MESSAGES)
    assert checked(MESSAGES[4:], after=4, batch=batch).position == len(MESSAGES)


@pytest.mark.parametrize("batch", [1, 3, 100])
@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        (hole, "position 5: no such message; the next one is 6"),
        (closed_up, "position 6: evt.acme.api_key.k-0 goes from version 2 to 4"),
        (altered, "position 7: evt.acme.api_key.k-0 version 3 is not as it was written"),
    ],
)
def test_damage_is_named_with_its_position(damage: Damage, finding: str, batch: int) -> None:
    with pytest.raises(LogDamagedError, match=finding):
        checked(damage(MESSAGES, 5), batch=batch)


def test_a_log_that_begins_in_the_middle_of_an_aggregate_is_damaged() -> None:
    with pytest.raises(LogDamagedError, match="goes from version 0 to 2"):
        checked(closed_up(MESSAGES, 1))


def test_what_stands_before_the_reader_is_taken_at_its_word() -> None:
    doctored = altered(MESSAGES, 5)
    assert checked(doctored[5:], after=5).position == len(MESSAGES)


def test_a_bounded_memory_forgets_the_aggregate_that_rested_longest() -> None:
    doctored = altered(honest_messages(keys=4), 5)
    assert checked(doctored, batch=1, remembered=2).position == len(doctored)
    with pytest.raises(LogDamagedError):
        checked(doctored, remembered=4)


def test_a_batch_is_taken_in_whole_or_not_at_all() -> None:
    chain = Chain()
    chain.check(MESSAGES[:2])
    doctored = altered(MESSAGES, 5)
    with pytest.raises(LogDamagedError):
        chain.check(doctored[2:])
    assert chain.position == 2
    chain.check(MESSAGES[2:])
    assert chain.position == len(MESSAGES)


class Reader:
    """Goes on where it was, as a projector does."""

    def __init__(self, log: DoctoredLog) -> None:
        self.reader = CheckedReader(log)
        self.position = 0

    async def read_all(self) -> None:
        async with self.reader.follow(after=self.position, batch=1) as batches:
            async for batch in batches:
                self.position = batch[-1].position
                if self.position == len(MESSAGES):
                    return


@pytest.mark.parametrize("damage", DAMAGES)
async def test_a_reader_that_tries_again_stops_at_the_same_place(damage: Damage) -> None:
    log = DoctoredLog(damage(MESSAGES, 5))
    reader = Reader(log)
    for _ in range(3):
        with pytest.raises(LogDamagedError):
            await reader.read_all()
    assert reader.position in {4, 5, 6}


async def test_a_log_that_was_repaired_is_read_on() -> None:
    log = DoctoredLog(hole(MESSAGES, 5))
    reader = Reader(log)
    with pytest.raises(LogDamagedError):
        await reader.read_all()
    log.messages = MESSAGES
    await reader.read_all()
    assert reader.position == len(MESSAGES)
