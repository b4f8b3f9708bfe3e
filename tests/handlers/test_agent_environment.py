"""What an engine is told at its birth: what its deployment was planned with."""

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from domain.ids import OrganizationId
from domain.message import subject_of
from infra.ledgered_doors import ledgered
from tests.examples import ACME
from tests.handlers.fixed_clouds import FixedClouds
from tests.handlers.world import INSTANCE_1, World


async def test_the_engine_is_told_what_was_planned() -> None:
    """Otherwise it would serve another context than the one that was found to fit, and might not start at all."""
    world = World()
    await world.request_instance(engine="vllm", gpu_count=2, context_tokens=8192)
    await world.settle()
    told = json.loads(world.cloud.requests[0].agent_environment["WORKER_ENGINE_ARGS"])
    assert told == {"args": ["--tensor-parallel-size", "2", "--max-model-len", "8192"]}


async def test_an_engine_without_a_plan_is_told_nothing() -> None:
    world = World()
    await world.request_instance(engine="vllm")
    await world.settle()
    assert "WORKER_ENGINE_ARGS" not in world.cloud.requests[0].agent_environment


TOKEN = "hf_aTokenThatOpensGatedModels"


def world_with_a_token(provider: str) -> World:
    async def opened(organization: OrganizationId, whose: str, /) -> Mapping[str, str]:
        return {"token": TOKEN} if (organization, whose) == (ACME, "huggingface") else {}

    world = World()
    doors = replace(world.doors, credentials=opened, clouds=FixedClouds({provider: world.cloud}))
    world.doors = ledgered(doors, "advance_instance")
    return world


async def test_an_engine_that_fetches_a_gated_model_is_given_the_organisations_token() -> None:
    world = world_with_a_token("scaleway")
    await world.request_instance(engine="vllm", provider="scaleway")
    await world.settle()
    assert world.cloud.requests[0].agent_environment["HF_TOKEN"] == TOKEN
    recorded = await world.log.read(subject_of(ACME, "instance", INSTANCE_1))
    assert recorded
    assert TOKEN not in repr(recorded)
    assert world.ledger.kept.rows
    assert TOKEN not in repr(world.ledger.kept.rows)


@pytest.mark.parametrize(("engine", "provider"), [("simulated", "scaleway"), ("vllm", "local")])
async def test_who_fetches_no_model_gets_no_token(engine: str, provider: str) -> None:
    world = world_with_a_token(provider)
    await world.request_instance(engine=engine, provider=provider)
    await world.settle()
    assert "HF_TOKEN" not in world.cloud.requests[0].agent_environment
