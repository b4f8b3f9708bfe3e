"""The `eventsourcing` library's own test cases pass on our persistence module, on one nats-server."""

import unittest
from collections.abc import Iterator

import pytest

from infra.events.eventsourcing_store import StreamStore
from tests.conformance import __main__ as runner
from tests.conformance.cases import PLACE, AggregateRecorderCase, bound_cases, failures_of, title
from tests.conformance.servers import servers

NODES = 1


@pytest.fixture(scope="module", autouse=True)
def place() -> Iterator[None]:
    with servers(NODES) as url:
        PLACE.url, PLACE.replicas = url, NODES
        yield


@pytest.mark.filterwarnings("always:'log' is deprecated:DeprecationWarning")  # a case asserts that the library warns
@pytest.mark.parametrize("case", bound_cases(), ids=title)
def test_the_librarys_own_case_passes(case: unittest.TestCase) -> None:
    assert not failures_of(case)


def test_control_a_recorder_that_checks_no_versions_fails_the_librarys_case(monkeypatch: pytest.MonkeyPatch) -> None:
    async def accept(*_: object) -> None:
        pass

    monkeypatch.setattr(StreamStore, "_refuse_stored", accept)
    assert failures_of(AggregateRecorderCase("test_insert_and_select"))


def test_the_runner_counts_what_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    cases = [unittest.FunctionTestCase(lambda: None), unittest.FunctionTestCase(lambda: pytest.fail("planted"))]
    monkeypatch.setattr(runner, "bound_cases", lambda: cases)
    assert runner.run_cases("here") == {"cases_here": 2, "passed_here": 1}
    printed = capsys.readouterr()
    assert "FAILED" in printed.out
    assert "planted" in printed.err
