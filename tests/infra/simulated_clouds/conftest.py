"""A simulated Scaleway whose time stands still, and the SDK's clients of its first account."""

from collections.abc import AsyncIterator

import pytest

from infra.simulated_clouds.scaleway.running import SimulatedScaleway, simulated_scaleway
from tests.infra.simulated_clouds.sdk import Sdk


@pytest.fixture
async def scaleway() -> AsyncIterator[SimulatedScaleway]:
    async with simulated_scaleway() as running:
        yield running


@pytest.fixture
def sdk(scaleway: SimulatedScaleway) -> Sdk:
    return Sdk(scaleway)
