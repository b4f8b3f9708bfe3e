import pytest
from msgspec.structs import replace

from domain.catalogue import PROVIDERS, SEED_MODELS, find_provider, model_id_of
from domain.deployment import SIMULATED_MODEL
from domain.model import MODEL, DelistModel, ListModel, ModelDelisted, ModelListed, own_model_id
from tests.examples import ACME, GLOBEX, example
from tests.given import given, state_after

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
    given().when(DelistModel()).then_rejected("model_not_found")


def test_a_model_in_use_stays() -> None:
    given(LISTED).when(DelistModel(deployments=1)).then_rejected("model_in_use")
    given(LISTED).when(DelistModel(offerings=1)).then_rejected("model_in_use")


def test_a_new_model_does_not_replace_a_listed_one() -> None:
    given(LISTED).when(replace(LIST, is_new=True)).then_nothing()
    given(LISTED).when(replace(LIST, is_new=True, context_length=4096)).then_rejected("model_already_exists")
    given(LISTED, ModelDelisted()).when(replace(LIST, is_new=True)).then(LISTED)


def test_an_inactive_model_is_on_record_but_not_listed() -> None:
    inactive = replace(LIST, is_active=False)
    given().when(inactive).then(LISTED, ModelDelisted())
    given(LISTED).when(inactive).then(ModelDelisted())
    given(LISTED, ModelDelisted()).when(inactive).then_nothing()
    state = state_after(MODEL, [LISTED, ModelDelisted()])
    assert (state.listing, state.said) == (None, LISTED)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"code": ""}, "invalid_model_code"),
        ({"code": "two words"}, "invalid_model_code"),
        ({"code": "-flag"}, "invalid_model_code"),
        ({"code": "x" * 257}, "invalid_model_code"),
        ({"name": " "}, "name_required"),
        ({"name": "x" * 101}, "name_too_long"),
        ({"required_vram_gb": -1}, "invalid_size"),
        ({"required_vram_gb": 10**20}, "invalid_size"),
        ({"data_volume_gb": -1}, "invalid_size"),
        ({"context_length": 0}, "invalid_size"),
    ],
)
def test_a_description_beyond_reason_is_refused(changes: dict[str, object], code: str) -> None:
    given().when(replace(LIST, **changes)).then_rejected(code)


def test_a_repository_or_a_local_path_is_a_code() -> None:
    for code in ("owner/name-8B.v1", "/srv/models/mine", "./mine", "mine:latest"):
        assert given().when(replace(LIST, code=code)).events


def test_each_organisation_has_ids_of_its_own_for_its_models() -> None:
    assert own_model_id(ACME, "a") == own_model_id(ACME, "a")
    assert len({own_model_id(ACME, "a"), own_model_id(GLOBEX, "a"), own_model_id(ACME, "b"), model_id_of("a")}) == 4


def test_the_seed_lists_each_model_once() -> None:
    codes = [model.code for model in SEED_MODELS]
    assert SIMULATED_MODEL in codes
    assert len({model_id_of(code) for code in codes}) == len(codes)
    assert all(given().when(model).events for model in SEED_MODELS)


def test_every_type_offered_in_a_zone_is_priced() -> None:
    for provider in PROVIDERS:
        for zone in provider.zones:
            assert all(provider.instance_type(code) for code in zone.instance_types)


def test_only_active_providers_are_found() -> None:
    assert find_provider("local") is PROVIDERS[0]
    assert find_provider("ovh") is None
