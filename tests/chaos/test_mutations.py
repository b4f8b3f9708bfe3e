"""The mutator itself, small: what `just chaos-events` does a thousand times."""

import random

import pytest

from infra.audit.checking import TamperedError
from tests.chaos.mutations import FORGERIES, KINDS, mutate_all, verify, verify_without_seals
from tests.infra.audit.sealed import sealed_log

ROWS = 300


async def test_every_random_change_is_found_and_none_is_imagined(postgres_url: str) -> None:
    assert await mutate_all(postgres_url, mutations=30, rows=ROWS) == {
        "mutations": 30,
        "mutations_detected": 30,
        "mutations_control_detected": 0,
        "mutations_seals_alone": pytest.approx(4, abs=4),
        "mutations_false_alarms": 0,
    }


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_change_is_found(postgres_url: str, kind: str) -> None:
    async with sealed_log(postgres_url, count=ROWS, sizes=(100, ROWS)) as (connection, notary):
        await verify(connection, notary)
        await KINDS[kind](connection, random.Random(kind), ROWS)
        with pytest.raises(TamperedError):
            await verify(connection, notary)


@pytest.mark.parametrize("kind", FORGERIES)
async def test_a_perfect_forgery_is_found_by_its_seals_alone(postgres_url: str, kind: str) -> None:
    async with sealed_log(postgres_url, count=ROWS, sizes=(100, ROWS)) as (connection, notary):
        await KINDS[kind](connection, random.Random(kind), ROWS)
        await verify_without_seals(connection, notary)
        with pytest.raises(TamperedError):
            await verify(connection, notary)
