from msgspec.structs import replace

from domain.catalogue import PROVIDERS, SEED_MODELS, find_provider, model_id_of
from domain.deployment import SIMULATED_MODEL
from domain.model import DelistModel, ListModel, ModelDelisted, ModelListed
from tests.examples import example
from tests.given import given

LISTED = example(ModelListed)
LIST = example(ListModel)


def test_listing_a_model_twice_lists_it_once() -> None:
    given().when(LIST).then(LISTED)
    given(LISTED).when(LIST).then_nothing()


def test_a_corrected_listing_is_news() -> None:
    corrected = given(LISTED).when(replace(LIST, context_length=4096)).events
    assert [e.context_length for e in corrected] == [4096]


def test_a_model_is_delisted_once_and_may_come_back() -> None:
    given(LISTED).when(DelistModel()).then(ModelDelisted())
    given(LISTED, ModelDelisted()).when(DelistModel()).then_nothing()
    given(LISTED, ModelDelisted()).when(LIST).then(LISTED)


def test_the_seed_lists_each_model_once() -> None:
    codes = [model.code for model in SEED_MODELS]
    assert SIMULATED_MODEL in codes
    assert len({model_id_of(code) for code in codes}) == len(codes)


def test_every_type_offered_in_a_zone_is_priced() -> None:
    for provider in PROVIDERS:
        for zone in provider.zones:
            assert all(provider.instance_type(code) for code in zone.instance_types)


def test_only_active_providers_are_found() -> None:
    assert find_provider("local") is PROVIDERS[0]
    assert find_provider("ovh") is None
