"""The suite of every provider: all laws, by name. pytest runs them one by one, `just conformance` all at once."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeAlias

import msgspec

from tests.infra.providers.conformance import ability_cases, error_cases, existence_cases, server_cases
from tests.infra.providers.conformance.clouds import CLOUDS, OpenDouble
from tests.infra.providers.conformance.double import CannotProduceError, Double

Case: TypeAlias = Callable[[Double], Awaitable[None]]

_ALL: tuple[Case, ...] = (
    *server_cases.CASES,
    *existence_cases.CASES,
    *error_cases.CASES,
    *ability_cases.CASES,
)
CASES: dict[str, Case] = {case.__name__: case for case in _ALL}


class Verdict(msgspec.Struct, kw_only=True):
    """Of one cloud: names of cases; `failed` with what went wrong, `skipped` with what its double cannot do."""

    passed: list[str] = []
    failed: dict[str, str] = {}
    skipped: dict[str, str] = {}


async def judge(open_double: OpenDouble, cases: dict[str, Case] = CASES) -> Verdict:
    """Runs every case on a fresh double."""
    verdict = Verdict()
    for name, case in cases.items():
        with TemporaryDirectory(prefix="inventiv-conformance-") as folder:
            try:
                async with open_double(Path(folder)) as double:
                    await case(double)
            except CannotProduceError as reason:
                verdict.skipped[name] = str(reason)
            except Exception as error:  # noqa: BLE001 - whatever a case raises is its failure
                verdict.failed[name] = f"{type(error).__name__}: {error}"
            else:
                verdict.passed.append(name)
    return verdict


__all__ = ["CASES", "CLOUDS", "Case", "Verdict", "judge"]
