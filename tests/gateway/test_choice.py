"""Which worker answers, as a table: loads and states in, a name out."""

import pytest

from gateway.choice import choose, why_none
from gateway.loads import Load
from projections.routing_table import Worker
from tests.examples import ACME
from tests.gateway.routing import MODEL, draining, ready, registered, routing


def workers(**gpus: int) -> list[Worker]:
    told = [ready(name, gpus=count) for name, count in gpus.items()]
    return list(routing(*told).candidates(ACME, MODEL))


def chosen(
    among: list[Worker],
    loads: dict[str, Load],
    *,
    stale: frozenset[str] = frozenset(),
    excluded: frozenset[str] = frozenset(),
) -> str | None:
    worker = choose(among, load_of=lambda i: loads.get(i, Load()), is_stale=lambda i: i in stale, excluded=excluded)
    return worker.instance_id if worker else None


@pytest.mark.parametrize(
    ("gpus", "loads", "name"),
    [
        ({"a": 1, "b": 1}, {"a": Load(outstanding=2), "b": Load(outstanding=1)}, "b"),
        ({"a": 1, "b": 1}, {"a": Load(foreign=3), "b": Load(outstanding=2)}, "b"),
        ({"a": 1, "b": 4}, {"a": Load(outstanding=1), "b": Load(outstanding=4)}, "b"),
        ({"a": 1, "b": 4}, {"a": Load(outstanding=0), "b": Load(outstanding=4)}, "a"),
        ({"a": 1, "b": 1}, {"a": Load(turn=9), "b": Load(turn=3)}, "b"),
        ({"a": 1, "b": 1}, {}, "a"),
    ],
)
def test_the_least_loaded_for_its_weight_is_chosen(gpus: dict[str, int], loads: dict[str, Load], name: str) -> None:
    assert chosen(workers(**gpus), loads) == name


def test_only_ready_workers_are_chosen() -> None:
    among = list(routing(ready("a"), draining("a"), registered("b"), ready("c")).candidates(ACME, MODEL))
    assert chosen(among, {"c": Load(outstanding=99)}) == "c"


def test_stale_and_tried_workers_are_passed_over() -> None:
    among = workers(a=1, b=1, c=1)
    assert chosen(among, {"c": Load(outstanding=9)}, stale=frozenset("a"), excluded=frozenset("b")) == "c"


def test_nobody_is_chosen_when_none_is_fit() -> None:
    assert chosen(workers(a=1), {}, stale=frozenset("a")) is None
    assert chosen([], {}) is None


def test_an_unknown_model_is_not_found() -> None:
    refusal = why_none("nope", known=False)
    assert (refusal.status, refusal.code, refusal.param) == (404, "model_not_found", "model")


def test_a_known_model_without_a_ready_worker_asks_to_come_again() -> None:
    refusal = why_none(MODEL, known=True)
    assert (refusal.status, refusal.code) == (503, "no_ready_worker")
    assert dict(refusal.headers)[b"retry-after"] == b"5"


def test_a_long_model_name_is_not_echoed_whole() -> None:
    assert len(why_none("m" * 10_000, known=False).message) < 300
    assert len(why_none("m" * 10_000, known=True).message) < 300
