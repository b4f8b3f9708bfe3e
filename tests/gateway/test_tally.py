"""One subject's window: what it counts, how long, and what it never lets by."""

from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st

from gateway.tally import NO_LIMIT, WINDOW_S, Tally, Window, frees_at


def tally(requests: int = NO_LIMIT, tokens: int = NO_LIMIT, running: int = NO_LIMIT) -> Tally:
    return Tally("key", (requests, tokens, running), [], 0)


def times() -> st.SearchStrategy[list[float]]:
    """When requests come, in seconds, in order."""
    return st.lists(st.floats(0.0, 5.0), max_size=200).map(
        lambda pauses: [sum(pauses[: n + 1]) for n in range(len(pauses))]
    )


@settings(deadline=None)
@drawn(times(), st.integers(1, 30))
def test_no_minute_wherever_it_begins_holds_more_than_the_limit(asked: list[float], limit: int) -> None:
    one, admitted = tally(limit), list[float]()
    for at_s in asked:
        if one.fits(int(at_s), 0):
            one.take(int(at_s), 0)
            admitted.append(at_s)
    for at_s in admitted:
        assert sum(at_s <= other < at_s + WINDOW_S for other in admitted) <= limit


@settings(deadline=None)
@drawn(times(), st.integers(1, 30))
def test_who_is_refused_would_have_passed_the_limit_within_a_second_more(asked: list[float], limit: int) -> None:
    one, admitted = tally(limit), list[float]()
    for at_s in asked:
        if one.fits(int(at_s), 0):
            one.take(int(at_s), 0)
            admitted.append(at_s)
        else:
            assert sum(at_s - WINDOW_S - 1 < other for other in admitted) >= limit


def test_a_window_that_begins_with_the_minute_would_let_twice_as_many_by() -> None:
    """The control: counts per calendar minute, as many limiters have them."""
    limit, counts, admitted = 10, dict[int, int](), list[float]()
    for at_s in [59.0 + n / 10 for n in range(20)]:
        minute = int(at_s // 60)
        if counts.get(minute, 0) < limit:
            counts[minute] = counts.get(minute, 0) + 1
            admitted.append(at_s)
    assert sum(59.0 <= at_s < 59.0 + WINDOW_S for at_s in admitted) == 2 * limit


def test_a_clock_that_was_read_a_moment_earlier_counts_into_the_newest_second() -> None:
    one = tally(100)
    one.take(10, 5)
    one.take(9, 5)
    assert [tuple(bucket) for bucket in one.buckets] == [(10, 2, 10)]


def test_what_is_counted_is_the_sum_of_the_buckets() -> None:
    one = tally()
    grants = [(one.take(second, 100), second) for second in range(0, 200, 7)]
    for bucket, second in grants:
        one.give_back(bucket, 200, 100 - second)
    one.roll(200)
    assert one.tokens == sum(bucket[2] for bucket in one.buckets)
    assert one.requests == sum(bucket[1] for bucket in one.buckets)
    assert one.running == 0
    one.roll(1000)
    assert one.used == (0, 0, 0)
    assert not one.buckets


def test_others_are_told_from_the_earliest_second_that_changed() -> None:
    news: list[Tally] = []
    one = Tally("key", (NO_LIMIT, NO_LIMIT, NO_LIMIT), news, 0)
    bucket = one.take(10, 100)
    one.take(20, 100)
    assert (one.changed_since, news) == (10, [one])
    one.told()
    news.clear()
    one.take(30, 100)
    one.give_back(bucket, 30, 50)
    assert (one.changed_since, news) == (10, [one])


def test_when_there_is_room_again_follows_from_the_oldest_buckets() -> None:
    ours, theirs = Window(), Window()
    ours.replace(0, [(10, 1, 100), (30, 1, 100)])
    theirs.replace(0, [(20, 1, 100)])
    windows = (ours, theirs)
    assert [frees_at(windows, 0, excess) for excess in (1, 2, 3, 4)] == [71, 81, 91, None]
    assert [frees_at(windows, 1, excess) for excess in (1, 101, 300, 301)] == [71, 81, 91, None]
