"""To whom a conversation belongs: keys that last while it grows, and an order that changes for nobody else."""

from collections import Counter
from hashlib import sha256
from itertools import islice

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import affinity
from gateway.affinity import ASKED_SLOTS, PREFIX_BYTES, Rendezvous, affinity_of
from projections.routing_workers import Worker
from tests.gateway.fleets import fleet, worker

LONG = "You answer in one word. " * 400
KEYS = [sha256(b"%d" % number).digest()[:16] for number in range(20_000)]
Fleet = tuple[Worker, ...]


def body(*said: str, **fields: object) -> bytes:
    messages = [{"role": "user", "content": text} for text in said]
    return msgspec.json.encode({**fields, "model": "m", "messages": messages})


def first(workers: Fleet, keys: list[bytes] = KEYS) -> list[str]:
    """Who has each key."""
    rendezvous = Rendezvous(workers)
    return [next(rendezvous.order(key)).instance_id for key in keys]


def test_a_session_has_one_key_whatever_it_asks() -> None:
    assert affinity_of(b"s1", body("a"), "acme") == affinity_of(b"s1", body(LONG), "acme") != b""
    assert affinity_of(b"s1", b"", "acme") != affinity_of(b"s2", b"", "acme")


def test_tenants_never_share_a_key() -> None:
    assert affinity_of(b"s1", b"", "acme") != affinity_of(b"s1", b"", "globex")
    assert affinity_of(b"", body(LONG), "acme") != affinity_of(b"", body(LONG), "globex")


def test_a_session_that_spells_another_tenants_key_does_not_get_it() -> None:
    assert affinity_of(b"b\0s", b"", "a") != affinity_of(b"s", b"", "a\0b")


def test_a_conversation_that_grows_keeps_its_key() -> None:
    key = affinity_of(b"", body(LONG), "acme")
    assert key
    assert affinity_of(b"", body(LONG, "Paris", "And Italy?"), "acme") == key
    assert affinity_of(b"", body(LONG, temperature=0.2, user="u" * 300), "acme") == key
    assert affinity_of(b"", body("Hello. " + LONG), "acme") != key


@pytest.mark.parametrize("field", ["messages", "prompt", "input", "system", "instructions", "tools"])
def test_every_field_that_an_engine_reads_first_makes_a_key(field: str) -> None:
    one = msgspec.json.encode({"model": "m", "seed": 1, field: LONG})
    other = msgspec.json.encode({"model": "m", "seed": 2, field: LONG + "more"})
    assert affinity_of(b"", one, "acme") == affinity_of(b"", other, "acme") != b""


@pytest.mark.parametrize(
    "short",
    [
        b"",
        body("Hello"),
        body("x" * (PREFIX_BYTES - 100)),
        body("Hello", metadata="x" * 2 * PREFIX_BYTES),
        b"x" * 2 * PREFIX_BYTES,
    ],
)
def test_a_short_prompt_has_no_key(short: bytes) -> None:
    assert affinity_of(b"", short, "acme") == b""


def test_what_a_user_wrote_is_not_taken_for_a_field() -> None:
    quoted = body('say "messages" and "prompt": ' + LONG, user="x")
    assert affinity_of(b"", quoted, "acme") == affinity_of(b"", quoted[:-2] + b" ]}", "acme")
    at = quoted.index(b'"messages"')
    assert affinity_of(b"", quoted, "acme") == affinity_of(b"", quoted[at:], "acme")


@pytest.mark.parametrize("weights", [(1,) * 3, (1,) * 40, (1,) * 1000, (8,) * 40, (1, 2, 4, 8)])
def test_keys_spread_by_weight(weights: tuple[int, ...]) -> None:
    """Within a quarter for every worker that shares no slot, and for 95 of 100 workers altogether."""
    workers = tuple(worker(f"w{number}", weight=weight) for number, weight in enumerate(weights))
    keys = [sha256(b"%d" % number).digest()[:16] for number in range(max(20_000, 200 * len(workers)))]
    got = Counter(first(workers, keys))
    even = len(keys) / sum(weights)
    ratios = sorted(got[w.instance_id] / (even * w.weight) for w in workers)
    assert ratios[0] > 0.3
    assert ratios[-1] < 1.4
    assert sum(0.75 < ratio < 1.25 for ratio in ratios) >= 0.95 * len(workers)


def test_every_worker_comes_once() -> None:
    for workers in (fleet(7, weight=8), fleet(ASKED_SLOTS // 4, weight=8)):
        names = [w.instance_id for w in Rendezvous(workers).order(KEYS[0])]
        assert sorted(names) == sorted(w.instance_id for w in workers)


def test_the_order_does_not_depend_on_how_the_fleet_is_listed() -> None:
    for workers in (fleet(20, weight=2), fleet(400)):
        assert first(workers, KEYS[:500]) == first(workers[::-1], KEYS[:500])


def test_walking_and_asking_give_the_same_order(monkeypatch: pytest.MonkeyPatch) -> None:
    rendezvous = Rendezvous(fleet(150, weight=2))
    walked = [[w.instance_id for w in islice(rendezvous.order(key), 20)] for key in KEYS[:200]]
    monkeypatch.setattr(affinity, "ASKED_SLOTS", 10_000)
    assert [[w.instance_id for w in islice(rendezvous.order(key), 20)] for key in KEYS[:200]] == walked


names = st.sets(st.integers(0, 400).map(lambda number: f"w{number}"), min_size=2, max_size=40)


@given(names=names, new=st.text("abcdef", min_size=1, max_size=4), weight=st.integers(1, 8), seed=st.integers(0, 2**64))
@settings(max_examples=100, deadline=None)
def test_who_comes_or_goes_moves_only_its_own_keys(names: set[str], new: str, weight: int, seed: int) -> None:
    keys = [sha256(b"%d/%d" % (seed, number)).digest()[:16] for number in range(100)]
    few = tuple(worker(name, weight=1 + hash_of(name) % 8) for name in sorted(names))
    for before, after in zip(first(few, keys), first((*few, worker(new, weight=weight)), keys), strict=True):
        assert after in {before, new}


def test_a_fleet_that_grows_beyond_asking_moves_only_the_newcomers_keys() -> None:
    few, many = fleet(ASKED_SLOTS), fleet(ASKED_SLOTS + 1)
    moved = [after for before, after in zip(first(few), first(many), strict=True) if before != after]
    assert set(moved) == {many[-1].instance_id}
    assert 0.3 < len(moved) / (len(KEYS) / len(many)) < 2


def test_a_worker_that_gets_heavier_takes_keys_and_loses_none() -> None:
    others = fleet(10)
    light, heavy = first((*others, worker("x", weight=2))), first((*others, worker("x", weight=4)))
    assert all(after in {before, "x"} for before, after in zip(light, heavy, strict=True))
    assert heavy.count("x") > 1.5 * light.count("x")


def test_workers_that_meet_in_a_slot_share_its_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(affinity, "_slots_of", lambda _name, _count: (7,))
    got = Counter(first(fleet(2), KEYS[:2000]))
    assert 800 < got["w0"] < 1200


def hash_of(name: str) -> int:
    return int.from_bytes(sha256(name.encode()).digest()[:4], "big")
