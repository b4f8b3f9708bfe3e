"""To whom a conversation belongs: a key from its session or its long prompt, and the workers in that key's order. Pure.

    x-inventiv-session ──────────────────┐
    a prompt longer than 4 KiB: its head ┴──> affinity (16 bytes, the tenant's own) ──> first worker, second, third ...

Rendezvous hashing: for each key every worker has a score that depends on no other worker, and the best score wins. So
who comes takes its share evenly from all, who goes leaves its share evenly to all, and nothing else moves. The
surprising part is how the best of 1,000 is found without asking 1,000 for their scores: a worker holds one of 65,537
slots per GPU, chosen by its name; a key walks over all slots (start and stride are the key's own, as in double
hashing), and a worker's score is how early the walk meets a slot of its. Many GPUs: walk until somebody is met. Few
GPUs: compute when each slot is met. Both give the same answer, so a fleet grows from one into the other unnoticed.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256, shake_128

from projections.routing_workers import Worker

PREFIX_BYTES = 4096
"""About a thousand tokens: below, to compute a prompt again costs less than an uneven load. Constant, since a
conversation that grows must keep its key."""
PROMPT_SEARCH_BYTES = 4096
"""How far into a body its prompt is looked for; clients write it among the first fields."""
SLOTS = 65_537
"""A prime, so that each stride visits all. With 1,000 GPUs a walk meets one after 65 steps; two GPUs meet in a slot so
seldom (1.5 % of 1,000) that shares stay even."""
ASKED_SLOTS = 256
"""Up to so many taken slots each is asked for its turn; beyond, walking (SLOTS / taken steps) is shorter."""
MAX_SLOTS_OF_ONE = 1024
"""Bounds what one worker with an absurd weight costs."""
REMEMBERED_WORKERS = 16_384

_PROMPTS = (b'"messages"', b'"prompt"', b'"input"', b'"system"', b'"instructions"', b'"tools"')
"""The fields that hold what an engine reads first. Inside a JSON string every quote is escaped, so these bytes are
never a part of what somebody wrote."""


def affinity_of(session: bytes, body: bytes, organization: str) -> bytes:
    """16 bytes that requests share which should meet the same worker; empty when it does not matter which.

    Args:
        session: the header x-inventiv-session; empty when there is none.
        body: of the request, as it came; not parsed, for a wrong guess only costs a cache.
        organization: of the caller: sessions and prompts of two tenants never meet in one key.
    """
    if session:
        return _digest(b"session", organization, session)
    if len(body) <= PREFIX_BYTES:
        return b""
    found = [at for field in _PROMPTS if (at := body.find(field, 0, PROMPT_SEARCH_BYTES)) >= 0]
    start = min(found, default=len(body))
    if len(body) - start < PREFIX_BYTES:
        return b""
    return _digest(b"prefix", organization, body[start : start + PREFIX_BYTES])


def _digest(kind: bytes, organization: str, told: bytes) -> bytes:
    """With the organisation's length, so that no part can pass for a piece of its neighbour."""
    tenant = organization.encode()
    return sha256(b"%b %d %b%b" % (kind, len(tenant), tenant, told)).digest()[:16]


class Rendezvous:
    """A fleet, ready to be asked for the order of its workers; made anew when the fleet changes.

    Args:
        workers: each with one slot per unit of its weight.
    """

    def __init__(self, workers: Sequence[Worker]) -> None:
        owners: dict[int, tuple[Worker, ...]] = {}
        for worker in workers:
            for slot in _slots_of(worker.instance_id, min(worker.weight, MAX_SLOTS_OF_ONE)):
                owners[slot] = (*owners.get(slot, ()), worker)
        self._owners: Mapping[int, tuple[Worker, ...]] = owners
        self._slots = tuple(owners)

    def order(self, affinity: bytes) -> Iterator[Worker]:
        """Every worker once, best score first."""
        number, seen = int.from_bytes(affinity, "big"), set[str]()
        start, stride = number % SLOTS, number // SLOTS % (SLOTS - 1) + 1
        slots = self._asked(start, stride) if len(self._slots) <= ASKED_SLOTS else self._walked(start, stride)
        for slot in slots:
            owners = self._owners[slot]
            if len(owners) > 1:
                owners = tuple(sorted(owners, key=lambda worker: _tie(affinity, worker)))
            for worker in owners:
                if worker.instance_id not in seen:
                    seen.add(worker.instance_id)
                    yield worker

    def _asked(self, start: int, stride: int) -> Iterator[int]:
        inverse = pow(stride, -1, SLOTS)
        turns = [(slot - start) * inverse % SLOTS for slot in self._slots]
        for _ in turns:
            best = turns.index(min(turns))
            turns[best] = SLOTS  # later than any
            yield self._slots[best]

    def _walked(self, start: int, stride: int) -> Iterator[int]:
        owners, slot = self._owners, start
        for _ in range(SLOTS):
            if slot in owners:
                yield slot
            slot += stride
            if slot >= SLOTS:
                slot -= SLOTS


def _tie(affinity: bytes, worker: Worker) -> bytes:
    return sha256(affinity + worker.instance_id.encode()).digest()


@lru_cache(maxsize=REMEMBERED_WORKERS)
def _slots_of(instance_id: str, count: int) -> tuple[int, ...]:
    """The same whoever else is there; a heavier worker keeps the slots that it had when it was lighter."""
    digest = shake_128(instance_id.encode()).digest(8 * count)
    return tuple(int.from_bytes(digest[at : at + 8], "big") % SLOTS for at in range(0, len(digest), 8))
