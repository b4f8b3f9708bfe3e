"""The leader of EVENTS is killed -9, again and again, under sixteen writers: nothing acknowledged is lost or doubled.

three nodes ── writers ──┬─ kill -9 the leader ──> no acknowledgement for an election ──> start it again ──┐
                         └──────────────────────────── all three are current again <───────────────────────┘
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client

from infra.embedded.child import EmbeddedServerError
from infra.embedded.nats_cluster import EmbeddedNatsCluster, free_node_ports
from infra.events.connection import connect_reader, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.streams import EVENTS, ensure_streams
from tests.chaos.writers import CarelessLog, Findings, Ledger, OpenLog, judge, read_log, writing
from tests.conftest import some_port, started

KILLS = 20
CONTROL_KILLS = 2
ACKED_BETWEEN = 1_000
"""Acknowledgements between two faults: all writers are well at work when the next one comes."""
PATIENCE_S = 60.0
LOOK_EVERY_S = 0.02
ASK_TIMEOUT_S = 2.0


async def measure(
    folder: Path, *, kills: int = KILLS, control_kills: int = CONTROL_KILLS, acked_between: int = ACKED_BETWEEN
) -> dict[str, int]:
    """leader_kills, acked, lost, duplicated, out_of_order, longest_gap_ms; and kill_control_violations."""
    ledger = Ledger()
    findings, gap_s = await _under_fire(folder / "nats", ledger, kills, acked_between, JetStreamLog)
    control = Ledger()
    print(f"kill: control, writers without the rules, {control_kills} kills", flush=True)
    control_findings, _ = await _under_fire(folder / "control", control, control_kills, acked_between, CarelessLog)
    return {
        "leader_kills": kills,
        "acked": len(ledger.acked),
        "unknown": ledger.unknown,
        "lost": findings.lost,
        "duplicated": findings.duplicated,
        "out_of_order": findings.out_of_order,
        "longest_gap_ms": round(gap_s * 1000),
        "kill_control_violations": control_findings.total,
        "kill_control_duplicated": control_findings.duplicated,
    }


async def _under_fire(
    folder: Path, ledger: Ledger, kills: int, acked_between: int, open_log: OpenLog
) -> tuple[Findings, float]:
    """Also the longest time without an acknowledgement, in seconds."""
    cluster = await started(lambda: EmbeddedNatsCluster(folder, free_node_ports(some_port())))
    longest_s = 0.0
    try:
        admin = await connect_reader(cluster.admin_url, "chaos")
        await ensure_streams(admin, replicas=cluster.replicas)
        async with writing(cluster.url, ledger, round_number=1, open_log=open_log):
            for number in range(1, kills + 1):
                await _acked_more(ledger, acked_between)
                gap_s = await _kill_leader(cluster, admin, ledger)
                longest_s = max(longest_s, gap_s)
                print(f"kill {number}/{kills}: {gap_s:.1f} s silent, {len(ledger.acked)} acknowledged", flush=True)
            await _acked_more(ledger, acked_between)
        await disconnect(admin)
        return judge(await read_log(cluster.url), ledger), longest_s
    finally:
        await cluster.stop()


async def _kill_leader(cluster: EmbeddedNatsCluster, admin: Client, ledger: Ledger) -> float:
    """Returns for how long nothing was acknowledged, in seconds; afterwards the node is back and current."""
    leader = await cluster.leader(EVENTS)
    await leader.kill()
    killed_s = time.monotonic()
    await _acked_more(ledger, 1)
    gap_s = time.monotonic() - killed_s
    await leader.start()
    behind = "unknown"

    async def all_current() -> bool:
        nonlocal behind
        behind = await _behind(admin)
        return not behind

    try:
        await until(all_current, f"{leader.server_name} did not become current again")
    except EmbeddedServerError as error:
        raise EmbeddedServerError(f"{error}: {behind}") from error
    return gap_s


async def _acked_more(ledger: Ledger, more: int) -> None:
    wanted = len(ledger.acked) + more
    await until(lambda: reached(ledger, wanted), f"the writers got stuck before {wanted} acknowledgements")


async def reached(ledger: Ledger, acked: int) -> bool:
    return len(ledger.acked) >= acked


async def _behind(admin: Client) -> str:
    """Why not every copy of the stream is current; "" when each follows its leader closely."""
    try:
        reply = await admin.request(f"$JS.API.STREAM.INFO.{EVENTS}", timeout=ASK_TIMEOUT_S)
    except (nats.errors.Error, OSError) as error:
        return f"no answer: {error!r}"
    info: dict[str, Any] = msgspec.json.decode(reply.data)
    cluster = info.get("cluster") or {}
    replicas = cluster.get("replicas") or []
    if cluster.get("leader") and replicas and all(r.get("current") and not r.get("offline") for r in replicas):
        return ""
    return str(info.get("error") or cluster)


async def until(holds: Callable[[], Awaitable[bool]], otherwise: str) -> None:
    """Bounded by PATIENCE_S.

    Raises:
        EmbeddedServerError: it did not come about; the message says what.
    """
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await holds():  # noqa: ASYNC110 - other processes' states; no event tells of them
                await asyncio.sleep(LOOK_EVERY_S)
    except TimeoutError:
        raise EmbeddedServerError(f"{otherwise} within {PATIENCE_S:.0f} s") from None
