"""The limits of signing in, on a clock that the test moves."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st

from tests.given import NOON
from web.sign_in_rules import (
    FREE_FAILURES,
    KNOWN_FOR,
    MAX_ADDRESS_FAILURES,
    MAX_CONSECUTIVE_FAILURES,
    MAX_DELAY,
    QUIET,
    ResetNeeded,
    Tallies,
    Tally,
    Wait,
    admitted,
    counted,
    network_of,
    source_of,
    taken_back,
    withdrawn,
)

HOME, ELSEWHERE = "203.0.113.7", "198.51.100.1"


@dataclass
class Door:
    """One account's sign-ins from any address, with the tallies that a store would keep."""

    at: datetime = NOON
    addresses: dict[str, Tally] = field(default_factory=dict)
    here: dict[str, Tally] = field(default_factory=dict)
    account: Tally = field(default_factory=Tally)

    def tries(self, right: bool = False, *, address: str = HOME) -> Wait | ResetNeeded | bool:
        """What the owner of the address is told: whether the password was right, or why nobody looked at it."""
        source, network = source_of(address), network_of(address)
        before = Tallies(
            address=self.addresses.get(source, Tally()),
            account_here=self.here.get(network, Tally()),
            account=self.account,
        )
        after = admitted(before, self.at)
        if not isinstance(after, Tallies):
            return after
        after = taken_back(after, self.at) if right else after
        self.addresses[source], self.here[network], self.account = after.address, after.account_here, after.account
        return right

    def later(self, seconds: float) -> "Door":
        self.at += timedelta(seconds=seconds)
        return self


def test_five_wrong_passwords_are_free() -> None:
    door = Door()
    assert [door.tries() for _ in range(FREE_FAILURES)] == [False] * FREE_FAILURES
    assert door.tries() == Wait(1)


def test_each_further_one_doubles_the_wait_up_to_a_quarter_of_an_hour() -> None:
    door, waits = Door(), []
    for _ in range(FREE_FAILURES - 1):
        door.tries()
    for _ in range(14):
        assert door.tries() is False
        refused = door.tries()
        assert isinstance(refused, Wait)
        waits.append(refused.seconds)
        door.later(refused.seconds)
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900, 900]


def test_a_refused_attempt_makes_nobody_wait_longer() -> None:
    door = Door()
    for _ in range(FREE_FAILURES):
        door.tries()
    assert {door.tries() for _ in range(50)} == {Wait(1)}
    assert door.later(1).tries() is False


def test_a_right_password_begins_anew() -> None:
    door = Door()
    for _ in range(FREE_FAILURES - 1):
        door.tries()
    assert door.tries(right=True) is True
    assert [door.tries() for _ in range(FREE_FAILURES)] == [False] * FREE_FAILURES


def test_a_quiet_quarter_of_an_hour_begins_anew() -> None:
    door = Door()
    for _ in range(FREE_FAILURES):
        door.tries()
    door.later(1 + QUIET.total_seconds())
    assert [door.tries() for _ in range(FREE_FAILURES)] == [False] * FREE_FAILURES


def test_a_stranger_elsewhere_does_not_slow_the_owner_down() -> None:
    door = Door()
    for _ in range(FREE_FAILURES + 1):
        door.tries(address=ELSEWHERE)
    assert isinstance(door.tries(address=ELSEWHERE), Wait)
    assert door.tries(right=True, address=HOME) is True


def test_one_network_is_one_guesser() -> None:
    door = Door()
    for host in range(FREE_FAILURES):
        door.tries(address=f"198.51.100.{host}")
    assert door.tries(address="198.51.100.200") == Wait(1)


def test_one_address_has_twenty_failures_a_minute_whatever_the_accounts() -> None:
    tally = Tally()
    for _ in range(MAX_ADDRESS_FAILURES):
        after = admitted(Tallies(address=tally), NOON)  # another account each time
        assert isinstance(after, Tallies)
        tally = after.address
    assert admitted(Tallies(address=tally), NOON + timedelta(seconds=20)) == Wait(40)
    assert isinstance(admitted(Tallies(address=tally), NOON + timedelta(seconds=60)), Tallies)


def test_right_passwords_use_nothing_up() -> None:
    door = Door()
    assert [door.tries(right=True) for _ in range(100)] == [True] * 100


def _attack(door: Door, failures: int) -> None:
    """From ever new networks, so that only the account's own tally counts."""
    for number in range(failures):
        assert door.tries(address=f"100.{number // 250}.{number % 250}.9") is False


def test_a_hundred_wrong_passwords_in_a_row_leave_only_the_link() -> None:
    door = Door()
    _attack(door, MAX_CONSECUTIVE_FAILURES)
    assert door.tries(right=True, address=ELSEWHERE) == ResetNeeded()
    assert door.later(KNOWN_FOR.total_seconds()).tries(right=True, address=ELSEWHERE) == ResetNeeded()


def test_a_hundred_strangers_do_not_lock_the_owner_out() -> None:
    door = Door()
    assert door.tries(right=True, address=HOME) is True
    _attack(door, MAX_CONSECUTIVE_FAILURES)
    assert door.tries(right=True, address=ELSEWHERE) == ResetNeeded()
    assert door.tries(right=True, address=HOME) is True
    assert door.tries(right=True, address=ELSEWHERE) is True  # the row is broken


def test_a_network_is_not_known_for_ever() -> None:
    door = Door()
    door.tries(right=True, address=HOME)
    _attack(door, MAX_CONSECUTIVE_FAILURES)
    assert door.later(KNOWN_FOR.total_seconds()).tries(right=True, address=HOME) == ResetNeeded()


def test_even_a_known_network_has_a_hundred_in_a_row_at_most() -> None:
    door = Door()
    door.tries(right=True)
    for _ in range(MAX_CONSECUTIVE_FAILURES):
        assert door.later(MAX_DELAY.total_seconds()).tries() is False
    assert door.later(MAX_DELAY.total_seconds()).tries(right=True) == ResetNeeded()


def test_an_attempt_that_nobody_looked_at_counts_for_nothing() -> None:
    tallies = Tallies()
    for _ in range(FREE_FAILURES * 3):
        after = admitted(tallies, NOON)
        assert isinstance(after, Tallies)
        tallies = withdrawn(after)
    assert (tallies.address.failures, tallies.account_here.failures, tallies.account.in_a_row) == (0, 0, 0)
    assert tallies.account_here.blocked_until is None


def test_requests_without_an_account_are_counted_by_address() -> None:
    tally = Tally()
    for _ in range(MAX_ADDRESS_FAILURES):
        after = counted(tally, NOON)
        assert isinstance(after, Tally)
        tally = after
    assert counted(tally, NOON) == Wait(60)
    assert isinstance(counted(tally, NOON + timedelta(seconds=60)), Tally)


@pytest.mark.parametrize(
    ("address", "network", "source"),
    [
        ("203.0.113.7", "203.0.113.0/24", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64", "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.7", "203.0.113.0/24", "203.0.113.7"),
        ("testclient", "testclient", "testclient"),
        ("", "", ""),
    ],
)
def test_networks_are_24_and_64_bits(address: str, network: str, source: str) -> None:
    assert (network_of(address), source_of(address)) == (network, source)


_ATTEMPTS = st.lists(
    st.tuples(st.integers(0, 1200), st.booleans(), st.sampled_from([HOME, ELSEWHERE, "198.51.100.99", "2001:db8::1"])),
    max_size=60,
)


@forall(_ATTEMPTS)
@settings(max_examples=200)
def test_whatever_is_tried_no_network_gets_more_than_its_guesses(attempts: list[tuple[int, bool, str]]) -> None:
    """In any quarter of an hour without a login: five and one for each delay that fits in, which are ten."""
    door = Door()
    looked_at: dict[str, list[datetime]] = {}
    for pause_s, right, address in attempts:
        outcome = door.later(pause_s / 10).tries(right, address=address)
        guesses = looked_at.setdefault(network_of(address), [])
        if outcome is True:
            guesses.clear()
        elif outcome is False:
            guesses.append(door.at)
        lately = [guess for guess in guesses if door.at - guess < QUIET]
        assert len(lately) <= FREE_FAILURES + 10


@forall(_ATTEMPTS)
def test_whoever_waits_as_told_is_let_through(attempts: list[tuple[int, bool, str]]) -> None:
    door = Door()
    for pause_s, right, address in attempts:
        outcome = door.later(pause_s / 10).tries(right, address=address)
        if isinstance(outcome, Wait):
            assert door.later(outcome.seconds).tries(right, address=address) is right
