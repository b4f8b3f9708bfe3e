"""One platform for most journeys: starting it costs seconds, sharing it costs nothing. Whoever breaks it mends it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.platform import MODEL, Platform, made, running, until


@pytest.fixture(scope="session")
def platform() -> Iterator[Platform]:
    """The shared one, running; leave it with every process alive."""
    with tempfile.TemporaryDirectory(prefix="inventiv-") as folder, running(Path(folder)) as started:
        yield started


@pytest.fixture
def own_platform() -> Iterator[Platform]:
    """One of a test's own, not started yet; stopped afterwards if it runs."""
    with tempfile.TemporaryDirectory(prefix="inventiv-") as folder:
        platform = made(Path(folder))
        yield platform
        if platform.process is not None:
            platform.stop()
        assert platform.agents() == []


@pytest.fixture(scope="session")
def ready_instance(platform: Platform) -> str:
    """An instance of the mock model that stays; its id."""
    deployed = platform.json("deploy", MODEL)
    instance_id = str(deployed["instances"][0]["id"])
    until(lambda: MODEL in platform.gateway("GET", "/v1/models", key=platform.key).text, "the gateway lists the model")
    return instance_id
