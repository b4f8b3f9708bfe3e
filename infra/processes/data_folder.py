"""The data folder of `inventiv up`: whose it is, who runs on it, at which ports, and how to forget it.

    inventiv-data.json   marker: this folder is ours, and its id       up.lock            held by the running `up`
    run/platform.json    what runs now (running.py)                    run/ports.json     ports to prefer next time

The surprising rule: the lock alone says whether somebody may start here; it ends with its process, however that ends.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec
import psutil

from infra.embedded.child import EmbeddedServerError
from infra.embedded.nats_cluster import NodePorts
from infra.embedded.ports import free_port
from infra.embedded.postgres_place import ROOT_HOME
from infra.environment import (
    DEFAULT_API_PORT,
    DEFAULT_GATEWAY_PORT,
    DEFAULT_NATS_PORT,
    DEFAULT_POSTGRES_PORT,
    DEFAULT_TUNNEL_INNER_PORT,
    DEFAULT_TUNNEL_PORT,
)
from infra.processes.running import is_alive, last_platform, remove_platform, write_private

MARKER = "inventiv-data.json"
LOCK = "up.lock"
FORGETTABLE = ("nats", "postgres", "secrets", "logs", "run", "gateway", "servers", "agent", "inbox")
"""Everything that the platform ever writes below the data folder; --fresh deletes these names and nothing else."""
LEFTOVER_WAIT_S = 15.0
"""A role that lost its supervisor drains first; see the roles' own grace."""
LEFTOVER_POLL_S = 0.05
PORT_NAMES = {"api": "the API", "gateway": "the gateway", "nats": "NATS", "nats_monitor": "NATS monitoring"} | {
    "postgres": "Postgres",
    "tunnel": "the relay of tunnels",
    "tunnel_inner": "the relay's own side",
}


NODE_COUNTS = (1, 3, 5)
"""An even number bears no more losses than one less: the majority grows with it."""
MONITOR_OFFSET = 4000
ROUTE_OFFSET = 2000


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Attributes: nats_nodes, of the cluster that holds the streams; for ever, as their copies are."""

    made_by: str = "inventiv-agents"
    id: str
    created_at: float
    nats_nodes: int = 1


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """On 127.0.0.1 (API and gateway: on INVENTIV_HOST, the relay for agents on INVENTIV_TUNNEL_HOST).

    Attributes:
        nats_nodes: of each nats-server; the first one's client and monitor are `nats` and `nats_monitor` again.
    """

    api: int = DEFAULT_API_PORT
    gateway: int = DEFAULT_GATEWAY_PORT
    nats: int = DEFAULT_NATS_PORT
    nats_monitor: int = DEFAULT_NATS_PORT + MONITOR_OFFSET
    postgres: int = DEFAULT_POSTGRES_PORT
    tunnel: int = DEFAULT_TUNNEL_PORT
    tunnel_inner: int = DEFAULT_TUNNEL_INNER_PORT
    nats_nodes: tuple[NodePorts, ...] = ()


class Claim:
    """The right to run on a data folder; ends with the process, however that ends."""

    def __init__(self, data_dir: Path, lock: int) -> None:
        self.data_dir = data_dir
        self._lock = lock

    def release(self) -> None:
        os.close(self._lock)


def claim(data_dir: Path) -> Claim | None:
    """Takes the folder (made when absent); None when another `inventiv up` has it.

    Raises:
        EmbeddedServerError: the folder cannot be written.
    """
    try:
        if not data_dir.exists():
            data_dir.mkdir(parents=True)
            # Root's Postgres runs as another account, which must be able to walk through; its secrets stay closed.
            data_dir.chmod(0o711 if os.geteuid() == 0 else 0o700)
        lock = os.open(data_dir / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise EmbeddedServerError(
            f"the data folder {data_dir} cannot be written ({error.strerror}); name another with --data-dir"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return Claim(data_dir, lock)


def mark(claimed: Claim, *, now: float, nats_nodes: int = 0) -> Marker:
    """The folder's marker; makes it, and the private folders, at the first start.

    Args:
        claimed: the folder.
        now: seconds since the epoch.
        nats_nodes: as many as the folder has, or shall have when it is new; 0 for "as it is", which is one when new.

    Raises:
        EmbeddedServerError: it has another number of nodes.
    """
    for folder, mode in (("run", 0o700), ("logs", 0o700)):
        (claimed.data_dir / folder).mkdir(mode=mode, exist_ok=True)
    path = claimed.data_dir / MARKER
    if path.exists():
        return _with_nodes(msgspec.json.decode(path.read_bytes(), type=Marker), nats_nodes, claimed.data_dir)
    if nats_nodes not in {0, *NODE_COUNTS}:
        raise EmbeddedServerError(f"{nats_nodes} nats-servers cannot form a cluster; choose 1, 3 or 5")
    marker = Marker(id=secrets.token_hex(16), created_at=now, nats_nodes=nats_nodes or 1)
    write_private(path, msgspec.json.encode(marker))
    return marker


def _with_nodes(marker: Marker, asked: int, data_dir: Path) -> Marker:
    """A server that stood alone cannot join a cluster with its streams: the cluster would not know them."""
    if asked in {0, marker.nats_nodes}:
        return marker
    raise EmbeddedServerError(
        f"{data_dir} began with --nats-nodes {marker.nats_nodes} and cannot go on with {asked}: leave the option out "
        f"(and INVENTIV_NATS_NODES), or begin anew with `inventiv up --data-dir <folder> --nats-nodes {asked}` "
        "and move the events with `inventiv events export` and `inventiv events import`"
    )


def forget(claimed: Claim) -> bool:
    """Deletes what the platform wrote here; False when there was nothing of ours.

    Raises:
        EmbeddedServerError: the folder has content of these names but not our marker: it is somebody else's.
    """
    data_dir = claimed.data_dir
    present = [data_dir / name for name in FORGETTABLE if (data_dir / name).exists()]
    if not (data_dir / MARKER).exists():
        if present:
            raise EmbeddedServerError(
                f"{data_dir} has no {MARKER}, so --fresh will not delete anything in it; empty it yourself"
            )
        return False
    moved_cluster = _moved_cluster(data_dir)
    grave = data_dir / f"run.forgotten-{secrets.token_hex(4)}"
    grave.mkdir(mode=0o700)
    for path in present:
        path.rename(grave / path.name)  # at once gone from sight; a crash in the middle leaves no half of a store
    (data_dir / MARKER).unlink()
    for folder in (*data_dir.glob("run.forgotten-*"), *moved_cluster):
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _moved_cluster(data_dir: Path) -> list[Path]:
    """Root's Postgres may live elsewhere (infra/embedded/postgres_place.py); only a folder of that kind counts."""
    note = data_dir / "postgres" / "cluster.location"
    if not note.exists():
        return []
    home = Path(note.read_text().strip()).parent
    return [home] if home.parent == ROOT_HOME and home.name.startswith("postgres-") else []


def choose_ports(claimed: Claim, wanted: Ports, say: Callable[[str], None], *, nats_nodes: int = 1) -> Ports:
    """A free port for each: the one asked for in the environment, else the last one used, else the next free one."""
    path = claimed.data_dir / "run" / "ports.json"
    remembered = msgspec.json.decode(path.read_bytes(), type=Ports) if path.exists() else Ports()
    usual = Ports()
    chosen: dict[str, int] = {}
    for name, words in PORT_NAMES.items():
        asked = getattr(wanted, name)
        preferred = asked if asked != getattr(usual, name) else getattr(remembered, name)
        port = _free_port_besides(preferred, chosen.values())
        if port != preferred:
            say(f"Port {preferred} is taken; {words} listens on {port}.")
        chosen[name] = port
    ports = Ports(**chosen, nats_nodes=_node_ports(chosen, remembered.nats_nodes, nats_nodes))
    write_private(path, msgspec.json.encode(ports))
    return ports


def _node_ports(chosen: dict[str, int], remembered: Sequence[NodePorts], count: int) -> tuple[NodePorts, ...]:
    """The first node's are chosen already; the others' are nobody's business, so nothing is said about them."""
    taken = set(chosen.values())
    nodes = []
    for number in range(count):
        client = chosen["nats"] + number
        usual = NodePorts(client, client + MONITOR_OFFSET, client + ROUTE_OFFSET)
        before = remembered[number] if number < len(remembered) else usual
        ports = [] if number else [chosen["nats"], chosen["nats_monitor"]]
        for preferred in (before.client, before.monitor, before.route)[len(ports) :]:
            ports.append(_free_port_besides(preferred, taken))
            taken.add(ports[-1])
        nodes.append(NodePorts(*ports))
    return tuple(nodes)


def _free_port_besides(preferred: int, taken: Collection[int]) -> int:
    port = free_port(preferred)
    while port in taken:
        port = free_port(port + 1)
    return port


def end_leftovers(claimed: Claim) -> None:
    """After a killed `up`: waits for its children to finish dying, then ends them. Bounded by LEFTOVER_WAIT_S."""
    platform = last_platform(claimed.data_dir)
    if platform is None:
        return
    views = (*platform.roles.values(), *platform.finishing.values(), *platform.servers.values())
    deadline = time.monotonic() + LEFTOVER_WAIT_S
    while alive := [view.pid for view in views if is_alive(view.pid, view.created_at)]:
        if time.monotonic() > deadline:
            for pid in alive:
                with contextlib.suppress(psutil.Error):
                    psutil.Process(pid).kill()
            break
        time.sleep(LEFTOVER_POLL_S)
    remove_platform(claimed.data_dir)
