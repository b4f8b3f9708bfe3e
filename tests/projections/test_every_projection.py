"""Laws of all read models at once: however the same events are cut, live or rebuilt, the same rows come out."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.postgres import connect
from projections.projection import Projection, UsageEntry
from projections.registry import PROJECTIONS
from tests.examples import COMMAND_EXAMPLES
from tests.given import COMMANDS, NOON
from tests.projections.examples import usage_record
from tests.projections.grammar import Story, all_rows, build

ORGANIZATIONS = ("org-1", "org-2")
WAITS_S = (0, 3, 4000)
"""Nothing; past a drain's grace and a second sighting; past every deadline."""

_commands = st.tuples(
    st.sampled_from(ORGANIZATIONS), st.integers(1, 2), st.sampled_from(COMMAND_EXAMPLES), st.sampled_from(WAITS_S)
)
_requests = st.tuples(st.sampled_from("abcdef"), st.sampled_from(ORGANIZATIONS), st.integers(1, 2), st.integers(0, 90))


def _aggregate_id(organization: str, command: object, number: int) -> str:
    return f"{organization}-{COMMANDS[type(command)].aggregate}-{number}"


@st.composite
def histories(draw: st.DrawFn) -> dict[str, Sequence[Any]]:
    """Entries by stream: first every command in good order, then any commands in any order."""
    story = Story()
    for command in COMMAND_EXAMPLES:
        story.asked("org-1", _aggregate_id("org-1", command, 1), command)
    for organization, number, command, seconds in draw(st.lists(_commands, max_size=40)):
        story.later(seconds).asked(organization, _aggregate_id(organization, command, number), command)
    usage = [
        UsageEntry(
            position,
            usage_record(
                request, at=NOON + timedelta(seconds=s), organization_id=organization, instance_id=f"instance-{number}"
            ),
        )
        for position, (request, organization, number, s) in enumerate(draw(st.lists(_requests, max_size=12)), start=1)
    ]
    return {projection.name: _entries(projection, story, usage) for projection in PROJECTIONS}


def _entries(projection: Projection, story: Story, usage: Sequence[UsageEntry]) -> Sequence[Any]:
    return usage if projection.stream == "USAGE" else story.of(projection)


async def _rows(postgres_url: str, projection: Projection, entries: Sequence[Any], batches: Sequence[int]) -> Any:
    async with await connect(postgres_url, "test") as connection:
        await build(connection, projection, entries, batches=batches)
        rows = await all_rows(connection, projection)
        await connection.rollback()
    return rows


@pytest.mark.parametrize("projection", PROJECTIONS, ids=lambda p: p.name)
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=histories(), cuts=st.lists(st.integers(0, 100), max_size=6))
async def test_old_rows_and_new_events_make_the_rebuilt_rows(
    postgres_url: str, projection: Projection, history: dict[str, Sequence[Any]], cuts: list[int]
) -> None:
    entries = history[projection.name]
    rebuilt = await _rows(postgres_url, projection, entries, [])
    assert any(rebuilt.values()) == bool(entries)
    assert await _rows(postgres_url, projection, entries, [min(cut, len(entries)) for cut in cuts]) == rebuilt
    assert await _rows(postgres_url, projection, entries, range(len(entries))) == rebuilt


def test_every_table_name_belongs_to_one_projection() -> None:
    """Readers find all tables on one search path."""
    tables = [
        line.split()[2]
        for projection in PROJECTIONS
        for line in projection.tables.splitlines()
        if line.startswith("CREATE TABLE")
    ]
    assert tables
    assert len(set(tables)) == len(tables)


def test_every_projection_has_a_name_of_its_own() -> None:
    assert len({projection.name for projection in PROJECTIONS}) == len(PROJECTIONS)
