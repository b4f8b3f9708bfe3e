"""What waits is noted on disk, so that the next process can tell a client where it stood."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.tickets import TICKET_S, Tickets
from infra import queue_journal
from infra.queue_journal import FILE, QueueJournal, restore_tickets
from infra.spool import locked
from tests.gateway.lines import NOON_S, PLACE


class Clock:
    def __init__(self) -> None:
        self.now_s = NOON_S

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    (tmp_path / "0").mkdir()
    return tmp_path / "0"


@pytest.fixture
def journal(own: Path) -> Iterator[QueueJournal]:
    opened = QueueJournal(own)
    yield opened
    opened.close()


def restarted(own: Path, clock: Clock) -> Tickets:
    """As the next process would find them."""
    journal = QueueJournal(own)
    tickets = Tickets(wall_s=clock, journal=journal)
    restore_tickets(tickets, own.parent, own)
    journal.close()
    return tickets


def state(tickets: Tickets, ticket: str, tenant: str = "acme") -> str:
    found = tickets.find(tenant, ticket)
    return found.state if found else "unknown"


def test_who_waited_when_the_gateway_died_is_told_so_and_keeps_the_place(
    own: Path, journal: QueueJournal, clock: Clock
) -> None:
    tickets = Tickets(wall_s=clock, journal=journal)
    tickets.entered("acme", "waits", PLACE)
    tickets.entered("acme", "served", PLACE)
    tickets.served("acme", "served")
    tickets.entered("acme", "left", PLACE)
    tickets.left("acme", "left")
    clock.now_s += 100.0
    after = restarted(own, clock)
    assert [state(after, name) for name in ("waits", "served", "left", "never")] == [
        "lost_at_restart",
        "unknown",
        "away",
        "unknown",
    ]
    assert state(after, "waits", tenant="globex") == "unknown"
    assert after.entered("acme", "waits", PLACE) == 100.0
    assert state(after, "waits") == "waiting"


def test_a_second_restart_knows_as_much(own: Path, journal: QueueJournal, clock: Clock) -> None:
    Tickets(wall_s=clock, journal=journal).entered("acme", "waits", PLACE)
    restarted(own, clock)
    clock.now_s += 10.0
    assert restarted(own, clock).entered("acme", "waits", PLACE) == 10.0


def test_a_quarter_of_an_hour_later_it_is_forgotten(own: Path, journal: QueueJournal, clock: Clock) -> None:
    Tickets(wall_s=clock, journal=journal).entered("acme", "waits", PLACE)
    clock.now_s += TICKET_S
    assert state(restarted(own, clock), "waits") == "unknown"


def test_a_line_that_was_not_finished_is_passed_over(own: Path, journal: QueueJournal, clock: Clock) -> None:
    tickets = Tickets(wall_s=clock, journal=journal)
    tickets.entered("acme", "one", PLACE)
    with (own / FILE).open("ab") as file:
        file.write(b'["half a line\n\xff\xfe\n[]\n{"x":1}\n')
    tickets.entered("acme", "two", PLACE)
    after = restarted(own, clock)
    assert [state(after, name) for name in ("one", "two")] == ["lost_at_restart", "lost_at_restart"]


def test_the_file_names_neither_ticket_nor_tenant(own: Path, journal: QueueJournal, clock: Clock) -> None:
    Tickets(wall_s=clock, journal=journal).entered("acme-tenant", "alice.example.org", PLACE)
    noted = (own / FILE).read_bytes()
    assert noted
    assert b"alice" not in noted
    assert b"acme-tenant" not in noted
    assert (own / FILE).stat().st_mode & 0o777 == 0o600


def test_a_dead_gateways_tickets_are_taken_over_and_a_living_ones_are_not(tmp_path: Path, clock: Clock) -> None:
    for number, ticket in (("0", "own"), ("1", "dead"), ("2", "living")):
        (tmp_path / number).mkdir()
        noted = QueueJournal(tmp_path / number)
        Tickets(wall_s=clock, journal=noted).entered("acme", ticket, PLACE)
        noted.close()
    held = locked(tmp_path / "2")
    try:
        after = restarted(tmp_path / "0", clock)
    finally:
        os.close(held)
    assert [state(after, name) for name in ("own", "dead", "living")] == [
        "lost_at_restart",
        "lost_at_restart",
        "unknown",
    ]
    assert not (tmp_path / "1" / FILE).exists()
    assert (tmp_path / "2" / FILE).exists()
    assert state(restarted(tmp_path / "0", clock), "dead") == "lost_at_restart", "it is in our own file now"


def test_a_long_file_is_written_anew(
    own: Path, journal: QueueJournal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue_journal, "LONG_BYTES", 10_000)
    tickets = Tickets(wall_s=clock, journal=journal)
    tickets.entered("acme", "stays", PLACE)
    for n in range(200):
        tickets.entered("acme", f"t{n}", PLACE)
        tickets.served("acme", f"t{n}")
    assert (own / FILE).stat().st_size > 10_000
    tickets.sweep()
    tickets.entered("acme", "later", PLACE)
    assert (own / FILE).stat().st_size < 1000
    after = restarted(own, clock)
    assert [state(after, name) for name in ("stays", "later", "t7")] == [
        "lost_at_restart",
        "lost_at_restart",
        "unknown",
    ]


def test_a_disk_that_refuses_costs_no_request(tmp_path: Path, clock: Clock) -> None:
    journal = QueueJournal(tmp_path / "missing")
    tickets = Tickets(wall_s=clock, journal=journal)
    assert tickets.entered("acme", "one", PLACE) == 0.0
    journal.replace([b"x"])
    assert state(tickets, "one") == "waiting"
