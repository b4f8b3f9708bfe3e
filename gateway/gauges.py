"""What the gateway's own parts show of themselves on /metrics, beside what is counted request by request.

services ──┐
readiness ─┼──> gauges, each asked at the moment of a scrape
files ─────┘
"""

from collections.abc import Callable, Sequence

from gateway.app import Readiness
from gateway.calls import Calls
from gateway.metrics import Gauge
from gateway.services import Services


def gauges_of(
    services: Services,
    readiness: Callable[[], Readiness],
    *,
    spool_bytes: Callable[[], int],
    dropped_lines: Callable[[], int],
) -> Sequence[Gauge]:
    """Those of one gateway.

    Args:
        services: what its exchanges work with.
        readiness: what /readyz says.
        spool_bytes: usage records on disk that are not in the stream yet.
        dropped_lines: of the access log.
    """
    loads, calls, meter = services.loads, services.calls, services.meter
    return (
        Gauge("open_requests", "Given to a worker and not ended.", lambda: loads.open_requests),
        Gauge("queued_requests", "Waiting for a worker.", lambda: len(services.queue)),
        Gauge("engine_connections", "To engines, in use or not.", lambda: _connections(calls), "state"),
        Gauge("workers", "Well, silent (no heartbeats) or tripped (failed).", lambda: _workers(services), "state"),
        Gauge("routing_table_age_seconds", "Since it was last proven to be current.", lambda: readiness().age_s),
        Gauge("routing_table_position", "Of the last event in it.", lambda: readiness().position),
        Gauge("routing_table_trusted", "1 while it is young enough to let keys in.", lambda: _is_trusted(readiness())),
        Gauge("spool_bytes", "Usage records on disk that are not in the stream yet.", spool_bytes),
        Gauge("usage_accepted", "1 while usage can be kept; 0: no requests are taken.", lambda: float(meter.accepting)),
        Gauge("grants_dropped", "Limits that nobody settled; above 0 is a defect.", lambda: services.limits.dropped),
        Gauge("access_log_dropped_lines", "Lines that could not be written.", dropped_lines),
    )


def _is_trusted(readiness: Readiness) -> float:
    return float(readiness.ready and readiness.trusted)


def _connections(calls: Calls) -> dict[str, float]:
    idle = calls.idle_connections
    return {"idle": idle, "busy": calls.open_connections - idle}


def _workers(services: Services) -> dict[str, float]:
    """Of those that were heard or asked: a fleet nobody talks of is not shown."""
    found = {"well": 0.0, "silent": 0.0, "tripped": 0.0}
    for name in services.loads.instances:
        # A foreign server sends no heartbeats; it is not silent, it is never heard.
        is_silent = services.loads.of(name).heard_s is not None and services.loads.is_stale(name)
        found["tripped" if services.breakers.is_open(name) else "silent" if is_silent else "well"] += 1
    return found
