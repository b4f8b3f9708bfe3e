"""Today's code against everything that was ever stored. A finding here is a log that could not be read any more."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from domain.aggregates import AGGREGATES
from domain.usage import UsageRecord
from infra.events.codec import Codec
from infra.events.memory import MemoryLog
from infra.events.port import Append
from infra.postgres import connect
from infra.projecting import EventSource
from projections.projection import Projection, UsageEntry
from projections.registry import PROJECTIONS
from tests.histories.corpus import RECORDS, Corpus
from tests.histories.laws import all_findings, fold_all, recorded_lines
from tests.histories.record import record
from tests.projections.grammar import all_rows, build

CORPUS = Corpus()
AGGREGATE_WORDS = sorted(set(CORPUS.words()) - {record.word for record in RECORDS})


def test_every_shape_ever_stored_can_be_read_today() -> None:
    assert all_findings(CORPUS) == []


async def test_nothing_new_waits_to_be_recorded() -> None:
    assert await record(CORPUS) == []


@pytest.mark.parametrize("decider", AGGREGATES, ids=lambda d: d.aggregate)
def test_a_history_folds_to_a_state_of_today(decider: Any) -> None:
    states = fold_all(recorded_lines(CORPUS.lines(decider.aggregate)), AGGREGATES)
    assert any(isinstance(state, decider.state_type) for state in states.values())


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda p: p.name)
async def test_every_read_model_takes_in_all_of_history(postgres_url: str, projection: Projection) -> None:
    async with await connect(postgres_url, "test") as connection:
        await build(connection, projection, await _told_to(projection))
        assert any((await all_rows(connection, projection)).values())
        await connection.rollback()


async def _told_to(projection: Projection) -> Sequence[Any]:
    """All histories as one log, as far as this read model is concerned."""
    if projection.stream == "USAGE":
        lines = CORPUS.lines("usage")
        return [UsageEntry(line.position, msgspec.json.decode(line.payload, type=UsageRecord)) for line in lines]
    log, last = MemoryLog(), dict[str, int]()
    for word in AGGREGATE_WORDS:
        for line in CORPUS.lines(word):
            message = (f"{word} {line.position}", line.payload.encode())
            last[line.subject] = await log.append([Append(line.subject, last.get(line.subject, 0), (message,))])
    source = EventSource(log, Codec(AGGREGATES))
    async with source.follow(after=0) as batches:
        return source.entries(projection, await anext(aiter(batches)))
