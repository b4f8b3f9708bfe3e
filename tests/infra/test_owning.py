"""Instances that may own servers: page by page, and never from rows that lag behind the log or know more than it."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from domain.instance_commands import RequestTermination
from infra.owning import OwningInstances, RecordsBehindError
from infra.postgres import ReadModels, connect, ensure_schema
from projections.checkpoint import Move, move
from projections.instances import INSTANCES
from projections.projection import EVERYTHING, NotYetVisibleError
from tests.projections.grammar import Story
from tests.projections.steps import CREATED, READY, requested


@asynccontextmanager
async def owning_of(postgres_url: str, story: Story, *, head: int) -> AsyncIterator[OwningInstances]:
    """The door over rows that have read the whole story, and a log that ends at `head`."""
    async with await connect(postgres_url, "test") as connection:
        await ensure_schema(connection, INSTANCES)
        await connection.execute(f"SET search_path TO {INSTANCES.schema}")
        await INSTANCES.apply(story.entries, connection)
        await move(connection, [Move(INSTANCES, 0, len(story.entries))])
        await connection.commit()

    async def log_head() -> int:
        return head

    async with ReadModels(postgres_url, scope=EVERYTHING, wait_s=0.3) as read:
        yield OwningInstances(read, log_head)


def story_of(*instances: tuple[str, str, Sequence[Any]]) -> Story:
    """(organisation, id, what is asked of it) each."""
    story = Story()
    for organization, instance_id, commands in instances:
        provider = "scaleway" if "cloud" in instance_id else "local"
        story.asked(organization, instance_id, replace(requested(), provider=provider), *commands)
    return story


async def test_those_that_have_not_ended_are_listed_with_what_they_own(postgres_url: str) -> None:
    ended = [RequestTermination(reason="user")]
    story = story_of(("acme", "a-1", READY), ("acme", "a-2", ended), ("globex", "cloud-1", CREATED), ("acme", "b", ()))
    async with owning_of(postgres_url, story, head=len(story.entries)) as owning:
        shown = [(one.instance_id, one.status, one.provider_instance_id != "") for one in await owning("")]
        assert shown == [("a-1", "ready", True), ("b", "provisioning", False), ("cloud-1", "provisioning", True)]
        assert (await owning(""))[0].agent_url.startswith("http://")
        assert [one.instance_id for one in await owning("b", current=True)] == ["cloud-1"]
        assert [one.instance_id for one in await owning("", provider="scaleway")] == ["cloud-1"]
        assert [one.instance_id for one in await owning("", organization="acme", provider="local")] == ["a-1", "b"]


async def test_rows_that_lag_behind_the_log_are_not_used(postgres_url: str) -> None:
    story = story_of(("acme", "a-1", READY))
    async with owning_of(postgres_url, story, head=len(story.entries) + 1) as owning:
        with pytest.raises(NotYetVisibleError):
            await owning("", current=True)
        assert len(await owning("")) == 1, "the control: who does not ask for the newest gets them"


async def test_rows_that_know_more_than_the_log_are_not_used(postgres_url: str) -> None:
    story = story_of(("acme", "a-1", READY))
    async with owning_of(postgres_url, story, head=len(story.entries) - 1) as owning:
        with pytest.raises(RecordsBehindError, match="the log ends at"):
            await owning("", current=True)


async def test_asking_while_nothing_was_read_yet_is_no_fault(postgres_url: str) -> None:
    async with owning_of(postgres_url, Story(), head=0) as owning:
        assert list(await asyncio.wait_for(owning("", current=True), timeout=10)) == []
