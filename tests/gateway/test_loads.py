"""Open work and signs of life, on a clock that the specification moves."""

from gateway.loads import Loads

STALE_S = 120.0


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def loads() -> tuple[Loads, Clock]:
    clock = Clock()
    return Loads(stale_s=lambda: STALE_S, now_s=clock), clock


def hear(told: Loads, clock: Clock, *names: str, for_s: float) -> None:
    """Heartbeats of those workers, every five seconds."""
    end_s = clock.now_s + for_s
    while clock.now_s < end_s:
        clock.now_s += 5
        for name in names:
            told.heard(name, 0)


def test_requests_are_counted_while_they_run() -> None:
    told, _ = loads()
    with told.request_on("a"), told.request_on("a"):
        assert told.of("a").outstanding == 2
    assert told.of("a").outstanding == 0


def test_the_one_who_waited_longest_has_the_lowest_turn() -> None:
    told, _ = loads()
    for name in ("a", "b", "a"):
        with told.request_on(name):
            pass
    assert told.of("c").turn < told.of("b").turn < told.of("a").turn


def test_only_what_exceeds_our_own_requests_is_foreign() -> None:
    told, _ = loads()
    with told.request_on("a"), told.request_on("a"):
        told.heard("a", 5)
        assert told.of("a").foreign == 3
        told.heard("a", 1)
        assert told.of("a").foreign == 0


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
    with told.request_on("busy"):
        told.heard("busy", 7)
        told.forget(lambda _: False)
        assert (told.of("gone").foreign, told.of("busy").foreign) == (0, 6)
