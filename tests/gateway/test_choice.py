"""Which worker answers, as a table: loads and states in, a name out; and how many choices spread."""

from collections import Counter
from collections.abc import Collection, Mapping
from hashlib import sha256
from math import ceil
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.activation import FLAGS
from domain.instance_events import InstanceDeactivated
from gateway.affinity import Rendezvous
from gateway.choice import (
    AVERAGED_WORKERS,
    KV_CACHE_REQUESTS,
    LOAD_BOUND,
    SCANNED_WORKERS,
    choose,
    drawing,
    load_per_weight,
    why_none,
)
from gateway.loads import Load
from gateway.wire import model_not_found
from projections.routing_workers import Worker
from tests.examples import ACME
from tests.gateway.fleets import anyone, fleet, loads_of, worker
from tests.gateway.routing import MODEL, draining, ready, registered, routing

MANY = 3 * SCANNED_WORKERS
KEY = sha256(b"a session").digest()[:16]


def workers(**gpus: int) -> tuple[Worker, ...]:
    return tuple(worker(name, weight=count) for name, count in gpus.items())


def chosen(
    among: Collection[Worker],
    loads: Mapping[Any, Load],
    *,
    unfit: Collection[str] = (),
    excluded: Collection[str] = (),
    affinity: bytes = b"",
    seed: int = 1,
) -> str | None:
    found = choose(
        tuple(among),
        load_of=lambda name: loads.get(name, Load()),
        may_take=lambda fit: fit.instance_id not in unfit,
        affinity=affinity,
        excluded=excluded,
        draw=drawing(seed),
    )
    return found.instance_id if found else None


@pytest.mark.parametrize(
    ("gpus", "loads", "name"),
    [
        ({"a": 1, "b": 1}, {"a": Load(outstanding=2), "b": Load(outstanding=1)}, "b"),
        ({"a": 1, "b": 1}, {"a": Load(foreign=3), "b": Load(outstanding=2)}, "b"),
        ({"a": 1, "b": 1}, {"a": Load(foreign=3, trust=0.5), "b": Load(outstanding=2)}, "a"),
        ({"a": 1, "b": 4}, {"a": Load(outstanding=1), "b": Load(outstanding=4)}, "b"),
        ({"a": 1, "b": 4}, {"a": Load(outstanding=0), "b": Load(outstanding=4)}, "a"),
        ({"a": 1, "b": 1}, {"a": Load(kv_cache_usage=0.95), "b": Load(outstanding=20)}, "b"),
        ({"a": 1, "b": 1}, {"a": Load(kv_cache_usage=0.95), "b": Load(outstanding=40)}, "a"),
        ({"a": 1, "b": 1}, {"a": Load(kv_cache_usage=0.9), "b": Load(outstanding=1)}, "a"),
        ({"a": 1, "b": 1}, {"a": Load(turn=9), "b": Load(turn=3)}, "b"),
    ],
)
def test_the_least_loaded_for_its_weight_is_chosen(gpus: dict[str, int], loads: dict[str, Load], name: str) -> None:
    for seed in range(20):
        assert chosen(workers(**gpus), loads, seed=seed) == name


def test_a_full_kv_cache_counts_as_requests() -> None:
    assert load_per_weight(Load(kv_cache_usage=1.0), 4) == pytest.approx(KV_CACHE_REQUESTS)
    assert load_per_weight(Load(outstanding=8, foreign=4, trust=0.5, kv_cache_usage=0.9), 2) == 5.0


def test_equals_are_chosen_by_chance() -> None:
    assert {chosen(fleet(3), {}, seed=seed) for seed in range(50)} == {"w0", "w1", "w2"}


def test_only_ready_workers_are_chosen() -> None:
    among = routing(ready("a"), draining("a"), registered("b"), ready("c")).candidates(ACME, MODEL)
    for affinity in (b"", KEY):
        assert chosen(among, {"c": Load(outstanding=99)}, affinity=affinity) == "c"


def test_unfit_and_tried_workers_are_passed_over() -> None:
    among = workers(a=1, b=1, c=1)
    for affinity in (b"", KEY):
        assert chosen(among, {"c": Load(outstanding=9)}, unfit="a", excluded="b", affinity=affinity) == "c"


def test_nobody_is_chosen_when_none_is_fit() -> None:
    for affinity in (b"", KEY):
        assert chosen(workers(a=1), {}, unfit="a", affinity=affinity) is None
        assert chosen([], {}, affinity=affinity) is None
        assert chosen([worker(status="draining")], {}, affinity=affinity) is None
        names = [w.instance_id for w in fleet(MANY)]
        assert chosen(fleet(MANY), {}, unfit=names, affinity=affinity) is None


def test_workers_whose_instance_lacks_a_flag_are_not_chosen() -> None:
    for flag in FLAGS:
        table = routing(ready("a"), ready("b"), [(ACME, "a", InstanceDeactivated(flag=flag))])
        assert chosen(table.candidates(ACME, MODEL), {"b": Load(outstanding=99)}) == "b"
        assert [w.instance_id for w in table.ready(ACME, MODEL)] == ["b"]


@given(
    count=st.integers(1, 60),
    busy=st.lists(st.integers(0, 9), min_size=60, max_size=60),
    unfit=st.sets(st.integers(0, 59)),
    out=st.sets(st.integers(0, 59)),
    affine=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200, deadline=None)
def test_who_is_out_of_the_question_is_never_chosen_and_who_is_not_is_found(
    count: int, busy: list[int], unfit: set[int], out: set[int], affine: bool, seed: int
) -> None:
    """Draining, unfit (stale, full, tripped) and tried workers in any mixture."""
    among = [worker(f"w{n}", status="draining" if n in out and n % 2 else "ready") for n in range(count)]
    bad = {f"w{n}" for n in unfit}
    tried = {f"w{n}" for n in out if not n % 2}
    fit = {w.instance_id for w in among if w.takes_requests} - bad - tried
    loads = {f"w{n}": Load(outstanding=busy[n]) for n in range(count)}
    found = chosen(among, loads, unfit=bad, excluded=tried, affinity=KEY if affine else b"", seed=seed)
    assert (found in fit) if fit else (found is None)


def test_of_a_large_fleet_nobody_far_above_the_others_is_chosen() -> None:
    """Half of it is busy; all five drawn are so once in 32 times."""
    loads = {f"w{n}": Load(outstanding=50 * (n % 2)) for n in range(1000)}
    busy = sum(int(str(chosen(fleet(1000), loads, seed=seed))[1:]) % 2 for seed in range(300))
    assert busy < 30


def test_heavier_workers_of_a_large_fleet_are_drawn_more_often() -> None:
    among = tuple(worker(f"w{n}", weight=8 if n < 10 else 1) for n in range(90))
    got = Counter(int(str(chosen(among, {}, seed=seed))[1:]) < 10 for seed in range(400))
    assert got[True] > 300  # by share of the GPUs 200, and of two drawn ones the larger is the less loaded


# ---- affinity


def test_the_same_key_meets_the_same_worker_while_that_is_not_overloaded() -> None:
    for count in (3, MANY, 1000):
        among = fleet(count)
        first = next(Rendezvous(among).order(KEY)).instance_id
        even = {w.instance_id: Load(outstanding=4) for w in among}
        assert {chosen(among, even, affinity=KEY, seed=seed) for seed in range(20)} == {first}


def test_above_the_bound_the_next_in_its_order_answers() -> None:
    among = fleet(10)
    first, second = (w.instance_id for w, _ in zip(Rendezvous(among).order(KEY), range(2), strict=False))
    loads = {w.instance_id: Load(outstanding=8) for w in among}
    mean = (8 * 10 + 1) / 10
    most = ceil(LOAD_BOUND * mean) - 1
    loads[first] = Load(outstanding=most)
    assert chosen(among, loads, affinity=KEY) == first
    loads[first] = Load(outstanding=most + 2)  # two, for its own load raises the average
    assert chosen(among, loads, affinity=KEY) == second


def test_without_the_first_its_keys_go_to_the_next_and_come_back() -> None:
    among = fleet(10)
    order = [w.instance_id for w in Rendezvous(among).order(KEY)]
    assert chosen(among, {}, unfit=order[:1], affinity=KEY) == order[1]
    assert chosen(among, {}, excluded=order[:2], affinity=KEY) == order[2]
    assert chosen(among, {}, affinity=KEY) == order[0]


@given(
    weights=st.lists(st.integers(1, 8), min_size=1, max_size=AVERAGED_WORKERS),
    keys=st.lists(st.integers(0, 5), min_size=1, max_size=150),
    endings=st.randoms(use_true_random=False),
)
@settings(max_examples=60, deadline=None)
def test_affinity_never_lifts_a_worker_above_the_bound(weights: list[int], keys: list[int], endings: Random) -> None:
    among = tuple(worker(f"w{n}", weight=weight) for n, weight in enumerate(weights))
    open_: Counter[str] = Counter()
    for key in keys:
        affinity = sha256(b"%d" % key).digest()[:16]
        found = choose(among, load_of=loads_of(open_), may_take=anyone, affinity=affinity, draw=drawing(1))
        assert found is not None
        mean = (sum(open_.values()) + 1) / sum(weights)
        assert open_[found.instance_id] + 1 <= ceil(LOAD_BOUND * mean * found.weight)
        open_[found.instance_id] += 1
        if endings.random() < 0.4:
            open_[endings.choice(sorted(open_.elements()))] -= 1


def test_in_a_large_fleet_one_hot_prefix_stays_near_the_bound() -> None:
    """The average is that of drawn workers, so the bound holds nearly: here within twice."""
    among, draw, open_ = fleet(200), drawing(1), Counter[str]()
    for number in range(2000):
        affinity = KEY if number % 2 else sha256(b"%d" % number).digest()[:16]
        found = choose(among, load_of=loads_of(open_), may_take=anyone, affinity=affinity, draw=draw)
        assert found is not None
        open_[found.instance_id] += 1
    assert max(open_.values()) <= 2 * LOAD_BOUND * 10


def test_a_fleet_is_prepared_again_when_it_changes() -> None:
    among = fleet(MANY)
    first = chosen(among, {}, affinity=KEY)
    others = tuple(w for w in among if w.instance_id != first)
    assert chosen(others, {}, affinity=KEY) != first
    assert chosen(among, {}, affinity=KEY) == first
    assert chosen(list(others), {}, affinity=KEY) != first


# ---- nobody


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
