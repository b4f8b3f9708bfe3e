"""Behind its circuit an adapter keeps every law: each call, each ability and each error goes through it unchanged."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path

from infra.providers.circuit import Breaker, CircuitCloud
from tests.infra.providers.conformance.double import Double
from tests.infra.providers.conformance.suite import CASES, CLOUDS, judge

LONGER_THAN_ANY_PAUSE_S = 1000


@asynccontextmanager
async def behind_a_circuit(folder: Path) -> AsyncIterator[Double]:
    """Between two looks at its clock every pause is over, so that the circuit asks whenever it is asked."""
    async with CLOUDS["scaleway"](folder) as double:
        clock = count(0, LONGER_THAN_ANY_PAUSE_S)

        def new_cloud() -> CircuitCloud:
            return CircuitCloud(double.new_cloud(), Breaker("scaleway", lambda: float(next(clock))))

        yield replace(double, new_cloud=new_cloud)


async def test_every_law_holds_behind_a_circuit() -> None:
    verdict = await judge(behind_a_circuit)
    assert verdict.failed == {}
    assert set(verdict.passed) == set(CASES)
