"""A cluster on loopback: it forms, forgets nothing, lets no stranger in, and of one node is just that node."""

import asyncio
import secrets
from pathlib import Path

import nats
import pytest

from infra.embedded.child import EmbeddedServerError
from infra.embedded.nats_cluster import EmbeddedNatsCluster, free_node_ports
from infra.events.streams import EVENTS
from tests.conftest import started

WAIT_S = 60.0


async def test_it_is_led_again_after_its_leader_was_killed(nats_cluster: EmbeddedNatsCluster) -> None:
    first = await nats_cluster.leader(EVENTS)
    await first.kill()
    await nats_cluster.wait_formed()
    second = await nats_cluster.leader(EVENTS)
    assert second is not first
    await first.start()
    assert first.pid is not None


async def test_it_comes_back_from_its_folder_with_streams_and_passwords(nats_cluster: EmbeddedNatsCluster) -> None:
    url = nats_cluster.url
    async with await nats.connect(url.split(",")) as service:
        await service.jetstream().publish("evt.acme.instance.1", b"kept")
    await nats_cluster.stop()
    assert [node.pid for node in nats_cluster.nodes] == [None] * 3
    await nats_cluster.start()
    assert nats_cluster.url == url
    async with await nats.connect(url.split(",")) as service:
        assert (await service.jetstream().get_msg(EVENTS, 1)).data == b"kept"


async def test_a_node_alone_serves_nobody(tmp_path: Path) -> None:
    cluster = EmbeddedNatsCluster(tmp_path, free_node_ports(10_000 + secrets.randbelow(15_000)))
    await cluster.nodes[0].start()
    with pytest.raises(EmbeddedServerError, match="did not answer within"):
        await cluster.wait_formed(timeout_s=2.0)
    await cluster.stop()


async def test_who_does_not_know_the_password_is_no_node(nats_cluster: EmbeddedNatsCluster, tmp_path: Path) -> None:
    inside = nats_cluster.nodes[0]
    route = int(inside.log_path.with_name("nats.conf").read_text().split('listen: "127.0.0.1:')[1].split('"')[0])
    reader, writer = await asyncio.open_connection("127.0.0.1", route)
    writer.write(b'CONNECT {"verbose":false,"user":"route","pass":"guess","name":"stranger"}\r\nPING\r\n')
    async with asyncio.timeout(WAIT_S):
        assert b"-ERR" in await reader.read()
    writer.close()
    await writer.wait_closed()


async def test_a_single_node_is_a_cluster_of_one_in_the_folder_itself(tmp_path: Path) -> None:
    def make() -> EmbeddedNatsCluster:
        return EmbeddedNatsCluster(tmp_path, free_node_ports(10_000 + secrets.randbelow(15_000), nodes=1))

    cluster = await started(make)
    [node] = cluster.nodes
    assert (node.name, node.data_dir, cluster.replicas) == ("nats", tmp_path, 1)
    async with await nats.connect(cluster.admin_url) as admin:
        await admin.jetstream().add_stream(name=EVENTS, subjects=["evt.>"])
    assert await cluster.leader(EVENTS) is node
    await cluster.stop()


def test_free_ports_are_all_different() -> None:
    ports = free_node_ports(10_000 + secrets.randbelow(15_000))
    assert len({port for node in ports for port in (node.client, node.monitor, node.route)}) == 9
