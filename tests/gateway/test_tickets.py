"""Tickets in memory: each keeps its first coming, one tenant's cannot crowd out another's."""

from gateway.tickets import MAX_TICKETS_OF_TENANT, TICKET_S, Tickets
from tests.gateway.lines import PLACE


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_ticket_keeps_the_time_of_its_first_coming() -> None:
    clock = Clock()
    tickets = Tickets(wall_s=clock)
    assert tickets.entered("a", "one", PLACE) == 0.0
    tickets.left("a", "one")
    clock.now_s += 60.0
    assert tickets.entered("a", "one", PLACE) == 60.0
    assert tickets.entered("b", "one", PLACE) == 0.0, "another tenant's is another ticket"


def test_it_is_good_for_the_same_model_alone() -> None:
    clock = Clock()
    tickets = Tickets(wall_s=clock)
    tickets.entered("a", "one", PLACE)
    clock.now_s += 60.0
    assert tickets.entered("a", "one", ("acme", "other")) == 0.0


def test_who_waits_longer_than_a_ticket_lasts_is_still_told() -> None:
    clock = Clock()
    tickets = Tickets(wall_s=clock)
    tickets.entered("a", "one", PLACE)
    clock.now_s += TICKET_S - 1
    tickets.sweep()
    assert tickets.find("a", "one") is not None
    tickets.left("a", "one")
    clock.now_s += 1
    tickets.sweep()
    assert tickets.find("a", "one") is None


def test_one_tenant_cannot_use_up_the_memory_of_all() -> None:
    clock = Clock()
    tickets = Tickets(wall_s=clock)
    for n in range(MAX_TICKETS_OF_TENANT + 50):
        tickets.entered("greedy", f"t{n}", PLACE)
    assert tickets.find("greedy", f"t{MAX_TICKETS_OF_TENANT - 1}") is not None
    assert tickets.find("greedy", f"t{MAX_TICKETS_OF_TENANT}") is None
    tickets.entered("modest", "one", PLACE)
    assert tickets.find("modest", "one") is not None
    tickets.served("greedy", "t0")
    tickets.entered("greedy", "again", PLACE)
    assert tickets.find("greedy", "again") is not None
