"""Real nats-servers on loopback, three as in production or just one: the event log's home, however many hold it.

    EmbeddedNatsCluster ── node-1 ⇄ node-2 ⇄ node-3 (routes with a password) ── ready: a leader for all, one per stream

Passwords are the cluster's, so one URL with all addresses serves every client. The surprising rule: a node that is
ready need not serve anybody, for one of three has no majority; ask the cluster.
"""

import asyncio
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from infra.embedded.child import READY_TIMEOUT_S, EmbeddedServerError, together, wait_until
from infra.embedded.nats import Cluster, EmbeddedNats
from infra.embedded.ports import free_port

NODES = 3
CLUSTER_NAME = "inventiv"
REPLY_TIMEOUT_S = 1.0
PORTS_A_NODE = 3


@dataclass(frozen=True)
class NodePorts:
    """Of one node, on 127.0.0.1."""

    client: int
    monitor: int
    route: int


def free_node_ports(preferred: int, nodes: int = NODES) -> tuple[NodePorts, ...]:
    """Ports that nobody listens on now, from `preferred` upward: free, not reserved.

    Raises:
        EmbeddedServerError: too few are free.
    """
    found: list[int] = []
    for _ in range(PORTS_A_NODE * nodes):
        found.append(free_port(found[-1] + 1 if found else preferred))
    return tuple(NodePorts(*found[at : at + PORTS_A_NODE]) for at in range(0, len(found), PORTS_A_NODE))


class EmbeddedNatsCluster:
    """Nodes that hold the streams together; `async with` it, or start and stop it, or hand `.nodes` to a supervisor.

    Args:
        data_dir: the passwords, and a folder `node-<n>` for each node; of a single node everything, as EmbeddedNats.
        ports: one entry a node.

    Attributes:
        nodes: each with start(), stop(), kill().
        replicas: copies that its streams have.
    """

    def __init__(self, data_dir: Path, ports: Sequence[NodePorts]) -> None:
        self.replicas = len(ports)
        if len(ports) == 1:
            self.nodes: tuple[EmbeddedNats, ...] = (
                EmbeddedNats(data_dir, ports[0].client, monitor_port=ports[0].monitor),
            )
            return
        routes = tuple(port.route for port in ports)
        self.nodes = tuple(
            EmbeddedNats(
                data_dir / f"node-{number}",
                port.client,
                monitor_port=port.monitor,
                server_name=f"{CLUSTER_NAME}-{number}",
                name=f"nats-{number}",
                cluster=Cluster(CLUSTER_NAME, port.route, routes, data_dir),
            )
            for number, port in enumerate(ports, start=1)
        )

    @property
    def url(self) -> str:
        """EmbeddedNats.url of every node, separated by commas."""
        return ",".join(node.url for node in self.nodes)

    @property
    def admin_url(self) -> str:
        return ",".join(node.admin_url for node in self.nodes)

    def url_of(self, identity: str) -> str:
        """EmbeddedNats.url_of, of every node."""
        return ",".join(node.url_of(identity) for node in self.nodes)

    @property
    def monitor_url(self) -> str:
        return ",".join(node.monitor_url for node in self.nodes)

    async def start(self) -> None:
        """Returns once streams can be created, and those that exist can be used.

        Raises:
            EmbeddedServerError: a node does not start, or they find no leader; nothing is left running.
        """
        try:
            await together(*(node.start() for node in self.nodes))
            await self.wait_formed()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def wait_formed(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Returns once the running nodes serve as one: streams can be listed, and each that is copied has its leader.

        Raises:
            EmbeddedServerError: not within timeout_s.
        """
        await wait_until(self._has_leaders, f"the cluster of {len(self.nodes)} nats-servers", timeout_s)

    async def leader(self, stream: str) -> EmbeddedNats:
        """The node that leads a stream now; of a single node itself.

        Raises:
            EmbeddedServerError: no such stream, or no leader at this moment.
        """
        [info] = await self._ask(f"$JS.API.STREAM.INFO.{stream}")
        leading = _leader_name(info)
        for node in self.nodes:
            if leading == node.server_name or (leading and len(self.nodes) == 1):
                return node
        raise EmbeddedServerError(f"stream {stream} has no leader now: {info.get('error', 'an election')}")

    async def _has_leaders(self) -> bool:
        try:
            [names] = await self._ask("$JS.API.STREAM.NAMES")
            streams = [f"$JS.API.STREAM.INFO.{name}" for name in names.get("streams") or ()]
            return "error" not in names and all(_leader_name(info) for info in await self._ask(*streams))
        except EmbeddedServerError:
            return False

    async def _ask(self, *subjects: str) -> list[dict[str, Any]]:
        """Replies of the JetStream API, as an administrator."""
        connection: Any = importlib.import_module("infra.events.connection")  # with nats-py: 0.1 s, not always needed
        errors: Any = importlib.import_module("nats.errors")
        try:
            client = await connection.connect_reader(self.admin_url, "cluster")
            try:
                replies = [await client.request(subject, timeout=REPLY_TIMEOUT_S) for subject in subjects]
            finally:
                await connection.disconnect(client)
        except (errors.Error, OSError) as error:
            raise EmbeddedServerError(f"the NATS cluster does not answer: {error!r}") from error
        return [msgspec.json.decode(reply.data, type=dict[str, Any]) for reply in replies]


def _leader_name(info: dict[str, Any]) -> str:
    """Of a stream; a server without peers names itself the leader too."""
    return str((info.get("cluster") or {}).get("leader") or "")
