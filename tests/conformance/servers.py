"""A nats-server, or three in a cluster, for synchronous tests: started and stopped outside of any event loop."""

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.embedded.nats_cluster import EmbeddedNatsCluster, free_node_ports
from tests.conftest import some_port, started


@contextmanager
def servers(nodes: int) -> Iterator[str]:
    """The URL of a running server or cluster, as a user who may create streams."""
    with (
        tempfile.TemporaryDirectory(prefix="inventiv-", ignore_cleanup_errors=True) as folder,
        asyncio.Runner() as runner,
    ):
        cluster = runner.run(
            started(lambda: EmbeddedNatsCluster(Path(folder) / "nats", free_node_ports(some_port(), nodes)))
        )
        try:
            yield cluster.admin_url
        finally:
            runner.run(cluster.stop())
