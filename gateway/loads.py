"""How busy and how alive each worker is, as far as this gateway knows: its own open requests, and heartbeats.

    our requests ──began/ended──> outstanding (exact)      heartbeats ──heard──> foreign load, KV cache, sign of life

Three rules surprise. A heartbeat's queue depth contains our own requests, so only what exceeds them is the load that
others put on the worker. That foreign load counts by our share of the traffic: each gateway sees the same old figures
and evades them, so three that took them at face value would evade three times too far, back and forth with every
heartbeat; by their shares they evade once together. And silence is believed only while somebody is heard: when no
heartbeat arrives from anyone (NATS or the API is away), workers are not stale, our ears are.
"""

from collections.abc import Callable, Collection

import msgspec

from projections.routing_workers import Worker

DEAF_SHARE = 0.5
"""Silence of everybody for this share of the stale limit means that the feed was away; all workers get a new term."""
LIMIT_REFRESH_S = 1.0
"""How long a changed stale limit may go unnoticed: to look it up costs more than all the rest of a choice."""
REQUESTS_PER_GPU = 256
"""Most requests that one gateway has open per GPU: vLLM's own `max_num_seqs` where a GPU is large; what is beyond would
only wait in the engine, where neither priority nor fairness reaches it."""
LEAST_TRUST = 0.125
"""What a foreign request counts at least, beside one of ours: who sends little herds little, and may well evade."""


class Load(msgspec.Struct):
    """One worker. Times in seconds on the gateway's monotonic clock.

    Attributes:
        outstanding: requests that this gateway has open there.
        foreign: requests that the engine reported beyond ours, at the last heartbeat.
        trust: what one of those counts beside one of ours.
        kv_cache_usage: share (0..1) of the engine's KV cache in use at the last heartbeat; 0 when it did not say.
        turn: rises with each request given to any worker; the lowest has waited longest.
        heard_s: last heartbeat; None before the first.
    """

    outstanding: int = 0
    foreign: int = 0
    trust: float = 1.0
    kv_cache_usage: float = 0.0
    turn: int = 0
    heard_s: float | None = None


class Loads:
    """Mutable, in memory, for one event loop.

    Args:
        stale_s: silence after which a worker is passed over; asked every second, as people change that setting.
        now_s: monotonic clock.
        requests_per_gpu: most requests that this gateway has open per GPU of a worker.
    """

    def __init__(
        self, *, stale_s: Callable[[], float], now_s: Callable[[], float], requests_per_gpu: int = REQUESTS_PER_GPU
    ) -> None:
        self._stale_s = stale_s
        self._now_s = now_s
        self._requests_per_gpu = requests_per_gpu
        self._loads: dict[str, Load] = {}
        self._turns = 0
        self._outstanding = 0
        self._foreign = 0
        self._limit_s = 0.0
        self._limit_read_s: float | None = None
        self._last_heard_s: float | None = None
        self._listening_since_s = 0.0

    def of(self, instance_id: str) -> Load:
        """To be read, not changed; of a worker nobody knows anything about it is all zeros."""
        return self._loads.get(instance_id) or Load()

    @property
    def open_requests(self) -> int:
        """Of this gateway, on all workers."""
        return self._outstanding

    @property
    def instances(self) -> Collection[str]:
        """Those that a request was sent to or a heartbeat came from."""
        return self._loads.keys()

    def began(self, instance_id: str) -> None:
        """One more request is open there; `ended` must follow, exactly once."""
        load = self._load(instance_id)
        self._turns += 1
        load.turn = self._turns
        load.outstanding += 1
        self._outstanding += 1

    def ended(self, instance_id: str) -> None:
        load = self._loads[instance_id]
        assert load.outstanding, f"more requests ended on {instance_id} than began"  # noqa: S101 - the impossible
        load.outstanding -= 1
        self._outstanding -= 1

    def has_room(self, worker: Worker) -> bool:
        """False when this gateway has as many requests open there as it may.

        What others have there does not count: it is hearsay, and hearsay that no heartbeat corrects any more must not
        keep a worker shut. Somebody else's server has no bound of ours; it says 429 itself.
        """
        if worker.foreign:
            return True
        load = self._loads.get(worker.instance_id)
        return load is None or load.outstanding < self._requests_per_gpu * worker.weight

    def heard(self, instance_id: str, queue_depth: int, kv_cache_usage: float | None = None) -> None:
        """A heartbeat; `kv_cache_usage` is None when the engine does not say."""
        now_s = self._now_s()
        if self._is_deaf(now_s):
            self._listening_since_s = now_s
        self._last_heard_s = now_s
        load = self._load(instance_id)
        load.heard_s = now_s
        foreign = max(0, queue_depth - load.outstanding)
        self._foreign += foreign - load.foreign
        load.foreign = foreign
        load.trust = max(LEAST_TRUST, self._outstanding / (self._outstanding + self._foreign or 1))
        load.kv_cache_usage = kv_cache_usage or 0.0

    def is_stale(self, instance_id: str) -> bool:
        """True when the worker has been silent for too long, while others were heard."""
        now_s = self._now_s()
        if self._is_deaf(now_s):
            return False
        load = self._loads.get(instance_id)
        heard_s = None if load is None else load.heard_s
        since_s = self._listening_since_s if heard_s is None else max(heard_s, self._listening_since_s)
        return now_s - since_s > self._limit_s

    def forget(self, is_known: Callable[[str], bool]) -> None:
        """Drops what belongs to instances that have ended, so that memory follows the fleet."""
        for instance_id in [i for i, load in self._loads.items() if not load.outstanding and not is_known(i)]:
            self._foreign -= self._loads.pop(instance_id).foreign

    def _load(self, instance_id: str) -> Load:
        load = self._loads.get(instance_id)
        if load is None:
            load = self._loads[instance_id] = Load()
        return load

    def _is_deaf(self, now_s: float) -> bool:
        """True while nobody at all is heard; also keeps the limit young."""
        if self._limit_read_s is None or now_s - self._limit_read_s >= LIMIT_REFRESH_S:
            self._limit_s, self._limit_read_s = self._stale_s(), now_s
        return self._last_heard_s is None or now_s - self._last_heard_s > DEAF_SHARE * self._limit_s
