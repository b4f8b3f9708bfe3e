"""SPEC 1.8's action log and SPEC 2.7's catalogue: the same events as the audit log, in the SPEC's fields."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from domain.ids import derived_id
from domain.instance import INSTANCE
from domain.instance_commands import IntendServerCreate, RecordServerCreateFailed
from domain.message import Context
from projections.audit_words import WORDS
from tests.examples import example
from tests.projections.steps import requested
from tests.web.test_sign_in import refusal
from tests.web.world import World

pytestmark = pytest.mark.asyncio(loop_scope="module")

_HANDLERS = Context(actor="system:handlers", correlation="provisioning")


@dataclass
class Plant:
    """An organisation with an instance whose server could not be created, and a key."""

    owner: httpx.AsyncClient
    user: httpx.AsyncClient
    instance_id: str

    async def logs(self, query: str = "") -> list[dict[str, Any]]:
        logs: list[dict[str, Any]] = (await self.owner.get(f"/action_logs?{query}")).json()
        return logs


@asynccontextmanager
async def a_plant(world: World) -> AsyncIterator[Plant]:
    async with world.team(olga="owner", uma="user") as team:
        me = (await team["olga"].get("/auth/me")).json()
        organization = me["current_organization_id"]
        assert (await team["olga"].post("/api_keys", json={"name": "k"})).is_success
        instance_id = derived_id(organization, "instance/1")
        for command in (requested(), example(IntendServerCreate), example(RecordServerCreateFailed)):
            await world.dispatcher(INSTANCE, organization, instance_id, command, _HANDLERS)
        await world.visible()
        yield Plant(team["olga"], team["uma"], instance_id)


async def test_an_action_has_the_fields_of_the_spec(world: World) -> None:
    async with a_plant(world) as plant:
        failed, began, asked = await plant.logs(f"instance_id={plant.instance_id}")
    assert [one["action_type"] for one in (asked, began, failed)] == [
        "REQUEST_CREATE",
        "EXECUTE_CREATE",
        "PROVIDER_CREATE",
    ]
    assert [one["status"] for one in (asked, began, failed)] == ["in_progress", "in_progress", "failed"]
    assert [one["completed_at"] for one in (asked, began)] == [None, None]
    assert (failed["instance_status_before"], failed["instance_status_after"]) == (
        "provisioning",
        "provisioning_failed",
    )
    assert (failed["component"], failed["instance_id"], failed["user_id"]) == ("orchestrator", plant.instance_id, None)
    command = example(RecordServerCreateFailed)
    assert (failed["error_code"], failed["error_message"]) == (command.code, command.message)
    assert failed["message"].startswith("The provider refused: ")
    assert (failed["provider_name"], failed["instance_type"]) == ("This machine", "mock-local-instance")
    assert failed["metadata"]["correlation_id"] == "provisioning"
    assert failed["metadata"]["event_type"] == "ServerCreateFailed"


async def test_filters_narrow(world: World) -> None:
    async with a_plant(world) as plant:
        everything = await plant.logs()
        fitting: dict[str, Callable[[Any], bool]] = {
            "status=failed": lambda one: one["status"] == "failed",
            "component=backend": lambda one: one["component"] == "api",
            "component=api": lambda one: one["component"] == "api",
            "component=orchestrator": lambda one: one["component"] == "orchestrator",
            "action_type=API_KEY_ISSUED": lambda one: one["action_type"] == "API_KEY_ISSUED",
            f"instance_id={plant.instance_id}&status=failed": lambda one: one["status"] == "failed",
        }
        for query, fits in fitting.items():
            found = await plant.logs(query)
            assert found == [one for one in everything if fits(one)], query
            assert found, query
        assert len(await plant.logs("limit=2")) == 2
        for query in ("limit=1001", "limit=0", "status=maybe"):
            assert refusal(await plant.owner.get(f"/action_logs?{query}")) == (400, "invalid_request")


async def test_a_search_has_pages_counts_and_orders(world: World) -> None:
    async with a_plant(world) as plant:
        everything = await plant.logs()
        page = (await plant.owner.get("/action_logs/search?offset=1&limit=2&include_stats=true")).json()
        failed = (await plant.owner.get("/action_logs/search?status=failed&include_stats=true")).json()
        plain = (await plant.owner.get("/action_logs/search")).json()
        by_code = (await plant.owner.get("/action_logs/search?sort_by=action_type&sort_dir=asc")).json()["rows"]
        late = (await plant.owner.get("/action_logs/search?offset=99999")).json()
    assert page["rows"] == everything[1:3]
    assert (page["offset"], page["limit"], page["total_count"], page["filtered_count"]) == (
        1,
        2,
        *[len(everything)] * 2,
    )
    assert page["status_counts"] == {
        status: sum(one["status"] == status for one in everything) for status in ("success", "failed", "in_progress")
    }
    assert failed["status_counts"] == {"success": 0, "failed": 1, "in_progress": 0}
    assert (failed["total_count"], failed["filtered_count"]) == (len(everything), 1)
    assert (plain["status_counts"], plain["total_count"]) == (None, None)
    codes = [one["action_type"] for one in by_code]
    assert codes == sorted(codes)
    assert late["rows"] == []


async def test_a_user_sees_what_was_done_to_instances_and_no_more(world: World) -> None:
    """The rest is the audit log, which is for owners, administrators and managers."""
    async with a_plant(world) as plant:
        seen = (await plant.user.get("/action_logs")).json()
        counted = (await plant.user.get("/action_logs/search?include_stats=true")).json()
        keys = (await plant.user.get("/action_logs?action_type=API_KEY_ISSUED")).json()
    assert {one["metadata"]["aggregate"] for one in seen} == {"instance"}
    assert counted["total_count"] == len(seen) == 3
    assert keys == []


async def test_a_neighbours_instance_has_no_actions(world: World) -> None:
    async with a_plant(world) as plant, world.team(eve="owner") as theirs:
        assert (await theirs["eve"].get(f"/action_logs?instance_id={plant.instance_id}")).json() == []
        page = (await theirs["eve"].get(f"/action_logs/search?instance_id={plant.instance_id}")).json()
        assert page["rows"] == []


async def test_the_catalogue_names_every_action(world: World) -> None:
    async with world.team(uma="user") as team:
        types = {one["code"]: one for one in (await team["uma"].get("/action_types")).json()}
    assert {words.action for words in WORDS.values()} <= types.keys()
    assert types["PROVIDER_GET_IP"] == {
        "code": "PROVIDER_GET_IP",
        "label": "Provider Get IP",
        "icon": "Cloud",
        "color_class": "orange",
        "category": "create",
        "is_active": True,
    }
