"""What it costs to choose among a thousand workers, with a thousand and a hundred thousand keys in the table.

    python -m tests.bench.gateway.choice       prints each figure, and all of them as one JSON object on the last line

CPU time of this process. Choice is asked as the exchange asks it: of the table's workers, every one busy, heard of and
with room; keys of affinity all different. Admission is a whole look at a key (gateway/admission.py); a thousand callers
are busy in both tables. "cold" is what a hundred thousand busy callers cost: the rows of each have left the processor's
cache since its last request, which no table can help.
"""

import gc
import json
import time
import tracemalloc
from collections.abc import Callable
from hashlib import sha256
from random import Random

from gateway.admission import Asked, admit
from gateway.choice import choose, drawing
from gateway.loads import Loads
from projections.routing_table import RoutingTable
from projections.routing_workers import Worker
from tests.bench.routing_table import clear_key, key_rows
from tests.examples import ACME
from tests.gateway.routing import MODEL, entries, ready
from tests.given import NOON

WORKERS = 1000
OPEN_PER_WORKER = 4
CHOICES = 2000
REPEATS = 5
"""The best counts: what is above it is other people's work on this machine."""
FEW_KEYS, MANY_KEYS = 1000, 100_000
LOOKS = 20_000


def measure() -> dict[str, float]:
    """All figures; takes about ten seconds.

    choice_1000_us is the dearer of both paths (load, affinity) with 100,000 keys. The ratios are 100,000 keys to 1,000.
    """
    few, _ = _table(FEW_KEYS)
    many, table_mb = _table(MANY_KEYS)
    load_us, affinity_us = _choice_us(many, with_affinity=False), _choice_us(many, with_affinity=True)
    before_us = max(_choice_us(few, with_affinity=False), _choice_us(few, with_affinity=True))
    few_us, many_us = _admission_us(few, FEW_KEYS, FEW_KEYS), _admission_us(many, MANY_KEYS, FEW_KEYS)
    return {
        "choice_1000_us": round(max(load_us, affinity_us), 2),
        "choice_1000_load_us": round(load_us, 2),
        "choice_1000_affinity_us": round(affinity_us, 2),
        "choice_100k_vs_1k_keys": round(max(load_us, affinity_us) / before_us, 2),
        "admission_us": round(many_us, 2),
        "admission_100k_vs_1k_keys": round(many_us / few_us, 2),
        "admission_cold_us": round(_admission_us(many, MANY_KEYS, MANY_KEYS), 2),
        "table_100k_mb": round(table_mb, 1),
    }


def _table(keys: int) -> tuple[RoutingTable, float]:
    """With a thousand workers, of one to eight GPUs; and its memory in megabytes."""
    gc.collect()
    tracemalloc.start()
    table = RoutingTable(key_rows(keys))
    for entry in entries(one for number in range(WORKERS) for one in ready(f"worker-{number}", gpus=1 + number % 8)):
        table.apply(entry)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return table, held / 1e6


def _choice_us(table: RoutingTable, *, with_affinity: bool) -> float:
    loads, draw, chance = Loads(stale_s=lambda: 120.0, now_s=time.monotonic), drawing(1), Random(1)
    for worker in table.ready(ACME, MODEL):
        for _ in range(chance.randrange(2 * OPEN_PER_WORKER)):
            loads.began(worker.instance_id)
        loads.heard(worker.instance_id, OPEN_PER_WORKER, 0.3)
    keys = [sha256(b"%d" % number).digest()[:16] if with_affinity else b"" for number in range(CHOICES)]

    def may_take(worker: Worker) -> bool:
        return loads.has_room(worker) and (worker.foreign or not loads.is_stale(worker.instance_id))

    def choices() -> None:
        for key in keys:
            choose(table.ready(ACME, MODEL), load_of=loads.of, may_take=may_take, affinity=key, draw=draw)

    return _least_s(choices) / CHOICES * 1e6


def _admission_us(table: RoutingTable, keys: int, busy: int) -> float:
    """The busy ones lie scattered among all."""
    chance = Random(2)
    some = [_asked(clear_key(number * (keys // busy))) for number in range(busy)]
    asked = [some[chance.randrange(busy)] for _ in range(LOOKS)]

    def looks() -> None:
        for one in asked:
            admit(one, table)

    return _least_s(looks) / LOOKS * 1e6


def _asked(clear: str) -> Asked:
    headers = [(b"authorization", f"Bearer {clear}".encode())]
    return Asked(headers=headers, endpoint="chat", address="192.0.2.7", now=NOON)


def _least_s(work: Callable[[], None]) -> float:
    least = float("inf")
    gc.disable()  # the collector's walk over a large table is not what is measured, and the gateway freezes its own
    try:
        for _ in range(REPEATS):
            began = time.process_time()
            work()
            least = min(least, time.process_time() - began)
    finally:
        gc.enable()
    return least


if __name__ == "__main__":
    figures = measure()
    for name, value in figures.items():
        print(f"{name:28} {value:12.3f}")
    print(json.dumps(figures))
