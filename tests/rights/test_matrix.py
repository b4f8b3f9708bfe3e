"""A slice of the matrix with each test run, and the proof that the matrix would see a leak, a wrong answer, a gap."""

import pytest
import pytest_asyncio
from fastapi import APIRouter, Depends, FastAPI

from tests.rights import examples
from tests.rights.examples import without_example
from tests.rights.matrix import run
from tests.rights.plant import Planted, plant
from tests.rights.slice import SLICE
from tests.rights.walls import Walls
from tests.web.world import World
from web.auth import public
from web.declared import api_routes, name

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def planted(world: World) -> Planted:
    return await plant(world)


async def test_every_route_has_an_example(world: World) -> None:
    assert without_example(api_routes(world.app)) == []
    assert set(SLICE) <= set(map(name, api_routes(world.app)))
    assert set(examples.EXAMPLES) <= set(map(name, api_routes(world.app)))


async def test_a_new_route_without_one_is_named() -> None:
    router = APIRouter(dependencies=[Depends(public)])

    @router.post("/planted")
    async def planted_with_a_body(body: dict[str, str]) -> None: ...

    @router.get("/planted/{unheard_of}")
    async def planted_with_an_unknown_object(unheard_of: str) -> None: ...

    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.include_router(router)
    assert without_example(api_routes(app)) == ["POST /planted (public)", "GET /planted/{unheard_of} (public)"]


@pytest.mark.parametrize("walls", [Walls(), Walls(code=False), Walls(rows=False)], ids=lambda walls: walls.name)
async def test_behind_either_wall_nothing_leaks(world: World, planted: Planted, walls: Walls) -> None:
    before = await world.log.head()
    verdict = await run(world, planted, walls, routes=SLICE)
    assert verdict.cells > 200
    assert verdict.leaks == []
    if walls.code:  # without the code's conditions one sees one's colleagues' rows
        assert verdict.wrong == []
    assert await world.log.head() == before  # the matrix asks, and changes nothing


async def test_without_walls_it_does(world: World, planted: Planted) -> None:
    """The control: with neither wall, the matrix sees the stranger's rows in every read that is a tenant's."""
    verdict = await run(world, planted, Walls(code=False, rows=False), routes=SLICE)
    reads = {"GET /api_keys", "GET /instances/{instance_id}", "GET /deployments", "GET /events", "GET /usage"}
    assert reads <= verdict.leaking_routes


async def test_a_right_too_many_or_too_few_is_seen(
    world: World, planted: Planted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control for the answers: the application asks another table than the matrix does."""
    monkeypatch.setattr("web.auth.is_allowed", lambda _role, _action: True)
    found = (await run(world, planted, Walls(), routes=("GET /events", "DELETE /instances/{instance_id}"))).wrong
    assert any("by user" in finding and "GET /events" in finding for finding in found)
    monkeypatch.setattr("web.auth.is_allowed", lambda _role, _action: False)
    found = (await run(world, planted, Walls(), routes=("GET /deployments",))).wrong
    assert any("by owner, own: 403" in finding for finding in found)
