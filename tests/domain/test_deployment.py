import pytest
from msgspec.structs import replace

from domain.catalogue import SEED_MODELS, InstanceType
from domain.deployment import (
    MAX_ALTERNATIVES,
    MAX_INSTANCES,
    DeploymentRefused,
    DeploymentRequested,
    DeploymentStopped,
    NamedPlace,
    RequestDeployment,
    StopDeployment,
    instance_ids,
)
from domain.model import ModelListed
from tests.examples import DEPLOYED, example
from tests.given import given

REQUEST = example(RequestDeployment)
REQUESTED = example(DeploymentRequested)
BIG = ModelListed(code="big", name="Big", required_vram_gb=160, context_length=8192, data_volume_gb=1000)
L4 = InstanceType(
    code="L4-1-24G", gpu_count=1, vram_per_gpu_gb=24, cpu_count=8, ram_gb=48, price_eur_micros_per_hour=750_000
)
LLAMA, LONG = (
    ModelListed(**{field: getattr(seed, field) for field in ModelListed.__struct_fields__})
    for seed in SEED_MODELS
    if seed.code in {"meta-llama/Meta-Llama-3-8B-Instruct", "meta-llama/Llama-3.1-8B-Instruct"}
)
THERE = NamedPlace(zone="fr-par-1", instance_type="L4-1-24G", zone_known=True, offer=L4, offered_in_zone=True)
DOLLARS = replace(L4, code="g6.xlarge", price_eur_micros_per_hour=None)


def test_what_fits_is_requested() -> None:
    given().when(REQUEST).then(REQUESTED)


def test_asking_twice_asks_once() -> None:
    given(REQUESTED).when(REQUEST).then_nothing()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model_code": ""}, "MISSING_MODEL"),
        ({"zone": ""}, "MISSING_PARAMS"),
        ({"instances": 0}, "MISSING_PARAMS"),
        ({"instances": MAX_INSTANCES + 1}, "MISSING_PARAMS"),
        ({"provider_known": False}, "INVALID_PROVIDER"),
        ({"zone_known": False}, "INVALID_ZONE"),
        ({"offer": None}, "INVALID_INSTANCE_TYPE"),
        ({"offered_in_zone": False}, "INSTANCE_TYPE_NOT_AVAILABLE_IN_ZONE"),
        ({"model": None}, "INVALID_MODEL"),
        ({"engine": "vllm"}, "INCOMPATIBLE_MODEL_INSTANCE"),
        ({"engine": "vllm", "model": BIG, "model_code": "big", "offer": L4}, "INCOMPATIBLE_MODEL_INSTANCE"),
        ({"offer": DOLLARS}, "PRICE_UNKNOWN"),
        ({"credentials_missing": ("secret_key",)}, "MISSING_PROVIDER_CREDENTIALS"),
        ({"alternatives": (replace(THERE, zone=""),)}, "MISSING_PARAMS"),
        ({"alternatives": (THERE,) * (MAX_ALTERNATIVES + 1)}, "MISSING_PARAMS"),
        ({"alternatives": (THERE, replace(THERE, zone_known=False))}, "INVALID_ZONE"),
        ({"alternatives": (replace(THERE, offer=None),)}, "INVALID_INSTANCE_TYPE"),
        ({"alternatives": (replace(THERE, offered_in_zone=False),)}, "INSTANCE_TYPE_NOT_AVAILABLE_IN_ZONE"),
        ({"alternatives": (replace(THERE, offer=DOLLARS),)}, "PRICE_UNKNOWN"),
    ],
)
def test_a_refusal_is_on_record_with_its_code(change: dict[str, object], code: str) -> None:
    requested, refused = given().when(replace(REQUEST, **change)).events
    assert isinstance(requested, DeploymentRequested)
    assert isinstance(refused, DeploymentRefused)
    assert refused.code == code
    assert refused.message.endswith((".", "`."))


def test_alternatives_are_recorded_in_their_order_with_what_they_cost() -> None:
    dearer = replace(THERE, zone="nl-ams-1", offer=replace(L4, price_eur_micros_per_hour=900_000))
    (requested,) = given().when(replace(REQUEST, alternatives=(THERE, dearer), disk_gb=150)).events
    assert isinstance(requested, DeploymentRequested)
    assert [(place.zone, place.price_eur_micros_per_hour) for place in requested.alternatives] == [
        ("fr-par-1", 750_000),
        ("nl-ams-1", 900_000),
    ]
    assert requested.disk_gb == 150


def test_every_alternative_must_hold_the_model() -> None:
    """The first one would; its second choice is a machine that the weights do not fit into."""
    small = replace(L4, code="RENDER-S", vram_per_gpu_gb=16)
    wish = replace(REQUEST, engine="vllm", provider="scaleway", model=LLAMA, model_code=LLAMA.code, offer=L4)
    assert [type(e) for e in given().when(wish).events] == [DeploymentRequested]
    refused = given().when(replace(wish, alternatives=(replace(THERE, offer=small),))).events[-1]
    assert isinstance(refused, DeploymentRefused)
    assert (refused.code, "16.1 GB of weights" in refused.message) == ("INCOMPATIBLE_MODEL_INSTANCE", True)


def test_a_context_that_does_not_fit_is_refused_with_the_one_that_does() -> None:
    """Llama 3.1 with all of its 131,072 tokens would never start on 24 GB, and be paid for meanwhile."""
    wish = replace(REQUEST, engine="vllm", provider="scaleway", model=LONG, model_code=LONG.code, offer=L4)
    refused = given().when(wish).events[-1]
    assert isinstance(refused, DeploymentRefused)
    assert "a context_tokens of 27004 or fewer" in refused.message
    (requested,) = given().when(replace(wish, context_tokens=27_004)).events
    assert isinstance(requested, DeploymentRequested)
    assert requested.context_tokens == 27_004


def test_the_engine_is_told_the_context_that_was_planned() -> None:
    wish = replace(REQUEST, engine="vllm", provider="scaleway", model=LLAMA, model_code=LLAMA.code, offer=L4)
    for asked, served in ((0, 8_192), (4_096, 4_096), (1_000_000, 8_192)):
        (requested,) = given().when(replace(wish, context_tokens=asked)).events
        assert isinstance(requested, DeploymentRequested)
        assert requested.context_tokens == served


def test_the_simulated_engine_stands_in_for_any_model() -> None:
    outcome = given().when(replace(REQUEST, model=BIG, model_code="big"))
    assert [type(e) for e in outcome.events] == [DeploymentRequested]


def test_a_deployment_is_stopped_once() -> None:
    given(REQUESTED).when(StopDeployment()).then(DeploymentStopped())
    given(REQUESTED, DeploymentStopped()).when(StopDeployment()).then_nothing()
    given().when(StopDeployment()).then_rejected("deployment_not_found")


def test_a_refused_deployment_needs_no_stop() -> None:
    given(REQUESTED, example(DeploymentRefused)).when(StopDeployment()).then_nothing()


def test_instance_ids_follow_from_the_deployment_alone() -> None:
    three = instance_ids(DEPLOYED, 3)
    assert len(set(three)) == 3
    assert instance_ids(DEPLOYED, 2) == three[:2]
