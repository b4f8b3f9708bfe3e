"""What a gateway's parts show of themselves, read as a scraper reads it."""

import time
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from gateway.app import Readiness
from gateway.breaker import FAILURES_TO_OPEN, Breakers, RetryBudget
from gateway.calls import Calls
from gateway.gauges import gauges_of
from gateway.limits import Limits
from gateway.loads import Loads
from gateway.meter import Meter
from gateway.metrics import Metrics
from gateway.queueing import Queue
from gateway.services import Services
from gateway.shared_counts import SharedCounts
from gateway.spend import SpendBook
from gateway.tickets import Tickets
from gateway.watch import Watching
from infra.spool import FileSpool
from projections.routing_table import RoutingTable

WELL = Readiness(ready=True, trusted=True, source="log", position=7, log_connected=True, age_s=1.5)


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


async def publish(_: object) -> None: ...


def services(clock: Clock, tmp_path: Any) -> Services:
    now_s = clock
    return Services(
        table=RoutingTable,
        loads=Loads(stale_s=lambda: 100.0, now_s=now_s),
        breakers=Breakers(now_s=now_s),
        budget=RetryBudget(now_s=now_s),
        calls=Calls(now_s=now_s),
        limits=Limits(SharedCounts("g1"), SpendBook(), now_s=now_s),
        queue=Queue(now_s=now_s, tickets=Tickets(wall_s=time.time)),
        meter=Meter(FileSpool(tmp_path / "spool"), publish),
        watch=Watching(metrics=Metrics()),
        secret_of=lambda _: None,
        draw=lambda _: 0,
        now_s=now_s,
    )


def shown(of: Services, readiness: Readiness = WELL) -> dict[tuple[str, str], float]:
    """(name without prefix, value of its label) -> figure"""
    gauges = gauges_of(of, lambda: readiness, spool_bytes=lambda: 42, dropped_lines=lambda: 3)
    text = Metrics(gauges).render()[1].decode()
    return {
        (sample.name.removeprefix("inventiv_gateway_"), sample.labels.get("state", "")): sample.value
        for family in text_string_to_metric_families(text)
        if family.type == "gauge" and family.name.startswith("inventiv_gateway_")
        for sample in family.samples
    }


async def test_a_gateway_at_rest_shows_every_gauge(tmp_path: Any) -> None:
    assert shown(services(Clock(), tmp_path)) == {
        ("open_requests", ""): 0,
        ("queued_requests", ""): 0,
        ("engine_connections", "idle"): 0,
        ("engine_connections", "busy"): 0,
        ("workers", "well"): 0,
        ("workers", "silent"): 0,
        ("workers", "tripped"): 0,
        ("routing_table_age_seconds", ""): 1.5,
        ("routing_table_position", ""): 7,
        ("routing_table_trusted", ""): 1,
        ("spool_bytes", ""): 42,
        ("usage_accepted", ""): 1,
        ("grants_dropped", ""): 0,
        ("access_log_dropped_lines", ""): 3,
    }


async def test_workers_are_well_silent_or_tripped(tmp_path: Any) -> None:
    clock = Clock()
    of = services(clock, tmp_path)
    for name in ("a", "b", "c"):
        of.loads.heard(name, 1)
    of.loads.began("foreign")
    for _ in range(FAILURES_TO_OPEN):
        of.breakers.failed("c")
    for _ in range(30):
        clock.now_s += 5
        of.loads.heard("a", 1)
    figures = shown(of)
    assert {state: figures["workers", state] for state in ("well", "silent", "tripped")} == {
        "well": 2,
        "silent": 1,
        "tripped": 1,
    }
    assert figures["open_requests", ""] == 1


async def test_a_table_that_is_too_old_is_shown_as_not_trusted(tmp_path: Any) -> None:
    old = Readiness(ready=True, trusted=False, source="snapshot", position=7, log_connected=False, age_s=700.0)
    figures = shown(services(Clock(), tmp_path), old)
    assert (figures["routing_table_trusted", ""], figures["routing_table_age_seconds", ""]) == (0, 700)
