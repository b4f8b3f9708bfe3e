"""Deployments: a wish, and how far its instances have come."""

from typing import Any

import pytest
from msgspec.structs import replace

from domain import instance_commands as c
from domain.deployment import DeploymentRefused, DeploymentRequested, DeploymentStopped
from domain.upstream import UpstreamActivated, UpstreamConnected, UpstreamKeyReplaced
from domain.values import Digest
from projections.deployments import (
    DEPLOYMENTS,
    UPSTREAM,
    DeploymentView,
    Footprint,
    count_standing_of,
    find_deployment,
    find_footprint,
    list_deployments,
    list_standing,
    status_of,
)
from tests.examples import example
from tests.projections.grammar import Story, projected
from tests.projections.steps import GONE, READY, requested


def _wanted(**changes: Any) -> DeploymentRequested:
    wish = example(DeploymentRequested)
    assert isinstance(wish, DeploymentRequested)
    return replace(wish, **changes)


def _two_wanted() -> Story:
    story = Story().happened("acme", "d-1", _wanted(instances=2))
    for number in (1, 2):
        story.asked("acme", f"i-{number}", requested(deployment_id="d-1", ordinal=number))
    return story


async def test_a_deployment_is_starting_until_all_its_instances_are_ready(postgres_url: str) -> None:
    story = _two_wanted().asked("acme", "i-1", *READY)
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        view = await find_deployment(connection, "acme", "d-1")
    assert view is not None
    assert (view.status, view.instances, view.ready_instances) == ("starting", 2, 1)
    assert view.instance_ids == ["i-1", "i-2"]


async def test_a_deployment_is_ready_with_its_last_instance(postgres_url: str) -> None:
    story = _two_wanted().asked("acme", "i-1", *READY).asked("acme", "i-2", *READY)
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        view = await find_deployment(connection, "acme", "d-1")
    assert view is not None
    assert (view.status, view.ready_instances) == ("ready", 2)


async def test_a_refused_deployment_keeps_the_reason(postgres_url: str) -> None:
    refused = DeploymentRefused(code="INVALID_MODEL", message="No such model.")
    story = Story().happened("acme", "d-1", _wanted(), refused)
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        view = await find_deployment(connection, "acme", "d-1")
    assert view is not None
    assert (view.status, view.error_code, view.error_message) == ("refused", "INVALID_MODEL", "No such model.")


async def test_a_refused_wish_beyond_reason_is_still_on_record(postgres_url: str) -> None:
    wish = _wanted(instances=10**30, model_code="nul\0" + "long" * 20_000)
    story = Story().happened("acme", "d-1", wish, DeploymentRefused(code="MISSING_PARAMS", message="Too many."))
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        view = await find_deployment(connection, "acme", "d-1")
    assert view is not None
    assert (view.instances, view.model_code[:8]) == (2**63 - 1, "nul\ufffdlong")


async def test_a_stopped_deployment_leaves_the_list_of_standing_ones(postgres_url: str) -> None:
    story = _two_wanted().happened("acme", "d-2", _wanted()).happened("acme", "d-1", DeploymentStopped())
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        everything = await list_deployments(connection, "acme")
        standing = await list_deployments(connection, "acme", stopped=False)
    assert [(view.id, view.status) for view in everything] == [("d-2", "starting"), ("d-1", "stopping")]
    assert [view.id for view in standing] == ["d-2"]


async def test_a_deployment_has_stopped_when_its_last_instance_has_ended(postgres_url: str) -> None:
    story = Story().happened("acme", "d-1", _wanted(instances=1), DeploymentStopped())
    story.asked("acme", "i-1", requested(deployment_id="d-1"), *READY, *GONE).later(3)
    story.asked("acme", "i-1", c.RecordServerGone())
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        view = await find_deployment(connection, "acme", "d-1")
    assert view is not None
    assert view.status == "stopped"


async def test_a_neighbour_sees_no_deployment(postgres_url: str) -> None:
    async with projected(postgres_url, DEPLOYMENTS, _two_wanted().of(DEPLOYMENTS)) as connection:
        assert await find_deployment(connection, "globex", "d-1") is None
        assert await list_deployments(connection, "globex") == []


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ([], "starting"),
        (["booting", "provisioning"], "starting"),
        (["booting", "startup_failed"], "starting"),
        (["ready", "starting"], "starting"),
        (["ready", "ready"], "ready"),
        (["ready", "unavailable"], "degraded"),
        (["ready", "terminated"], "degraded"),
        (["startup_failed", "provisioning_failed"], "failed"),
    ],
)
def test_the_status_sums_up_the_instances(statuses: list[str], expected: str) -> None:
    assert status_of(refused=False, stopped=False, wanted=2, statuses=statuses) == expected


async def test_a_footprint_is_what_is_wanted_and_what_has_not_ended(postgres_url: str) -> None:
    story = _two_wanted().asked("acme", "i-1", *READY, *GONE).later(3).asked("acme", "i-1", example(c.RecordServerGone))
    refused = DeploymentRefused(code="INVALID_MODEL", message="No such model.")
    story.happened("acme", "d-2", _wanted(), refused)
    story.happened("globex", "d-3", _wanted()).asked("globex", "i-3", requested(deployment_id="d-3"))
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        assert await find_footprint(connection, "acme") == Footprint(standing_deployments=1, live_instances=1)
        assert await find_footprint(connection, "initech") == Footprint(standing_deployments=0, live_instances=0)
        assert await list_standing(connection, "acme") == ["d-1"]
    story.happened("acme", "d-1", DeploymentStopped())
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        assert await find_footprint(connection, "acme") == Footprint(standing_deployments=0, live_instances=1)
        assert await list_standing(connection, "acme") == []


def _connected(**changes: Any) -> UpstreamConnected:
    return replace(example(UpstreamConnected), **changes)


async def _shown(postgres_url: str, *events: object) -> DeploymentView:
    story = Story().happened("acme", "d-1", *events)
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        view = await find_deployment(connection, "acme", "d-1")
    assert view is not None
    return view


async def test_an_upstream_is_shown_in_place_of_machines(postgres_url: str) -> None:
    view = await _shown(postgres_url, _connected())
    assert (view.status, view.engine, view.instances, view.instance_ids, view.provider) == (
        "ready",
        UPSTREAM,
        0,
        [],
        "",
    )
    assert view.upstream is not None
    assert (view.upstream.url, view.upstream.upstream_model) == ("https://api.example.com/v1", "large")


async def test_an_upstream_waits_for_both_flags(postgres_url: str) -> None:
    without = _connected(activated=("technical",))
    assert (await _shown(postgres_url, without)).status == "starting"


async def test_an_upstream_shows_its_newest_key_and_flags(postgres_url: str) -> None:
    changes = (UpstreamKeyReplaced(key_digest=Digest("k2")), UpstreamActivated(flag="economic"))
    view = await _shown(postgres_url, _connected(activated=("technical",)), *changes)
    assert view.upstream is not None
    assert (view.status, view.upstream.key_digest) == ("ready", "k2")


async def test_a_stopped_upstream_is_stopped_at_once(postgres_url: str) -> None:
    assert (await _shown(postgres_url, _connected(), DeploymentStopped())).status == "stopped"


async def test_an_upstream_stands_until_it_is_stopped_and_needs_no_model_of_the_catalogue(postgres_url: str) -> None:
    story = Story().happened("acme", "d-1", _connected()).happened("acme", "d-2", _wanted(model_code="chat"))
    async with projected(postgres_url, DEPLOYMENTS, story.of(DEPLOYMENTS)) as connection:
        assert await list_standing(connection, "acme") == ["d-1", "d-2"]
        assert (await find_footprint(connection, "acme")).standing_deployments == 2
        assert await count_standing_of(connection, "chat", None) == 1
