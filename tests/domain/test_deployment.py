import pytest
from msgspec.structs import replace

from domain.catalogue import InstanceType
from domain.deployment import (
    MAX_INSTANCES,
    DeploymentRefused,
    DeploymentRequested,
    DeploymentStopped,
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
    ],
)
def test_a_refusal_is_on_record_with_its_code(change: dict[str, object], code: str) -> None:
    requested, refused = given().when(replace(REQUEST, **change)).events
    assert isinstance(requested, DeploymentRequested)
    assert isinstance(refused, DeploymentRefused)
    assert refused.code == code
    assert refused.message.endswith((".", "`."))


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
