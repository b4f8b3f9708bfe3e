"""Hosts: enrolled once, changed as a whole, withdrawn when nothing runs on them; and when their slots are open."""

import math
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st
from msgspec.structs import replace

from domain.host import (
    DAY_MINUTES,
    ChangeHost,
    EnrolHost,
    HostChanged,
    HostEnrolled,
    HostWithdrawn,
    Slot,
    WithdrawHost,
    host_id_of,
    open_for_s,
)
from tests.examples import ACME, GLOBEX, HOST_FACTS, example
from tests.given import given

ENROL = example(EnrolHost)
ENROLLED = example(HostEnrolled)
OTHER = replace(HOST_FACTS, name="rack-2")
MONDAY = datetime(2026, 11, 23, tzinfo=UTC)
EVENINGS = tuple(Slot(day=day, start_minute=20 * 60, end_minute=DAY_MINUTES) for day in range(5))
NIGHTS = tuple(Slot(day=day, start_minute=0, end_minute=6 * 60) for day in range(7))


def test_it_is_enrolled_once() -> None:
    given().when(ENROL).then(ENROLLED)
    given(ENROLLED).when(ENROL).then_nothing()
    given(ENROLLED).when(replace(ENROL, facts=OTHER)).then_rejected("host_already_enrolled")


def test_an_address_is_one_host_of_an_organisation() -> None:
    assert host_id_of(ACME, "192.0.2.7", 22) == host_id_of(ACME, "192.0.2.7", 22)
    assert len({host_id_of(ACME, "192.0.2.7", 22), host_id_of(GLOBEX, "192.0.2.7", 22)}) == 2
    assert host_id_of(ACME, "192.0.2.7", 22) != host_id_of(ACME, "192.0.2.7", 2222)


def test_what_is_said_of_it_is_changed_as_a_whole() -> None:
    given(ENROLLED).when(ChangeHost(facts=OTHER)).then(HostChanged(facts=OTHER))
    given(ENROLLED, HostChanged(facts=OTHER)).when(ChangeHost(facts=OTHER)).then_nothing()
    given().when(ChangeHost(facts=OTHER)).then_rejected("host_not_found")
    given(ENROLLED, HostWithdrawn()).when(ChangeHost(facts=OTHER)).then_rejected("host_not_found")


def test_a_host_that_serves_stays() -> None:
    given(ENROLLED).when(WithdrawHost(serves=True)).then_rejected("host_serves")
    given(ENROLLED).when(WithdrawHost(serves=False)).then(HostWithdrawn())


def test_a_withdrawn_host_may_be_enrolled_again() -> None:
    given(ENROLLED, HostWithdrawn()).when(WithdrawHost(serves=True)).then_nothing()
    given(ENROLLED, HostWithdrawn()).when(replace(ENROL, facts=OTHER)).then(replace(ENROLLED, facts=OTHER))


def test_the_operator_may_forbid_an_address() -> None:
    given().when(replace(ENROL, allowed=False)).then_rejected("host_address_not_allowed")


@pytest.mark.parametrize(
    "address", ["", "rack-1", "0.0.0.0", "::", "224.0.0.1", "192.0.2.007", "::ffff:127.0.0.1", "fe80::1%eth0", "1.2.3"]
)
def test_a_host_has_the_address_of_one_machine(address: str) -> None:
    given().when(replace(ENROL, address=address)).then_rejected("invalid_host")


@pytest.mark.parametrize("address", ["10.0.0.4", "192.0.2.7", "2001:db8::7"])
def test_private_and_public_addresses_will_do(address: str) -> None:
    given().when(replace(ENROL, address=address)).then(replace(ENROLLED, address=address))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "Rack 1"},
        {"name": "-rack"},
        {"zone": "a/b"},
        {"ssh_user": "root; reboot"},
        {"ssh_user": "-oProxyCommand=x"},
        {"host_key_fingerprint": "MD5:00:11"},
        {"gpu_count": -1},
        {"gpu_count": 65},
        {"vram_per_gpu_gb": 5_000},
        {"cpu_count": -1},
        {"ram_gb": 70_000},
        {"price_eur_micros_per_hour": -1},
        {"slots": (Slot(day=7, start_minute=0, end_minute=60),)},
        {"slots": (Slot(day=0, start_minute=60, end_minute=60),)},
        {"slots": (Slot(day=0, start_minute=0, end_minute=1_441),)},
        {"slots": (Slot(day=0, start_minute=0, end_minute=60),) * 65},
    ],
)
def test_facts_that_cannot_be_are_refused(changes: dict[str, object]) -> None:
    wrong = replace(HOST_FACTS, **changes)
    given().when(replace(ENROL, facts=wrong)).then_rejected("invalid_host")
    given(ENROLLED).when(ChangeHost(facts=wrong)).then_rejected("invalid_host")


@pytest.mark.parametrize("port", [0, 65_536])
def test_a_port_is_one(port: int) -> None:
    given().when(replace(ENROL, ssh_port=port)).then_rejected("invalid_host")


def test_without_slots_a_host_is_always_open() -> None:
    assert open_for_s((), MONDAY) == math.inf


@pytest.mark.parametrize(
    ("at", "expected_h"),
    [
        (MONDAY + timedelta(hours=19, minutes=59), 0.0),
        (MONDAY + timedelta(hours=20), 10.0),
        (MONDAY + timedelta(days=1, hours=5), 1.0),
        (MONDAY + timedelta(days=1, hours=6), 0.0),
        (MONDAY + timedelta(days=4, hours=20), 10.0),
        (MONDAY + timedelta(days=5, hours=20), 0.0),
        (MONDAY + timedelta(days=6, hours=23), 0.0),
    ],
)
def test_slots_that_touch_at_midnight_are_one(at: datetime, expected_h: float) -> None:
    assert open_for_s(EVENINGS + NIGHTS, at) == expected_h * 3600


def test_a_slot_goes_on_over_the_end_of_the_week() -> None:
    slots = (Slot(day=6, start_minute=22 * 60, end_minute=DAY_MINUTES), Slot(day=0, start_minute=0, end_minute=60))
    assert open_for_s(slots, MONDAY - timedelta(hours=1)) == 2 * 3600
    assert open_for_s(slots, MONDAY + timedelta(minutes=30)) == 30 * 60


def test_a_week_that_is_full_never_ends() -> None:
    week = tuple(Slot(day=day, start_minute=0, end_minute=DAY_MINUTES) for day in range(7))
    for hours in range(0, 7 * 24, 5):
        assert open_for_s(week, MONDAY + timedelta(hours=hours)) == math.inf


SLOTS = st.builds(
    lambda day, start, length: Slot(day=day, start_minute=start, end_minute=min(DAY_MINUTES, start + length)),
    st.integers(0, 6),
    st.integers(0, DAY_MINUTES - 1),
    st.integers(1, DAY_MINUTES),
)
MOMENTS = st.integers(0, 7 * DAY_MINUTES - 1).map(lambda minutes: MONDAY + timedelta(minutes=minutes))


@forall(st.lists(SLOTS, min_size=1, max_size=8), MOMENTS)
def test_it_is_open_until_the_first_minute_in_no_slot(slots: list[Slot], at: datetime) -> None:
    def is_open(moment: datetime) -> bool:
        minute = moment.hour * 60 + moment.minute
        return any(s.day == moment.weekday() and s.start_minute <= minute < s.end_minute for s in slots)

    minutes = next((m for m in range(7 * DAY_MINUTES) if not is_open(at + timedelta(minutes=m))), math.inf)
    assert open_for_s(slots, at) == minutes * 60
