"""`just bench-fleet`: what many instances cost one control plane on one core; the last line is one JSON object.

    200 agents, a heartbeat each 5 s ──HTTP──> web ──> NATS ──> projections, handlers      all on processor 0
    lag: a change of a random instance ──> how long until its read model shows it

1,000 instances are simulated in one process in virtual time: what that costs is the control plane's own work, without
HTTP, NATS and Postgres.
"""

import argparse
import asyncio
import json
import logging
import os
import random
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from statistics import quantiles

import structlog
from uuid_utils import uuid7

from domain.aggregates import AGGREGATES
from domain.ids import DeploymentId, InstanceId, OrganizationId
from domain.instance import INSTANCE
from domain.instance_commands import (
    ActivateInstance,
    DeactivateInstance,
    IntendServerCreate,
    RecordAddress,
    RecordServerCreated,
    RecordServerStarted,
    RequestInstance,
)
from domain.message import Context
from infra.dispatch import Dispatcher
from infra.events.codec import Codec
from infra.events.connection import connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.master_key import read_master_key
from infra.postgres import ReadModels
from projections.projection import EVERYTHING
from tests.bench.fleet.agents import ADDRESS, MODEL, Fleet
from tests.bench.fleet.platform import ControlPlane, control_plane, on_core, other_cores
from tests.bench.fleet.simulated import cpu_share_of

INSTANCES, SIMULATED = 200, 1_000
INTERVAL_S = 5.0
WARM_UP_S, WINDOW_S, QUICK_WINDOW_S = 10.0, 60.0, 15.0
CHANGES_PER_S = 5.0
CLOUD = "scaleway"
"""A provider without credentials: nobody looks for these servers there."""
BENCH = Context(actor="system:bench", correlation="bench")
SETTLE_TIMEOUT_S = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="just bench-fleet", description=__doc__)
    parser.add_argument("--instances", type=int, default=INSTANCES)
    parser.add_argument("--quick", action="store_true", help="a quarter of the time")
    asked = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="inventiv-bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)  # Postgres may run as another user and must be able to walk in
        window_s = QUICK_WINDOW_S if asked.quick else WINDOW_S
        figures = asyncio.run(measure(Path(name), asked.instances, window_s))
    figures |= {"simulated_instances": SIMULATED, "simulated_cpu_share": cpu_share_of(SIMULATED)}
    print(json.dumps(figures))


async def measure(folder: Path, instances: int, window_s: float) -> dict[str, object]:
    async with control_plane(folder) as plane:
        environment = plane.environment
        writer = await connect_writer(environment.nats_url, "bench")
        dispatcher = Dispatcher(JetStreamLog(writer), Codec(AGGREGATES), _now, lambda: str(uuid7()))
        organization = OrganizationId(str(uuid7()))
        try:
            ids = [await _booted(dispatcher, organization, number) for number in range(1, instances + 1)]
            await plane.start("handlers")
            fleet = Fleet(environment.api_url, read_master_key(environment.secrets_dir, make=False), INTERVAL_S)
            with on_core(other_cores()):
                return await _measured(plane, fleet, dispatcher, organization, ids, window_s)
        finally:
            await disconnect(writer)


async def _measured(
    plane: ControlPlane,
    fleet: Fleet,
    dispatcher: Dispatcher,
    organization: OrganizationId,
    ids: list[InstanceId],
    window_s: float,
) -> dict[str, object]:
    registered = asyncio.Event()
    agents = asyncio.create_task(fleet.run([*ids], registered))
    async with asyncio.timeout(SETTLE_TIMEOUT_S):
        await asyncio.wait({agents, asyncio.create_task(registered.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if agents.done():
        agents.result()
    await asyncio.sleep(WARM_UP_S)
    fleet.took_s.clear()
    before, began = plane.cpu_s(), time.monotonic()
    lags = await _lags(plane.environment.postgres_url, dispatcher, organization, ids, window_s)
    elapsed_s, after = time.monotonic() - began, plane.cpu_s()
    agents.cancel()
    shares = {name: round((after[name] - before[name]) / elapsed_s, 3) for name in after}
    ready = [(await dispatcher.load(INSTANCE, organization, one)).state.status == "ready" for one in ids]
    return {
        "instances": len(ids),
        "ready": sum(ready),
        "heartbeats_per_s": round(len(fleet.took_s) / elapsed_s, 1),
        "heartbeats_failed": fleet.failed,
        "cpu_share": round(sum(shares.values()), 3),
        **{f"cpu_share_{name}": share for name, share in shares.items()},
        "lag_p50_ms": _percentile_ms(lags, 50),
        "lag_p99_ms": _percentile_ms(lags, 99),
        "heartbeat_p99_ms": _percentile_ms(fleet.took_s, 99),
        "processors": os.cpu_count(),
    }


async def _lags(
    postgres_url: str, dispatcher: Dispatcher, organization: OrganizationId, ids: list[InstanceId], window_s: float
) -> list[float]:
    """Changes on the clock; how long each took to be seen by a query, in seconds."""
    waits: list[asyncio.Task[float]] = []
    off: set[InstanceId] = set()
    began = time.monotonic()
    async with ReadModels(postgres_url, scope=EVERYTHING) as read, asyncio.TaskGroup() as group:
        for number in range(int(window_s * CHANGES_PER_S)):
            await asyncio.sleep(max(0.0, began + number / CHANGES_PER_S - time.monotonic()))
            one = random.choice(ids)
            command = ActivateInstance(flag="technical") if one in off else DeactivateInstance(flag="technical")
            off ^= {one}
            receipt = await dispatcher(INSTANCE, organization, one, command, BENCH)
            waits.append(group.create_task(_seen(read, receipt.position, time.perf_counter())))
    return [wait.result() for wait in waits]


async def _seen(read: ReadModels, position: int, since_s: float) -> float:
    async with read("instances", position=position):
        return time.perf_counter() - since_s


async def _booted(dispatcher: Dispatcher, organization: OrganizationId, number: int) -> InstanceId:
    """An instance whose server has an address, and waits for its agent."""
    instance_id = InstanceId(str(uuid7()))
    wish = RequestInstance(
        deployment_id=DeploymentId(str(uuid7())),
        ordinal=1,
        model_code=MODEL,
        engine="simulated",
        provider=CLOUD,
        zone="fr-par-2",
        instance_type="L4-1-24G",
        gpu_count=1,
        vram_per_gpu_gb=24,
        price_eur_micros_per_hour=750_000,
        startup_timeout_s=3600,
        activated=("technical", "economic"),
    )
    steps = (
        wish,
        IntendServerCreate(server_name=f"bench-{number}"),
        RecordServerCreated(provider_instance_id=f"fr-par-2/bench-{number}"),
        RecordServerStarted(),
        RecordAddress(ip_address=ADDRESS),
    )
    for command in steps:
        await dispatcher(INSTANCE, organization, instance_id, command, BENCH)
    return instance_id


def _percentile_ms(values_s: list[float], percent: int) -> float:
    return round(quantiles(values_s, n=100)[percent - 1] * 1000, 1)


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    main()
