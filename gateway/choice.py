"""Which worker answers: the one that knows the prompt, or of those that may the least loaded for its capacity. Pure.

    workers that take requests ── minus tried, stale, full, tripped ──┬─ affinity: first in its order that is not
                                                                      │  above 1.25 times the average load
                                                                      └─ else: least (load + 1) / weight of a few

Load is our open requests, those of others by the last heartbeat, and a KV cache that is nearly full. Ties go to the
worker that has waited longest. The surprising rule: chance has a say. Every gateway sees nearly the same loads, seconds
old, and if each took the very best of all, all would run to the same worker at once (they herd); so each looks at a few
workers of its own drawing, and begins in the middle where it looks at all.
"""

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from math import ceil
from random import Random

from domain.activation import Flag
from gateway.affinity import Rendezvous
from gateway.loads import Load
from gateway.wire import MAX_ECHO_CHARS, Refusal
from projections.routing_workers import Worker

RETRY_AFTER_S = 5
"""When to ask again while no worker is ready: a worker's milestones arrive about that often."""
SCANNED_WORKERS = 8
"""Fleets up to this size are looked at whole."""
SAMPLED_WORKERS = 5
"""Of larger fleets so many are drawn, heavier ones more often. Two already keep the longest queue at log log n of the
fleet (Mitzenmacher 1996, the power of two choices); five is nearly the best of all as long as loads are exact, and is
still spread when they are a heartbeat old, where "the best of all" is the worst choice."""
LOAD_BOUND = 1.25
"""A worker takes a request for affinity's sake as long as it stays within so many times the average load (Mirrokni,
Thorup, Zadimoghaddam 2016: consistent hashing with bounded loads). Lower: fewer hits; higher: longer queues."""
AVERAGED_WORKERS = 16
"""The average is exact up to so many workers, and that of so many drawn ones beyond."""
AFFINITY_TRIES = 8
"""When so many first choices are out of the question, any worker is as good."""
KV_CACHE_FULL = 0.9
"""From this share of the KV cache on an engine soon preempts requests: it computes them again, and all of it slows."""
KV_CACHE_REQUESTS = 64
"""A KV cache that is full to the last block counts as so many requests per GPU; at KV_CACHE_FULL as none."""
REMEMBERED_FLEETS = 1024
"""Most models whose fleet stands ready to be chosen from; an older one is made ready again, in about a millisecond."""

Draw = Callable[[int], int]
"""A random number from 0 to below its argument; another one in each gateway process."""


def drawing(seed: int | None = None) -> Draw:
    """Each process its own, unless seeded."""
    chance = Random(seed).random  # noqa: S311 - spreads load, keeps no secret
    return lambda below: int(chance() * below)


def choose(
    workers: Sequence[Worker],
    *,
    load_of: Callable[[str], Load],
    may_take: Callable[[Worker], bool],
    draw: Draw,
    affinity: bytes = b"",
    excluded: Collection[str] = (),
) -> Worker | None:
    """The best worker, or None when none can take a request now.

    Args:
        workers: a model's; the same tuple as long as nothing about them changes, so that what was prepared is found.
        load_of: by instance id; asked for a few workers only.
        may_take: False for one that is stale, full, tripped, or does not speak the endpoint.
        draw: a random number from 0 to below its argument, another one in each gateway process.
        affinity: of affinity.affinity_of; empty: any worker is as good.
        excluded: instance ids already tried.
    """

    def fits(worker: Worker) -> bool:
        return worker.takes_requests and worker.instance_id not in excluded and may_take(worker)

    if affinity and (worker := _affine(_fleet_of(workers), affinity, load_of, fits, draw)):
        return worker
    if len(workers) <= SCANNED_WORKERS:
        return _least_of_few(workers, load_of, fits, draw)
    return _least(_fleet_of(workers).drawn(SAMPLED_WORKERS, draw), load_of, fits) or _least(
        islice(filter(fits, _from_the_middle(workers, draw)), SAMPLED_WORKERS), load_of, lambda _: True
    )


def load_per_weight(load: Load, weight: int, more: int = 0) -> float:
    """How busy a worker is, or would be with `more` requests, in requests per GPU."""
    busy = (load.outstanding + load.trust * load.foreign + more) / weight
    if load.kv_cache_usage > KV_CACHE_FULL:
        busy += KV_CACHE_REQUESTS * (load.kv_cache_usage - KV_CACHE_FULL) / (1 - KV_CACHE_FULL)
    return busy


class _Fleet:
    """What is prepared for one tuple of workers."""

    def __init__(self, workers: tuple[Worker, ...]) -> None:
        self.workers = workers
        self.takers = tuple(worker for worker in workers if worker.takes_requests)
        self.rendezvous = Rendezvous(self.takers)
        self._tickets = tuple(worker for worker in self.takers for _ in range(worker.weight))

    @property
    def weight(self) -> int:
        return len(self._tickets)

    def drawn(self, count: int, draw: Draw) -> list[Worker]:
        """With repetitions; a worker of eight GPUs comes eight times as often."""
        tickets = self._tickets
        below = len(tickets)
        return [tickets[draw(below)] for _ in range(count)] if tickets else []


_fleets: dict[tuple[str, str], _Fleet] = {}
"""By (organisation, model). Nothing but a memory of what `_Fleet` would say again."""


def _fleet_of(workers: Sequence[Worker]) -> _Fleet:
    if not isinstance(workers, tuple) or not workers:
        return _Fleet(tuple(workers))
    place = (workers[0].organization_id, workers[0].model_code)
    fleet = _fleets.get(place)
    if fleet is None or fleet.workers is not workers:
        _fleets.pop(place, None)
        while len(_fleets) >= REMEMBERED_FLEETS:
            del _fleets[next(iter(_fleets))]
        fleet = _fleets[place] = _Fleet(workers)
    return fleet


def _from_the_middle(workers: Sequence[Worker], draw: Draw) -> Sequence[Worker]:
    """All of them, from a drawn one on, so that equals do not always come in the same order."""
    start = draw(len(workers)) if workers else 0
    return [*workers[start:], *workers[:start]] if start else workers


def _least_of_few(
    workers: Sequence[Worker], load_of: Callable[[str], Load], fits: Callable[[Worker], bool], draw: Draw
) -> Worker | None:
    """`_least` of all, from a drawn one on; written out, since most fleets are small and each request comes by."""
    best, least, longest = None, 0.0, 0
    start = draw(len(workers)) if workers else 0
    for at in range(start - len(workers), start):
        worker = workers[at]
        load = load_of(worker.instance_id)
        busy = (load.outstanding + load.trust * load.foreign + 1) / worker.weight
        if load.kv_cache_usage > KV_CACHE_FULL:
            busy = load_per_weight(load, worker.weight) + 1 / worker.weight
        if (best is None or busy < least or (busy == least and load.turn < longest)) and fits(worker):
            best, least, longest = worker, busy, load.turn
    return best


def _least(workers: Iterable[Worker], load_of: Callable[[str], Load], fits: Callable[[Worker], bool]) -> Worker | None:
    best, least, longest = None, 0.0, 0
    for worker in workers:
        load = load_of(worker.instance_id)
        busy = load_per_weight(load, worker.weight, 1)
        is_better = best is None or busy < least or (busy == least and load.turn < longest)
        if is_better and fits(worker):  # asked last, since it costs most
            best, least, longest = worker, busy, load.turn
    return best


def _affine(
    fleet: _Fleet, affinity: bytes, load_of: Callable[[str], Load], fits: Callable[[Worker], bool], draw: Draw
) -> Worker | None:
    """The first in the key's order that fits and is not overloaded; None after AFFINITY_TRIES."""
    mean: float | None = None
    for worker in islice(fleet.rendezvous.order(affinity), AFFINITY_TRIES):
        if not fits(worker):
            continue
        weight = worker.weight
        busy = load_per_weight(load_of(worker.instance_id), weight)
        if not busy:
            return worker
        if mean is None:
            mean = _mean_load(fleet, load_of, fits, draw)
        if busy * weight + 1 <= ceil(LOAD_BOUND * mean * weight):
            return worker
    return None


def _mean_load(fleet: _Fleet, load_of: Callable[[str], Load], fits: Callable[[Worker], bool], draw: Draw) -> float:
    """Requests per GPU of those that could take one, with this one among them."""
    few = len(fleet.takers) <= AVERAGED_WORKERS
    fit = [worker for worker in (fleet.takers if few else fleet.drawn(AVERAGED_WORKERS, draw)) if fits(worker)]
    if few:
        weight = sum(worker.weight for worker in fit)
        requests = sum(load_per_weight(load_of(worker.instance_id), worker.weight) * worker.weight for worker in fit)
        return (requests + 1) / weight if weight else 0.0
    # Drawn by weight, so each counts once.
    busy = sum(load_per_weight(load_of(worker.instance_id), worker.weight) for worker in fit)
    return busy / len(fit) + 1 / fleet.weight if fit else 0.0


def why_none(model: str, missing: Sequence[Flag] = ()) -> Refusal:
    """The refusal when `choose` found nobody.

    Args:
        model: as the client called it.
        missing: activation flags that instances wait for; none are told to who is a stranger to them.
    """
    message = f"No worker is ready for '{model[:MAX_ECHO_CHARS]}' yet. Try again in {RETRY_AFTER_S} seconds."
    if missing:
        message += f" Instances wait for their {' and their '.join(missing)} activation."
    retry_after = (b"retry-after", str(RETRY_AFTER_S).encode())
    return Refusal(503, "no_ready_worker", message, param="model", headers=(retry_after,))
