"""Three replicas, as in production: the promises hold when the leader is killed."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import nats
import pytest

from infra.embedded.child import EmbeddedServerError
from infra.embedded.nats import EmbeddedNats
from infra.embedded.ports import free_port
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.port import Conflict
from infra.events.streams import UnfitServerError, ensure_streams, verify_server
from tests.infra.events.envelopes import append_of

NODES = 3
RACERS, ROUNDS = 12, 8
WRITERS, EVENTS_EACH = 4, 60
WAIT_S = 60.0
FORM_ATTEMPTS = 3
PASSWORD = "for-tests-" + secrets.token_hex(8)


class Cluster:
    def __init__(self, nodes: Sequence[EmbeddedNats]) -> None:
        self.nodes = nodes
        self.url = ",".join(node.url for node in nodes)
        self.admin_url = ",".join(node.admin_url for node in nodes)
        self.monitor_url = ",".join(node.monitor_url for node in nodes)

    async def leader(self) -> EmbeddedNats:
        connection = await nats.connect(self.admin_url.split(","))
        info = msgspec.json.decode((await connection.request("$JS.API.STREAM.INFO.EVENTS", timeout=WAIT_S)).data)
        await connection.close()
        return self.nodes[int(info["cluster"]["leader"].removeprefix("node-"))]


def node(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch, routes: Sequence[int]) -> EmbeddedNats:
    home = folder / f"node-{number}"
    home.mkdir(exist_ok=True)
    for role in ("admin", "service"):
        (home / f"{role}.password").touch(mode=0o600)
        (home / f"{role}.password").write_text(PASSWORD)
    server = EmbeddedNats(home, free_port(routes[number] + NODES))
    alone = server._configuration()
    peers = ", ".join(f"nats://127.0.0.1:{port}" for port in routes)
    clustered = alone.replace("server_name: inventiv", f"server_name: node-{number}") + (
        f"cluster {{ name: tests, host: 127.0.0.1, port: {routes[number]}, routes: [{peers}] }}\n"
    )
    monkeypatch.setattr(server, "_configuration", lambda: clustered)
    return server


async def form(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    start = 10_000 + secrets.randbelow(15_000)
    routes = [free_port(start + 20 * number) for number in range(NODES)]
    nodes = [node(folder, number, monkeypatch, routes) for number in range(NODES)]
    results = await asyncio.gather(*(server.start() for server in nodes), return_exceptions=True)
    if failures := [result for result in results if isinstance(result, BaseException)]:
        await asyncio.gather(*(server.stop() for server in nodes))
        raise failures[0]
    return Cluster(nodes)


async def form_patiently(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    for _ in range(FORM_ATTEMPTS - 1):
        with contextlib.suppress(EmbeddedServerError):  # another test run took one of the many ports
            return await form(folder, monkeypatch)
    return await form(folder, monkeypatch)


@pytest.fixture
async def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Cluster]:
    formed = await form_patiently(tmp_path, monkeypatch)
    connection = await nats.connect(formed.admin_url.split(","))
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                await ensure_streams(connection, replicas=NODES)
                break
            except UnfitServerError:  # its members are still finding each other
                await asyncio.sleep(0.2)
    await connection.close()
    yield formed
    await asyncio.gather(*(server.stop() for server in formed.nodes))


async def test_the_log_keeps_its_promises_while_a_leader_dies(cluster: Cluster) -> None:
    writer = await connect_writer(cluster.url, "writer")
    reader = await connect_reader(cluster.url, "reader")
    log = JetStreamLog(writer)
    await verify_server(writer, cluster.monitor_url, replicas=NODES)
    before = await race(log)
    followed: list[tuple[int, str]] = []
    total = WRITERS * EVENTS_EACH * 2

    async def follow() -> None:
        async with JetStreamLog(reader).follow(after=before) as batches:
            async for batch in batches:
                followed.extend((found.position, found.envelope.event_id) for found in batch)
                if len(followed) >= total:
                    return

    async def kill_the_leader() -> None:
        while len(followed) < total // 2:  # noqa: ASYNC110 - a list tells of no growth
            await asyncio.sleep(0.005)
        leader = await cluster.leader()
        await leader.kill()
        await leader.start()

    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(follow(), kill_the_leader(), *(write(log, number) for number in range(WRITERS)))
    assert [position for position, _ in followed] == list(range(before + 1, before + total + 1))
    wanted = {f"{w}-{n}-{part}" for w in range(WRITERS) for n in range(EVENTS_EACH) for part in "xy"}
    assert {event_id for _, event_id in followed} == wanted
    await disconnect(writer)
    await disconnect(reader)


async def race(log: JetStreamLog) -> int:
    """Each round has one winner, though a follower or an unfinished write may answer the losers first."""
    expected = 0
    for number in range(ROUNDS):
        results = await asyncio.gather(
            *(
                log.append([append_of("evt.acme.instance.race", f"r{number}-{racer}", expected=expected)])
                for racer in range(RACERS)
            ),
            return_exceptions=True,
        )
        [expected] = [result for result in results if isinstance(result, int)]
        assert [type(result) for result in results if result != expected] == [Conflict] * (RACERS - 1)
    return expected


async def write(log: JetStreamLog, writer: int) -> None:
    """Reads its own writes each time: a follower's stale answer would fail here."""
    subject, expected = f"evt.acme.instance.{writer}", 0
    for number in range(EVENTS_EACH):
        first, second = f"{writer}-{number}-x", f"{writer}-{number}-y"
        if number % 2:
            expected = await log.append([append_of(subject, first, second, expected=expected)])
        else:
            expected = await log.append([append_of(subject, first, expected=expected)])
            expected = await log.append([append_of(subject, second, expected=expected)])
        found = await log.read(subject, after=expected - 1)
        assert [message.position for message in found] == [expected]
