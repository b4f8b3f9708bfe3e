"""One platform for most journeys: starting it costs seconds, sharing it costs nothing. Whoever breaks it mends it."""

import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.journeys.platform import MODEL, Platform, made, running, until


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed journey shows what the processes said."""
    report = yield
    if report.failed and isinstance(item, pytest.Function):
        for given in item.funcargs.values():
            if isinstance(given, Platform) and given.data_dir.exists():  # gone when it was the teardown that failed
                report.sections += [("inventiv up", given.log), ("logs of the roles", given.role_logs())]
    return report


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
        assert platform.refusals() == []


@pytest.fixture
def ready_instance(platform: Platform) -> str:
    """A ready instance of the mock model, one that is there or a new one; its id."""
    views = platform.rest("GET", "/instances").json()
    ready = [view["id"] for view in views if (view["model_code"], view["status"]) == (MODEL, "ready")]
    instance_id = str(ready[0] if ready else platform.json("deploy", MODEL)["instances"][0]["id"])
    until(lambda: MODEL in platform.gateway("GET", "/v1/models", key=platform.key).text, "the gateway lists the model")
    return instance_id
