"""The router's tables: what a gateway loads is what it would have folded from the log itself."""

from domain import instance_commands as c
from domain.api_key import ApiKeyIssued, ApiKeyRevoked
from domain.ids import PLATFORM, OrganizationId
from domain.offering import OfferingPublished, offering_id_of
from domain.organization import MemberAdded, OrganizationCreated
from domain.setting import SettingSet, settings_id_of
from domain.share import OfferingShared, share_id_of
from domain.user import UserCreated, UserForgotten
from projections.router import ROUTER, load_routing
from projections.routing_rows import AGGREGATES, aggregate_of
from projections.routing_table import RoutingTable
from tests.examples import EVENT_EXAMPLES, GLOBEX, example
from tests.projections.grammar import Story, projected
from tests.projections.steps import GONE, READY, requested

OFFERED = offering_id_of(OrganizationId("acme"), "chat")
SHARED = share_id_of(OFFERED, GLOBEX)


def _story() -> Story:
    story = Story().happened("acme", "k-1", example(ApiKeyIssued)).happened("acme", "d-1", *_deployment())
    story.happened("acme", "acme", OrganizationCreated(name="Acme", slug="acme"), example(MemberAdded))
    story.happened("acme", OFFERED, example(OfferingPublished)).happened("acme", SHARED, example(OfferingShared))
    story.happened("_", "u-1", example(UserCreated), UserForgotten())
    story.happened("_", settings_id_of(PLATFORM), example(SettingSet))
    story.asked("acme", "i-1", requested(deployment_id="d-1"), *READY)
    story.asked("acme", "i-2", requested(deployment_id="d-1"), *READY, *GONE).later(3)
    return story.asked("acme", "i-2", c.RecordServerGone()).happened("acme", "k-1", ApiKeyRevoked())


def _deployment() -> list[object]:
    return [event for event in EVENT_EXAMPLES if type(event).__name__ == "DeploymentRequested"]


async def test_the_loaded_table_is_the_folded_one(postgres_url: str) -> None:
    story = _story()
    folded = RoutingTable()
    for entry in story.entries:
        folded.apply(entry)
    async with projected(postgres_url, ROUTER, story.of(ROUTER), batches=[3, 9, 14]) as connection:
        loaded = await load_routing(connection)
    assert {(type(row), row.id): row for row in loaded.rows()} == {(type(row), row.id): row for row in folded.rows()}
    assert [worker.instance_id for worker in loaded.candidates("acme", "mock-echo-model")] == ["i-1"]
    assert {aggregate_of(row) for row in loaded.rows()} == set(AGGREGATES)


async def test_the_table_goes_on_from_its_checkpoint(postgres_url: str) -> None:
    async with projected(postgres_url, ROUTER, _story().of(ROUTER)) as connection:
        await connection.execute("UPDATE platform.checkpoints SET position = 42 WHERE name = 'router'")
        assert (await load_routing(connection)).position == 42
