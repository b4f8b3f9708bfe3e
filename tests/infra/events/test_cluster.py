"""Three replicas, as in production: the promises hold when the leader is killed."""

import asyncio

from infra.embedded.nats_cluster import EmbeddedNatsCluster
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.port import Conflict
from infra.events.streams import verify_server
from tests.infra.events.envelopes import append_of

RACERS, ROUNDS = 12, 8
WRITERS, EVENTS_EACH = 4, 60
WAIT_S = 60.0


async def test_the_log_keeps_its_promises_while_a_leader_dies(nats_cluster: EmbeddedNatsCluster) -> None:
    writer = await connect_writer(nats_cluster.url, "writer")
    reader = await connect_reader(nats_cluster.url, "reader")
    log = JetStreamLog(writer)
    await verify_server(writer, nats_cluster.monitor_url, replicas=3)
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
        leader = await nats_cluster.leader("EVENTS")
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
