"""The queue: fair between tenants, in order within one, bounded, and nobody is forgotten in it."""

from collections import Counter as Counts

import msgspec
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from gateway.queueing import MAX_WAITING, MAX_WAITING_BYTES
from tests.gateway.lines import PLACE, Counter, Traffic, p99


def test_who_waits_is_served_when_a_worker_is_free() -> None:
    counter = Counter()
    counter.enter("one")
    assert counter.queue.has_waiting(PLACE)
    counter.free()
    assert (counter.woken, counter.queue.has_waiting(PLACE), len(counter.queue)) == (["one"], False, 0)


def test_one_free_place_wakes_one_and_several_wake_several() -> None:
    counter = Counter()
    for name in "abcd":
        counter.enter(name)
    counter.free(1)
    assert counter.woken == ["a"]
    counter.free(2)
    assert counter.woken == ["a", "b", "c"]


def test_a_tenants_own_requests_go_by_priority_and_then_by_age() -> None:
    counter = Counter()
    for name, priority in (("l", "low"), ("n1", "normal"), ("h1", "high"), ("n2", "normal"), ("h2", "high")):
        counter.enter(name, priority=priority)  # type: ignore[arg-type]  # the words are those of Priority
    counter.free(5)
    assert counter.woken == ["h1", "h2", "n1", "n2", "l"]


def test_nobody_gains_on_others_by_calling_everything_urgent() -> None:
    counter = Counter()
    for n in range(4):
        counter.enter(f"loud{n}", "loud", priority="high")
        counter.enter(f"calm{n}", "calm", priority="low")
    counter.free(8)
    assert Counts(name[:4] for name in counter.woken[:4]) == {"loud": 2, "calm": 2}


def test_the_tenant_with_the_least_running_is_next() -> None:
    counter = Counter()
    for _ in range(5):
        counter.queue.began(PLACE, "big")
    counter.queue.began(PLACE, "small")
    for n in range(6):
        counter.enter(f"big{n}", "big")
        counter.enter(f"small{n}", "small")
    counter.free(4)
    assert counter.woken == ["small0", "small1", "small2", "small3"]
    counter.free(2)
    assert Counts(name[:3] for name in counter.woken[4:]) == {"big": 1, "sma": 1}


def test_a_weight_is_a_share_of_what_runs() -> None:
    counter = Counter(weight_of=lambda tenant: 3.0 if tenant == "heavy" else 1.0)
    for n in range(20):
        counter.enter(f"heavy{n}", "heavy")
        counter.enter(f"light{n}", "light")
    counter.free(8)
    assert Counts(name[:5] for name in counter.woken) == {"heavy": 6, "light": 2}


def test_models_do_not_wait_for_one_another() -> None:
    counter = Counter()
    counter.enter("here")
    counter.enter("there", place=("acme", "other"))
    counter.free(5)
    assert counter.woken == ["here"]


def test_past_its_deadline_a_request_is_refused() -> None:
    counter = Counter()
    counter.enter("short", within_s=5.0)
    counter.enter("long", within_s=50.0)
    counter.now_s = 4.9
    counter.queue.sweep()
    assert counter.refused == {}
    counter.now_s = 5.0
    counter.queue.sweep()
    assert counter.refused == {"short": "queue_timeout"}
    counter.free()
    assert counter.woken == ["long"]


def test_who_has_left_is_not_woken_and_not_refused() -> None:
    counter = Counter()
    counter.enter("gone")
    counter.enter("here")
    counter.leave("gone")
    counter.leave("gone")
    counter.free()
    counter.now_s = 100.0
    counter.queue.sweep()
    assert (counter.woken, counter.refused) == (["here"], {})


def test_in_a_full_queue_the_largest_tenant_gives_way_to_a_small_one() -> None:
    counter = Counter()
    for n in range(MAX_WAITING):
        counter.enter(f"flood{n}", "flood")
    counter.enter("more", "flood")
    assert counter.refused == {"more": "queue_full"}
    counter.enter("small", "small")
    assert counter.refused == {"more": "queue_full", f"flood{MAX_WAITING - 1}": "queue_full"}
    counter.free()
    assert counter.woken in (["flood0"], ["small"])
    assert len(counter.queue) == MAX_WAITING - 1


def test_among_its_own_the_last_in_line_is_pushed_out() -> None:
    counter = Counter()
    counter.enter("low", "flood", priority="low")
    for n in range(MAX_WAITING - 1):
        counter.enter(f"flood{n}", "flood", priority="high")
    counter.enter("small", "small")
    assert counter.refused == {"low": "queue_full"}


def test_bodies_that_wait_are_bounded_too() -> None:
    counter = Counter()
    for n in range(8):
        counter.enter(f"large{n}", "large", size_bytes=MAX_WAITING_BYTES // 8)
    counter.enter("larger", "large", size_bytes=1)
    counter.enter("small", "small", size_bytes=1000)
    assert counter.refused == {"larger": "queue_full", "large7": "queue_full"}


def test_a_worker_that_does_not_suit_the_first_is_offered_to_the_next() -> None:
    counter = Counter()
    counter.enter("picky", "a", wake=lambda: False)
    counter.enter("next", "b")
    counter.free()
    assert counter.woken == ["next"]
    assert len(counter.queue) == 1


def test_a_worker_that_became_free_unseen_is_found_by_the_sweep() -> None:
    counter = Counter()
    counter.enter("one")
    counter.room = 1
    counter.queue.sweep()
    assert counter.woken == ["one"]


def test_a_wake_that_fails_at_once_passes_its_worker_on() -> None:
    """The call breaks within `wake`, which frees the worker from within; everybody is still woken, once."""
    counter = Counter(room=1)

    def fails() -> bool:
        counter.queue.began(PLACE, "a")
        counter.woken.append("failed")
        counter.queue.ended(PLACE, "a")
        return True

    for _ in range(50):
        counter.enter("x", "a", wake=fails)
    counter.enter("last", "b")
    counter.queue.freed(PLACE)
    assert Counts(counter.woken) == {"failed": 50, "last": 1}


def test_a_client_that_leaves_within_its_own_wake_is_gone() -> None:
    counter = Counter()

    def leaves() -> bool:
        counter.leave("one")
        return True

    counter.enter("one", wake=leaves)
    counter.enter("two")
    counter.free()
    assert (counter.woken, len(counter.queue)) == (["two"], 0)


def test_nothing_is_kept_of_who_has_left() -> None:
    counter = Counter()
    for n in range(3 * MAX_WAITING):
        counter.enter(f"r{n}", within_s=1e6)
        if n:
            counter.leave(f"r{n}")
    counter.queue.sweep()
    assert len(counter.queue._deadlines) <= MAX_WAITING + 2
    counter.leave("r0")
    counter.queue.sweep()
    assert not counter.queue._lines


# ---- laws


@settings(max_examples=100, deadline=None)
@drawn(st.lists(st.tuples(st.sampled_from("wfrse"), st.integers(0, 4), st.sampled_from(["high", "normal", "low"]))))
def test_every_request_ends_in_exactly_one_way(steps: list[tuple[str, int, str]]) -> None:
    counter, running, asked = Counter(), Counts[str](), 0
    left: set[str] = set()
    for what, which, priority in steps:
        tenant = "abcde"[which]
        before = len(counter.woken)
        match what:
            case "w":
                asked += 1
                counter.arrive(f"{tenant}{asked}", tenant, priority=priority, within_s=3.0)
            case "f":
                counter.free(which)
            case "r" if running[tenant]:
                running[tenant] -= 1
                counter.end(tenant)
            case "s":
                counter.now_s += 1.0
                counter.queue.sweep()
            case "e" if counter.waiting:
                name = sorted(counter.waiting)[which % len(counter.waiting)]
                if name not in counter.woken and name not in counter.refused:
                    left.add(name)
                counter.leave(name)
        running.update(name[0] for name in counter.woken[before:])
    ends = [*counter.woken, *counter.refused, *left]
    assert len(ends) == len(set(ends))
    assert len(counter.queue) == asked - len(ends)
    assert not counter.room or not counter.queue.has_waiting(PLACE), "nobody waits while there is room"


@settings(max_examples=100, deadline=None)
@drawn(st.lists(st.integers(0, 5), min_size=6, max_size=200), st.integers(1, 60))
def test_nobody_is_served_twice_more_than_another_who_waits(order: list[int], frees: int) -> None:
    """Max-min fairness: of tenants who all still wait, none has two more running than another."""
    counter = Counter()
    for n, which in enumerate(order):
        counter.enter(f"{which}-{n}", str(which))
    counter.free(frees)
    served = Counts(name.partition("-")[0] for name in counter.woken)
    still = {str(which) for n, which in enumerate(order) if f"{which}-{n}" not in counter.woken}
    assert all(served[one] - served[other] <= 1 for other in still for one in still)
    assert all(served[other] >= max(served.values()) - 1 for other in still)


# ---- under load

OTHERS = {f"t{n}": 4 for n in range(8)}
"""Eight tenants of four clients each, who keep eight places busy and wait for one another."""


def _waits(traffic: Traffic) -> list[float]:
    return [wait_s for tenant in OTHERS for wait_s in traffic.waits[tenant]]


def _loaded(*, flood: int, fair: bool) -> Traffic:
    traffic = Traffic({**OTHERS, "flood": flood}, capacity=8, service_s=1.0, seed=11, fair=fair)
    traffic.run(1000.0)
    return traffic


@pytest.fixture(scope="module")
def calm() -> Traffic:
    return _loaded(flood=0, fair=True)


def test_a_flooding_tenant_does_not_make_the_others_wait(calm: Traffic) -> None:
    flooded = _loaded(flood=900, fair=True)
    assert p99(_waits(flooded)) <= 1.5 * p99(_waits(calm))
    assert not any(flooded.refused[tenant] for tenant in OTHERS)
    fair_share = len(_waits(flooded)) / len(OTHERS)
    assert 0.8 * fair_share <= len(flooded.waits["flood"]) <= 1.2 * fair_share, "it gets what each of them gets"


def test_first_come_first_served_would(calm: Traffic) -> None:
    """The control."""
    flooded = _loaded(flood=900, fair=False)
    assert p99(_waits(flooded)) > 3 * p99(_waits(calm))
    assert sum(flooded.refused[tenant] for tenant in OTHERS) > 0


def test_tenants_who_always_want_more_get_equal_shares() -> None:
    """Jain's fairness index, (sum x)^2 / (n sum x^2), of how much each was served."""
    traffic = Traffic({f"t{n}": 4 * (n + 1) for n in range(6)}, capacity=5, service_s=0.5, seed=3, fair=True)
    traffic.run(1000.0)
    served = [len(waits) for waits in traffic.waits.values()]
    assert sum(served) ** 2 / (len(served) * sum(one * one for one in served)) > 0.995


def test_who_held_little_lately_goes_before_who_held_much() -> None:
    counter = Counter(room=4)
    for n in range(4):
        counter.arrive(f"busy{n}", "busy")
    counter.now_s = 60.0
    for _ in range(4):
        counter.end("busy")
    for n in range(4):
        counter.arrive(f"x{n}", "x")
    counter.enter("busy", "busy")
    counter.enter("idle", "idle")
    counter.end("x")
    assert counter.woken[-1] == "idle"


# ---- what a client with a ticket is told


def told(counter: Counter, tenant: str, ticket: str) -> dict[str, object]:
    return dict(msgspec.json.decode(counter.queue.told(tenant, ticket)))


def test_a_ticket_tells_where_its_request_stands() -> None:
    counter = Counter()
    counter.enter("first")
    counter.enter("mine", ticket="job-1")
    counter.enter("other", "b")
    counter.now_s += 3.0
    assert told(counter, "a", "job-1") == {
        "ticket": "job-1",
        "state": "waiting",
        "model": "model",
        "position": 2,
        "waiting": 2,
        "first_entered_s_ago": 3.0,
    }


def test_anothers_ticket_is_unknown() -> None:
    counter = Counter()
    counter.enter("mine", ticket="job-1")
    assert told(counter, "b", "job-1") == {"ticket": "job-1", "state": "unknown"}


def test_whoever_was_refused_comes_back_to_the_old_place() -> None:
    counter = Counter()
    counter.enter("early", ticket="job-1", within_s=2.0)
    counter.now_s = 1.0
    counter.enter("late", within_s=100.0)
    counter.now_s = 2.0
    counter.queue.sweep()
    assert told(counter, "a", "job-1")["state"] == "away"
    counter.enter("again", ticket="job-1")
    assert told(counter, "a", "job-1")["position"] == 1
    counter.free(2)
    assert counter.woken == ["again", "late"]
    assert told(counter, "a", "job-1")["state"] == "unknown", "a place is used once"
