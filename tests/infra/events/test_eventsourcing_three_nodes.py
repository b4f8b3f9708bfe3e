"""The `eventsourcing` library's own test cases pass on our persistence module, on three replicas."""

import unittest
from collections.abc import Iterator

import pytest

from tests.conformance.cases import PLACE, bound_cases, failures_of, title
from tests.conformance.servers import servers

NODES = 3


@pytest.fixture(scope="module", autouse=True)
def place() -> Iterator[None]:
    with servers(NODES) as url:
        PLACE.url, PLACE.replicas = url, NODES
        yield


@pytest.mark.filterwarnings("always:'log' is deprecated:DeprecationWarning")  # a case asserts that the library warns
@pytest.mark.parametrize("case", bound_cases(), ids=title)
def test_the_librarys_own_case_passes(case: unittest.TestCase) -> None:
    assert not failures_of(case)
