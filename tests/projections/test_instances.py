"""Instances: the view of SPEC 1.6, folded by the domain's own rules, and the timeline."""

from datetime import timedelta

import pytest

from domain import instance_commands as c
from domain.instance import INSTANCE
from domain.place import Place
from projections.instance_milestones import list_milestones
from projections.instance_words import words_of
from projections.instances import (
    INSTANCES,
    SortColumn,
    find_home,
    find_instance,
    list_instances,
    list_unsettled,
    search_instances,
)
from tests.examples import ELSEWHERE, EVENT_EXAMPLES, example
from tests.given import NOON
from tests.projections.grammar import Story, projected
from tests.projections.steps import BOOTED, CREATED, GONE, READY, requested

HOUR_S = 3600
NOW = NOON + timedelta(hours=1)
NO_ROOM = c.RecordServerCreateFailed(code="PROVIDER_OUT_OF_STOCK", message="No L4 left.")


def _ended(story: Story, instance: str) -> Story:
    return (
        story.asked("acme", instance, requested(), *READY, *GONE).later(3).asked("acme", instance, c.RecordServerGone())
    )


async def test_a_requested_instance_is_shown_with_what_was_asked_for(postgres_url: str) -> None:
    story = Story().asked("acme", "i-1", requested())
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        view = await find_instance(connection, "acme", "i-1", now=NOW)
    assert view is not None
    assert (view.status, view.progress_percent, view.model_code) == ("provisioning", 5, "mock-echo-model")
    assert (view.provider, view.zone, view.instance_type) == ("local", "local", "mock-local-instance")
    assert (view.gpu_count, view.gpu_vram_gb, view.created_at) == (1, 2, NOON)


async def test_status_progress_and_addresses_follow_the_events(postgres_url: str) -> None:
    story = Story().asked("acme", "i-1", requested(), *READY)
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        view = await find_instance(connection, "acme", "i-1", now=NOW)
    assert view is not None
    assert (view.status, view.progress_percent, view.ready_at) == ("ready", 100, story.entries[-1].envelope.at)
    assert (view.ip_address, view.engine_url) == ("127.8.0.1", "http://127.8.0.1:8000")
    assert (view.provider_instance_id, view.position) == ("srv-1", len(story.entries))


async def test_a_refusal_of_the_provider_is_shown_with_its_code(postgres_url: str) -> None:
    refused = c.RecordServerCreateFailed(code="PROVIDER_CREATE_FAILED", message="No quota.")
    story = Story().asked("acme", "i-1", requested(), CREATED[0], refused)
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        view = await find_instance(connection, "acme", "i-1", now=NOW)
    assert view is not None
    assert (view.status, view.progress_percent) == ("provisioning_failed", 0)
    assert (view.error_code, view.error_message) == ("PROVIDER_CREATE_FAILED", "No quota.")


async def test_an_instance_costs_more_every_hour_until_it_ends(postgres_url: str) -> None:
    running = Story().asked("acme", "i-1", requested())
    async with projected(postgres_url, INSTANCES, running.entries) as connection:
        after_one = await find_instance(connection, "acme", "i-1", now=NOON + timedelta(hours=1))
        after_two = await find_instance(connection, "acme", "i-1", now=NOON + timedelta(hours=2))
    assert after_one is not None
    assert after_two is not None
    assert (after_one.total_cost_eur_micros, after_two.total_cost_eur_micros) == (2_400_000, 4_800_000)


async def test_an_ended_instance_costs_no_more(postgres_url: str) -> None:
    story = _ended(Story(), "i-1")
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        view = await find_instance(connection, "acme", "i-1", now=NOON + timedelta(days=9))
    assert view is not None
    assert view.terminated_at is not None
    assert (view.status, view.deletion_reason, view.deleted_by_provider) == ("terminated", "user", False)
    lived_s = (view.terminated_at - NOON).total_seconds()
    assert view.total_cost_eur_micros == round(2_400_000 * lived_s / 3600)


async def test_each_attempt_costs_what_its_own_place_costs(postgres_url: str) -> None:
    dear = Place(zone="z2", instance_type="dear", gpu_count=1, vram_per_gpu_gb=80, price_eur_micros_per_hour=10_000_000)
    story = Story().asked("acme", "i-1", requested(alternatives=(dear,)), *READY).later(10 * HOUR_S)
    lost = c.RecordWorkerLost(reason="Silent.")
    story.asked("acme", "i-1", lost, c.RequestReplacement(reason="lost"), c.RecordServerGone()).later(3)
    again = c.IntendServerCreate(server_name="worker-2")
    story.asked("acme", "i-1", c.RecordServerGone(), again, NO_ROOM, c.IntendServerCreate(server_name="worker-3"))
    moved_at = story.entries[-1].envelope.at
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        views = [await find_instance(connection, "acme", "i-1", now=moved_at + timedelta(hours=h)) for h in (0, 2)]
    moved, later = views
    assert moved is not None
    assert later is not None
    assert (moved.zone, moved.price_eur_micros_per_hour) == ("z2", 10_000_000)
    assert moved.total_cost_eur_micros == pytest.approx(10 * 2_400_000, rel=0.01)
    assert later.total_cost_eur_micros - moved.total_cost_eur_micros == 20_000_000


async def test_what_certainly_has_no_server_costs_nothing(postgres_url: str) -> None:
    story = Story().asked("acme", "i-1", requested(), CREATED[0], NO_ROOM)
    failed_at = story.entries[-1].envelope.at
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        views = [await find_instance(connection, "acme", "i-1", now=failed_at + timedelta(hours=h)) for h in (0, 9)]
    now, later = views
    assert now is not None
    assert later is not None
    assert (now.status, later.total_cost_eur_micros) == ("provisioning_failed", now.total_cost_eur_micros)


async def test_lists_leave_out_the_archived_unless_asked_for(postgres_url: str) -> None:
    story = _ended(Story(), "i-old").asked("acme", "i-old", c.ArchiveInstance()).asked("acme", "i-new", requested())
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        listed = {
            archived: [view.id for view in await list_instances(connection, "acme", now=NOW, archived=archived)]
            for archived in (False, True, None)
        }
    assert listed == {False: ["i-new"], True: ["i-old"], None: ["i-new", "i-old"]}


async def test_a_list_can_be_of_one_deployment(postgres_url: str) -> None:
    story = (
        Story()
        .asked("acme", "i-1", requested(deployment_id="d-1"))
        .asked("acme", "i-2", requested(deployment_id="d-2"))
    )
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        listed = await list_instances(connection, "acme", now=NOW, deployment_id="d-2")
    assert [view.id for view in listed] == ["i-2"]


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        ("created_at", ["i-1", "i-2", "i-3"]),
        ("cost_per_hour", ["i-2", "i-3", "i-1"]),
        ("status", ["i-2", "i-1", "i-3"]),
    ],
)
async def test_a_search_sorts_by_the_asked_column(postgres_url: str, column: SortColumn, expected: list[str]) -> None:
    story = Story()
    for instance, price in (("i-1", 3), ("i-2", 1), ("i-3", 2)):
        story.asked("acme", instance, requested(price_eur_micros_per_hour=price))
    story.asked("acme", "i-2", *BOOTED)
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        page = await search_instances(connection, "acme", now=NOW, sort_by=column, sort_dir="asc")
    assert [view.id for view in page.rows] == expected


async def test_a_search_counts_what_it_does_not_show(postgres_url: str) -> None:
    story = _ended(Story(), "i-0").asked("acme", "i-0", c.ArchiveInstance())
    for number in range(1, 6):
        story.asked("acme", f"i-{number}", requested())
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        page = await search_instances(connection, "acme", now=NOW, offset=1, limit=2, sort_dir="asc")
    assert [view.id for view in page.rows] == ["i-2", "i-3"]
    assert (page.total_count, page.filtered_count, page.offset, page.limit) == (6, 5, 1, 2)


async def test_a_neighbour_sees_nothing(postgres_url: str) -> None:
    story = Story().asked("acme", "i-1", requested())
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        assert await find_instance(connection, "globex", "i-1", now=NOW) is None
        assert await list_instances(connection, "globex", now=NOW, archived=None) == []
        assert await list_milestones(connection, "globex", "i-1") == []
        assert (await search_instances(connection, "globex", now=NOW, archived=None)).total_count == 0


async def test_the_timeline_tells_each_event_with_the_status_around_it(postgres_url: str) -> None:
    story = Story().asked("acme", "i-1", requested(), *BOOTED)
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        told = await list_milestones(connection, "acme", "i-1")
    assert [(row.type, row.status_before, row.status_after) for row in told[-2:]] == [
        ("AddressAssigned", "provisioning", "provisioning"),
        ("InstanceBooted", "provisioning", "booting"),
    ]
    assert [row.progress_percent for row in told] == [5, 5, 20, 30, 40, 40]
    assert told[0].words == "mock-echo-model was requested on mock-local-instance in local (local)."
    assert (told[0].action, told[0].actor, told[0].at) == ("REQUEST_CREATE", "user:alice", NOON)


@pytest.mark.parametrize(
    "event", [e for e in EVENT_EXAMPLES if type(e) in INSTANCE.events], ids=lambda e: type(e).__name__
)
def test_every_event_of_an_instance_can_be_told(event: object) -> None:
    words = words_of(event)  # type: ignore[arg-type] # chosen above
    assert words.action.isupper()
    assert words.sentence.endswith(".")
    assert words.category in {"create", "health", "terminate", "repair", "archive", "activation"}


async def test_the_unsettled_are_those_on_their_way(postgres_url: str) -> None:
    story = Story().asked("acme", "i-1", requested()).asked("globex", "i-2", requested(), *BOOTED)
    story.asked("acme", "i-3", requested(), *READY)
    story = _ended(story, "i-4")
    story.asked("acme", "i-5", requested(), CREATED[0], NO_ROOM)
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        first = await list_unsettled(connection, limit=1)
        second = await list_unsettled(connection, after=first[-1].id)
    assert [(home.id, home.organization_id) for home in (*first, *second)] == [
        ("i-1", "acme"),
        ("i-2", "globex"),
        ("i-5", "acme"),
    ], "what failed is still to be ended"


async def test_an_instance_is_shown_where_its_present_attempt_is(postgres_url: str) -> None:
    wish = requested(alternatives=(ELSEWHERE,))
    story = Story().asked("acme", "i-1", wish, CREATED[0], NO_ROOM, *CREATED, example(c.RecordVolumes))
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        view = await find_instance(connection, "acme", "i-1", now=NOW)
    assert view is not None
    assert (view.status, view.zone, view.instance_type) == ("provisioning", "fr-par-2", "L4-1-24G")
    assert (view.gpu_vram_gb, view.price_eur_micros_per_hour) == (24, 750_000)
    assert [volume.size_gb for volume in view.volumes.values()] == [20]


async def test_each_attempt_is_told_with_the_providers_words(postgres_url: str) -> None:
    wish = requested(alternatives=(ELSEWHERE,))
    story = Story().asked("acme", "i-1", wish, CREATED[0], NO_ROOM, CREATED[0])
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        told = [one.words for one in await list_milestones(connection, "acme", "i-1")]
    assert told[2:] == [
        "The provider refused: No L4 left.",
        "Server inventiv-worker-1-1 is being created, at alternative 1 (attempt 2).",
    ]


async def test_a_worker_finds_the_home_of_its_instance(postgres_url: str) -> None:
    story = Story().asked("acme", "i-1", requested())
    async with projected(postgres_url, INSTANCES, story.entries) as connection:
        home = await find_home(connection, "i-1")
        nobody = await find_home(connection, "i-2")
    assert home is not None
    assert (home.organization_id, home.status, nobody) == ("acme", "provisioning", None)
