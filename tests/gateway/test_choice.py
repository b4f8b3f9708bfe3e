"""Which worker answers, as a table: loads and states in, a name out."""

import pytest

from domain.activation import FLAGS
from domain.instance_events import InstanceDeactivated
from gateway.choice import choose, why_none
from gateway.loads import Load
from gateway.wire import model_not_found
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


def test_workers_whose_instance_lacks_a_flag_are_not_chosen() -> None:
    for flag in FLAGS:
        table = routing(ready("a"), ready("b"), [(ACME, "a", InstanceDeactivated(flag=flag))])
        assert chosen(list(table.candidates(ACME, MODEL)), {"b": Load(outstanding=99)}) == "b"


def test_without_a_ready_worker_one_is_asked_to_come_again() -> None:
    refusal = why_none(MODEL)
    assert (refusal.status, refusal.code, refusal.param) == (503, "no_ready_worker", "model")
    assert dict(refusal.headers)[b"retry-after"] == b"5"
    assert "activation" not in refusal.message


def test_a_missing_activation_is_named() -> None:
    assert "wait for their economic activation" in why_none(MODEL, ["economic"]).message
    assert "wait for their technical and their economic activation" in why_none(MODEL, FLAGS).message


def test_a_long_model_name_is_not_echoed_whole() -> None:
    assert len(why_none("m" * 10_000).message) < 300
    assert len(model_not_found("m" * 10_000).message) < 300
