"""The power of all servers is cut while writers are at work: what was acknowledged is there when it comes back.

    servers, each on a disk of its own ── writers ──> ledger closes, all disks are cut, all servers killed -9
          ^                                               │ power again, journals replayed, servers started
          └───────────── next cut <── every promise kept? ┘

The same log lives through all cuts. The control is a server as it comes, which syncs every two minutes: each of its
cuts begins with an empty stream that is safe on its disk, and loses what was acknowledged since.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from domain.message import Recorded
from infra.embedded.child import EmbeddedServerError, log_tail
from infra.embedded.nats import EmbeddedNats
from infra.embedded.nats_cluster import EmbeddedNatsCluster, free_node_ports
from infra.events.connection import connect_reader, disconnect
from infra.events.streams import ensure_streams
from tests.chaos.disks import Disk, why_not
from tests.chaos.kill import reached, until
from tests.chaos.writers import Findings, Ledger, judge, read_log, writing
from tests.conftest import some_port

CUTS = 20
CLUSTER_CUTS = 5
"""Of the cuts those that hit three nodes at once; their restart takes an election."""
CONTROL_CUTS = 3
ACKED_BETWEEN = 300
_NOT_RECOVERED = "EVENTS' could not be recovered"
_SYNC = "  sync_interval: always\n"


async def measure(
    folder: Path, *, cuts: int = CUTS, cluster_cuts: int = CLUSTER_CUTS, control_cuts: int = CONTROL_CUTS
) -> dict[str, int | None]:
    """power_cuts, power_cut_acked, power_cut_lost, _duplicated, _out_of_order, _control_lost; None where skipped."""
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    if reason := why_not(folder):
        print(f"power: skipped, {reason}", flush=True)
        return dict.fromkeys(("power_cuts", "power_cut_acked", "power_cut_lost", "power_cut_control_lost"))
    single, several = Ledger(), Ledger()
    found = [
        await _cut_again_and_again(folder / "one", 1, cuts - cluster_cuts, single),
        await _cut_again_and_again(folder / "three", 3, cluster_cuts, several),
    ]
    control_lost = 0
    for number in range(control_cuts):
        control = Ledger()
        findings = await _cut_again_and_again(folder / f"control-{number}", 1, 1, control, syncing=False)
        control_lost += findings.lost
    return {
        "power_cuts": cuts,
        "power_cut_acked": len(single.acked) + len(several.acked),
        "power_cut_lost": sum(findings.lost for findings in found),
        "power_cut_duplicated": sum(findings.duplicated for findings in found),
        "power_cut_out_of_order": sum(findings.out_of_order for findings in found),
        "power_cut_control_lost": control_lost,
    }


async def _cut_again_and_again(
    folder: Path, nodes: int, cuts: int, ledger: Ledger, *, syncing: bool = True
) -> Findings:
    cluster = EmbeddedNatsCluster(folder, free_node_ports(some_port(), nodes))
    if not syncing:
        for node in cluster.nodes:
            _leave_sync_to_the_server(node)
    findings = Findings(0, 0, 0)
    with ExitStack() as stack:
        disks = [stack.enter_context(Disk(node.data_dir.with_suffix(".img"), node.store_dir)) for node in cluster.nodes]
        for number in range(1, cuts + 1):
            async with _running(cluster):
                if not syncing:
                    disks[0].sync()
                await _write_until_cut(cluster, disks, ledger, number)
            for disk in disks:
                disk.restore_power()
            findings = judge(await _what_is_left(cluster), ledger)
            what = f"{nodes} node{'s' if nodes > 1 else ''}{'' if syncing else ', control'}"
            print(f"power cut {number}/{cuts} ({what}): {len(ledger.acked)} acknowledged, {findings}", flush=True)
    return findings


async def _write_until_cut(
    cluster: EmbeddedNatsCluster, disks: Sequence[Disk], ledger: Ledger, round_number: int
) -> None:
    ledger.open = True
    async with writing(cluster.url, ledger, round_number=round_number):
        wanted = len(ledger.acked) + ACKED_BETWEEN
        await until(lambda: reached(ledger, wanted), f"the writers got stuck before {wanted} acknowledgements")
        ledger.open = False  # the network is gone at the same instant
        for disk in disks:
            disk.cut()
        await asyncio.gather(*(node.kill() for node in cluster.nodes))


async def _what_is_left(cluster: EmbeddedNatsCluster) -> list[Recorded]:
    """Nothing, when the server says that it cannot recover the stream."""
    try:
        async with _running(cluster):
            return await read_log(cluster.url)
    except EmbeddedServerError:
        if all(_NOT_RECOVERED in log_tail(node.log_path) for node in cluster.nodes):
            return []
        raise


@asynccontextmanager
async def _running(cluster: EmbeddedNatsCluster) -> AsyncIterator[None]:
    """A stream that is gone is made anew, empty: then all that it held is lost."""
    async with cluster:
        admin = await connect_reader(cluster.admin_url, "chaos")
        await ensure_streams(admin, replicas=cluster.replicas)
        await disconnect(admin)
        yield


def _leave_sync_to_the_server(node: EmbeddedNats) -> None:
    """The configuration of somebody who never heard of sync_interval."""
    ours = node._configuration()
    assert _SYNC in ours
    node._configuration = lambda: ours.replace(_SYNC, "")  # type: ignore[method-assign] # one server's, for a control
