"""Which worker answers: of those that are ready, the one with the least open work for its weight. Pure.

    workers of (organisation, model) ── minus not ready, not activated, stale, tried ──> least (open + 1) / weight

Ties go to the worker that has waited longest for its turn, so that an idle fleet shares the work. A worker that drains
is not ready: it finishes what it has and gets nothing new.
"""

from collections.abc import Callable, Collection, Sequence

from domain.activation import Flag
from gateway.loads import Load
from gateway.wire import MAX_ECHO_CHARS, Refusal
from projections.routing_table import Worker

RETRY_AFTER_S = 5
"""When to ask again while no worker is ready: a worker's milestones arrive about that often."""


def choose(
    workers: Sequence[Worker],
    *,
    load_of: Callable[[str], Load],
    is_stale: Callable[[str], bool],
    excluded: Collection[str] = (),
) -> Worker | None:
    """The best worker, or None when none can take a request now; `excluded` are instance ids already tried."""
    fit = [
        worker
        for worker in workers
        if worker.takes_requests and worker.instance_id not in excluded and not is_stale(worker.instance_id)
    ]
    return min(fit, key=lambda worker: _rank(worker, load_of(worker.instance_id)), default=None)


def _rank(worker: Worker, load: Load) -> tuple[float, int, str]:
    return (load.outstanding + load.foreign + 1) / worker.weight, load.turn, worker.instance_id


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
