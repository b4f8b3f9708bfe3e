"""The catalogue: what can be deployed."""

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from domain.model import ModelDelisted, ModelListed
from projections.models import MODELS, find_model, find_model_by_code, list_models
from tests.examples import example
from tests.given import NOON
from tests.projections.grammar import Story, projected


def _example(kind: type[Any], **changes: Any) -> Any:
    return replace(example(kind), **changes)


async def test_the_catalogue_lists_active_models_by_code(postgres_url: str) -> None:
    story = (
        Story()
        .happened("_", "m-1", _example(ModelListed, code="b"))
        .happened("_", "m-2", _example(ModelListed, code="a"))
    )
    story.happened("_", "m-3", _example(ModelListed, code="c"), ModelDelisted())
    async with projected(postgres_url, MODELS, story.entries) as connection:
        assert [model.code for model in await list_models(connection)] == ["a", "b"]
        assert [model.is_active for model in await list_models(connection, active_only=False)] == [True, True, False]


async def test_a_model_keeps_its_first_day_through_corrections(postgres_url: str) -> None:
    story = Story().happened("_", "m-1", _example(ModelListed), _example(ModelListed, context_length=4096))
    async with projected(postgres_url, MODELS, story.entries) as connection:
        model = await find_model(connection, "m-1")
    assert model is not None
    assert (model.context_length, model.created_at, model.updated_at) == (4096, NOON, NOON + timedelta(seconds=1))


async def test_a_delisted_model_is_not_found_by_its_code(postgres_url: str) -> None:
    story = Story().happened("_", "m-1", _example(ModelListed, code="a"), ModelDelisted())
    async with projected(postgres_url, MODELS, story.entries) as connection:
        assert await find_model_by_code(connection, "a") is None
        assert await find_model(connection, "m-1") is not None
