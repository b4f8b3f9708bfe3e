"""`/metrics`: figures that a Prometheus server can read, without a login and without a word about anybody."""

from datetime import timedelta
from typing import Any

import pytest

from tests.given import NOON
from tests.web.world import World
from web.api.metrics import rendered
from web.services import Progress, ReadModelProgress

pytestmark = pytest.mark.asyncio(loop_scope="module")


def model(**changes: Any) -> ReadModelProgress:
    fields: dict[str, Any] = {
        "name": "instances",
        "stream": "EVENTS",
        "position": 1_234_560,
        "updated_at": NOON,
        "built_percent": 100,
    }
    return ReadModelProgress(**{**fields, **changes})


async def test_a_lag_is_what_the_stream_has_and_the_read_model_has_not() -> None:
    usage = model(name="usage", stream="USAGE", position=0, built_percent=0)
    progress = Progress(heads={"EVENTS": 1_234_567, "USAGE": 0}, read_models=[model(), usage])
    lines = rendered(progress, lambda: NOON + timedelta(seconds=2.5)).splitlines()
    assert 'inventiv_log_head{stream="EVENTS"} 1234567' in lines
    assert 'inventiv_projection_position{projection="instances"} 1234560' in lines
    assert 'inventiv_projection_lag_events{projection="instances"} 7' in lines
    assert 'inventiv_projection_lag_events{projection="usage"} 0' in lines
    assert 'inventiv_projection_updated_seconds{projection="instances"} 2.5' in lines
    assert 'inventiv_projection_built_percent{projection="usage"} 0' in lines


async def test_each_figure_has_its_words_and_its_type() -> None:
    lines = rendered(Progress(heads={"EVENTS": 1}, read_models=[model()]), lambda: NOON).splitlines()
    figures = {line.partition("{")[0] for line in lines if not line.startswith("#")}
    assert figures == {line.split()[2] for line in lines if line.startswith("# HELP")}
    assert figures == {line.split()[2] for line in lines if line.startswith("# TYPE") and line.endswith(" gauge")}


async def test_anybody_may_read_them(world: World) -> None:
    await world.visible()
    async with world.client() as stranger:
        reply = await stranger.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert f'inventiv_log_head{{stream="EVENTS"}} {await world.log.head()}' in reply.text
    assert 'inventiv_projection_lag_events{projection="audit_log"} 0' in reply.text
