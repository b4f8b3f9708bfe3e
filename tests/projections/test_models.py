"""The catalogue: what can be deployed, by whom."""

from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from domain.ids import ModelId
from domain.model import ModelDelisted, ModelListed
from domain.seed_shapes import seed_shape
from projections.models import MODELS, find_model, find_model_by_code, list_models
from tests.examples import ACME, GLOBEX, example
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
        assert [model.code for model in await list_models(connection, ACME)] == ["a", "b"]
        assert [model.is_active for model in await list_models(connection, ACME, active_only=False)] == [
            True,
            True,
            False,
        ]


async def test_a_model_keeps_its_first_day_through_corrections(postgres_url: str) -> None:
    story = Story().happened("_", "m-1", _example(ModelListed), _example(ModelListed, context_length=4096))
    async with projected(postgres_url, MODELS, story.entries) as connection:
        model = await find_model(connection, ACME, "m-1")
    assert model is not None
    assert (model.context_length, model.created_at, model.updated_at) == (4096, NOON, NOON + timedelta(seconds=1))


async def test_a_delisted_model_is_not_found_by_its_code(postgres_url: str) -> None:
    story = Story().happened("_", "m-1", _example(ModelListed, code="a"), ModelDelisted())
    async with projected(postgres_url, MODELS, story.entries) as connection:
        assert await find_model_by_code(connection, ACME, "a") is None
        assert await find_model(connection, ACME, "m-1") is not None


async def test_an_organisations_own_model_is_its_alone(postgres_url: str) -> None:
    story = Story().happened("_", "m-1", _example(ModelListed, code="all"))
    story.happened(ACME, "m-2", _example(ModelListed, code="own"))
    async with projected(postgres_url, MODELS, story.entries) as connection:
        assert [model.code for model in await list_models(connection, ACME)] == ["all", "own"]
        for stranger in (GLOBEX, ""):
            assert [model.code for model in await list_models(connection, stranger)] == ["all"]
            assert await find_model(connection, stranger, "m-2") is None
            assert await find_model_by_code(connection, stranger, "own") is None
        assert await find_model(connection, ACME, "m-2") is not None


async def test_an_organisation_means_its_own_model_first(postgres_url: str) -> None:
    story = Story().happened("_", "m-1", _example(ModelListed, code="a"))
    story.happened(ACME, "m-2", _example(ModelListed, code="a"))
    async with projected(postgres_url, MODELS, story.entries) as connection:
        found = [await find_model_by_code(connection, who, "a") for who in (ACME, GLOBEX)]
    assert [model and model.id for model in found] == ["m-2", "m-1"]


async def test_models_are_listed_in_the_order_that_was_asked_for(postgres_url: str) -> None:
    story = Story().happened("_", "m-1", _example(ModelListed, code="a", context_length=1))
    story.happened("_", "m-2", _example(ModelListed, code="b", context_length=2))
    async with projected(postgres_url, MODELS, story.entries) as connection:
        found = await list_models(connection, ACME, order_by="context_length", order_dir="desc")
    assert [model.code for model in found] == ["b", "a"]


async def test_a_models_shape_comes_back_as_it_was_listed(postgres_url: str) -> None:
    listed = _example(ModelListed, shape=seed_shape("Qwen/Qwen2.5-7B-Instruct"))
    story = Story().happened("_", "m-1", listed).happened("_", "m-2", replace(listed, code="plain", shape=None))
    async with projected(postgres_url, MODELS, story.entries) as connection:
        found = {model.id: model for model in await list_models(connection, ACME)}
    assert found[ModelId("m-1")].listing == listed
    assert found[ModelId("m-2")].shape is None
