"""What every provider must do, whatever it is made of: each law of the suite, on each cloud."""

from pathlib import Path

import pytest

from tests.infra.providers.conformance.double import CannotProduceError
from tests.infra.providers.conformance.suite import CASES, CLOUDS


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("cloud", CLOUDS)
async def test_each_provider_obeys(cloud: str, case: str, tmp_path: Path) -> None:
    try:
        async with CLOUDS[cloud](tmp_path) as double:
            await CASES[case](double)
    except CannotProduceError as reason:
        pytest.skip(str(reason))
