"""Open work and signs of life, on a clock that the specification moves."""

import pytest

from gateway.loads import LEAST_TRUST, LIMIT_REFRESH_S, Loads
from tests.gateway.fleets import worker

STALE_S = 120.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def loads() -> tuple[Loads, Clock]:
    clock = Clock()
    return Loads(stale_s=lambda: STALE_S, now_s=clock, requests_per_gpu=3), clock


def hear(told: Loads, clock: Clock, *names: str, for_s: float) -> None:
    """Heartbeats of those workers, every five seconds."""
    end_s = clock.now_s + for_s
    while clock.now_s < end_s:
        clock.now_s += 5
        for name in names:
            told.heard(name, 0)


def test_requests_are_counted_while_they_run() -> None:
    told, _ = loads()
    told.began("a")
    told.began("a")
    assert told.of("a").outstanding == 2
    told.ended("a")
    told.ended("a")
    assert told.of("a").outstanding == 0


def test_what_ended_twice_is_a_mistake_and_says_so() -> None:
    told, _ = loads()
    told.began("a")
    told.ended("a")
    with pytest.raises(AssertionError, match="more requests ended"):
        told.ended("a")


def test_the_one_who_waited_longest_has_the_lowest_turn() -> None:
    told, _ = loads()
    for name in ("a", "b", "a"):
        told.began(name)
    assert told.of("c").turn < told.of("b").turn < told.of("a").turn


def test_only_what_exceeds_our_own_requests_is_foreign() -> None:
    told, _ = loads()
    told.began("a")
    told.began("a")
    told.heard("a", 5)
    assert told.of("a").foreign == 3
    told.heard("a", 1)
    assert told.of("a").foreign == 0


def test_foreign_requests_count_by_our_share_of_the_traffic() -> None:
    told, _ = loads()
    for name in ("a", "b", "c"):
        told.began(name)
    told.heard("a", 1)
    assert told.of("a").trust == 1.0
    told.heard("a", 3)
    told.heard("b", 2)
    assert (told.of("a").foreign, told.of("b").foreign, told.of("b").trust) == (2, 1, 0.5)


def test_who_sends_next_to_nothing_still_evades_the_others() -> None:
    told, _ = loads()
    told.heard("a", 100)
    assert (told.of("a").foreign, told.of("a").trust) == (100, LEAST_TRUST)
    told.forget(lambda _: False)
    told.began("b")
    told.heard("b", 1)
    assert told.of("b").trust == 1.0


def test_the_kv_cache_is_as_full_as_the_last_heartbeat_said() -> None:
    told, _ = loads()
    assert told.of("a").kv_cache_usage == 0.0
    told.heard("a", 1, 0.97)
    assert told.of("a").kv_cache_usage == 0.97
    told.heard("a", 1)
    assert told.of("a").kv_cache_usage == 0.0


def test_a_worker_has_room_for_so_many_of_our_requests_per_gpu() -> None:
    told, _ = loads()
    two = worker("a", weight=2)
    for _ in range(5):
        told.began("a")
        assert told.has_room(two)
    told.heard("a", 1000)
    assert told.has_room(two)  # what others have there is hearsay
    told.began("a")
    assert not told.has_room(two)
    assert told.has_room(worker("a", weight=3))
    told.ended("a")
    assert told.has_room(two)


def test_somebody_elses_server_always_has_room() -> None:
    told, _ = loads()
    for _ in range(10):
        told.began("a")
    assert told.has_room(worker("a", foreign=True))
    assert not told.has_room(worker("a"))


def test_a_changed_stale_limit_counts_within_a_second() -> None:
    clock, limit_s = Clock(), [STALE_S]
    told = Loads(stale_s=lambda: limit_s[0], now_s=clock)
    hear(told, clock, "a", "b", for_s=10)
    hear(told, clock, "b", for_s=30)
    assert not told.is_stale("a")
    limit_s[0] = 20.0
    clock.now_s += LIMIT_REFRESH_S
    assert told.is_stale("a")


def test_a_silent_worker_is_stale_while_others_are_heard() -> None:
    told, clock = loads()
    hear(told, clock, "a", "b", for_s=5)
    hear(told, clock, "b", for_s=STALE_S)
    assert not told.is_stale("a")
    hear(told, clock, "b", for_s=5)
    assert (told.is_stale("a"), told.is_stale("b")) == (True, False)


def test_a_worker_never_heard_of_gets_a_full_term() -> None:
    told, clock = loads()
    hear(told, clock, "b", for_s=STALE_S)
    assert not told.is_stale("a")
    hear(told, clock, "b", for_s=10)
    assert told.is_stale("a")


def test_nobody_is_stale_before_the_first_heartbeat() -> None:
    told, clock = loads()
    clock.now_s += 10 * STALE_S
    assert not told.is_stale("a")


def test_nobody_is_stale_while_nobody_is_heard() -> None:
    told, clock = loads()
    hear(told, clock, "a", "b", for_s=30)
    clock.now_s += 10 * STALE_S
    assert (told.is_stale("a"), told.is_stale("b")) == (False, False)


def test_after_the_feed_was_away_everyone_gets_a_new_term() -> None:
    told, clock = loads()
    hear(told, clock, "a", "b", for_s=30)
    clock.now_s += 10 * STALE_S
    told.heard("b", 0)
    assert not told.is_stale("a")
    hear(told, clock, "b", for_s=STALE_S + 5)
    assert told.is_stale("a")


def test_ended_instances_are_forgotten_unless_they_have_open_requests() -> None:
    told, _ = loads()
    told.heard("gone", 7)
    told.began("busy")
    told.heard("busy", 7)
    told.forget(lambda _: False)
    assert (told.of("gone").foreign, told.of("busy").foreign) == (0, 6)
