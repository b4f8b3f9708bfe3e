"""Several gateways before one fleet: none sees what the others do, all hear the same heartbeats, seconds old.

Each tells its requests by chance, a request runs 4 s in the mean, heartbeats come every 5 s. What is watched is the
busiest worker beside the average, four times a second, once the fleet is busy. Nothing here sleeps: time is a number.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from random import Random

import pytest

from gateway import loads
from gateway.choice import choose, drawing
from gateway.loads import Loads
from tests.gateway.fleets import anyone, fleet

BEAT_S = 5.0
SERVICE_S = 4.0
WARM_S = 10.0
END_S = 40.0
PER_WORKER = 8
"""Requests open on a worker, in the mean."""

Draw = Callable[[int], int]


def busiest(count: int, draws: Sequence[Draw], *, chance: Random) -> float:
    """99th percentile of (open requests of the busiest worker / of the average one)."""
    workers, now, open_ = fleet(count), [0.0], Counter[str]()
    seen = [Loads(stale_s=lambda: 1e9, now_s=lambda: now[0]) for _ in draws]
    rate, ratios, look_s = count * PER_WORKER / SERVICE_S, list[float](), WARM_S
    events: list[tuple[float, str, int, str]] = [(chance.expovariate(rate), "comes", 0, "")]
    for worker in workers:
        heappush(events, (BEAT_S, "beats", 0, worker.instance_id))
    while events and now[0] < END_S:
        now[0], what, replica, name = heappop(events)
        if what == "beats":
            for told in seen:
                told.heard(name, open_[name])
            heappush(events, (now[0] + BEAT_S, "beats", 0, name))
        elif what == "ends":
            seen[replica].ended(name)
            open_[name] -= 1
        else:
            replica = chance.randrange(len(draws))
            taker = choose(workers, load_of=seen[replica].of, may_take=anyone, draw=draws[replica])
            assert taker is not None
            seen[replica].began(taker.instance_id)
            open_[taker.instance_id] += 1
            heappush(events, (now[0] + chance.expovariate(1 / SERVICE_S), "ends", replica, taker.instance_id))
            heappush(events, (now[0] + chance.expovariate(rate), "comes", 0, ""))
        if now[0] > look_s:
            look_s += 0.25
            ratios.append(max(open_.values()) / (open_.total() / count))
    return sorted(ratios)[int(0.99 * len(ratios))]


def own_draws(replicas: int) -> list[Draw]:
    return [drawing(seed) for seed in range(replicas)]


def no_draws(replicas: int) -> list[Draw]:
    return [lambda _below: 0] * replicas


@pytest.mark.parametrize(("count", "factor"), [(3, 1.7), (8, 1.7), (50, 2.0)])
def test_three_gateways_keep_the_busiest_worker_near_the_average(count: int, factor: float) -> None:
    assert busiest(count, own_draws(3), chance=Random(7)) < factor


def test_one_gateway_is_nearly_even() -> None:
    assert busiest(50, own_draws(1), chance=Random(7)) < 1.4


def test_without_the_draw_they_herd() -> None:
    """The control: the same fleet, the same requests."""
    drawn, herded = busiest(50, own_draws(3), chance=Random(7)), busiest(50, no_draws(3), chance=Random(7))
    assert herded > 5 * drawn


def test_three_that_take_foreign_load_at_face_value_evade_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    by_share = busiest(50, own_draws(3), chance=Random(7))
    monkeypatch.setattr(loads, "LEAST_TRUST", 1.0)
    assert busiest(50, own_draws(3), chance=Random(7)) > 1.2 * by_share
