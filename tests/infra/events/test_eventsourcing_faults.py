"""The persistence module under faults: lost replies, a killed server, a killed leader, writers in several threads."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from eventsourcing.persistence import ApplicationRecorder, IntegrityError, StoredEvent, Tracking
from eventsourcing.utils import Environment

from infra.embedded.nats import EmbeddedNats
from infra.embedded.nats_cluster import EmbeddedNatsCluster
from infra.events.eventsourcing_module import Factory
from tests.faults import FaultProxy, fault_proxy

WAIT_S = 60.0
WRITERS, INSERTS_EACH, CRASHES = 4, 40, 3
SHARED = "shared"


def factory_at(url: str, replicas: int = 1) -> Factory:
    return Factory(Environment("Faults", {"NATS_URL": url, "NATS_REPLICAS": str(replicas)}))


def stored(originator_id: str, version: int, state: str) -> StoredEvent:
    return StoredEvent(originator_id, version, "test:Event", state.encode())


@pytest.fixture
async def proxy(bare_nats: EmbeddedNats) -> AsyncIterator[FaultProxy]:
    async with fault_proxy(bare_nats.port) as between:
        yield between


async def lose_one_reply(proxy: FaultProxy) -> None:
    """Throws away what the server answers until something was lost, then breaks the connection."""
    async with asyncio.timeout(WAIT_S):
        while not proxy.lost:  # noqa: ASYNC110 - the state lies in a socket
            await asyncio.sleep(0.001)
    proxy.swallowing = False
    proxy.cut()


@pytest.mark.parametrize("count", [1, 4], ids=["one event", "several with tracking"])
async def test_a_lost_reply_still_gives_the_right_ids_and_doubles_nothing(
    bare_nats: EmbeddedNats, proxy: FaultProxy, count: int
) -> None:
    factory = factory_at(bare_nats.admin_url.replace(f":{bare_nats.port}", f":{proxy.port}"))
    recorder = await asyncio.to_thread(factory.process_recorder)
    tracking = Tracking("upstream", 2) if count > 1 else None
    before = [stored("a", 1, "before"), stored("b", 1, "before")]
    events = [stored("a", 2, "mine"), stored("b", 2, "mine"), stored("a", 3, "mine"), stored("b", 3, "mine")][:count]
    await asyncio.to_thread(recorder.insert_events, before, tracking=Tracking("upstream", 1))
    proxy.swallowing = True  # the heads are known now: the next that is answered is the append
    losing = asyncio.create_task(lose_one_reply(proxy))
    ids = await asyncio.to_thread(recorder.insert_events, events, tracking=tracking)
    await losing
    assert b'"seq":' in proxy.lost, "it was the acknowledgement"
    found = await asyncio.to_thread(recorder.select_notifications, 4, 10)
    assert [(each.id, each.originator_id, each.originator_version) for each in found] == [
        (position, each.originator_id, each.originator_version)
        for position, each in zip(ids or (), events, strict=True)
    ]
    await asyncio.to_thread(factory.close)


class Writers:
    """Threads that insert, each into an aggregate of its own and all into a shared one; `acked`: their ids."""

    def __init__(self, url: str, replicas: int) -> None:
        self.acked: list[tuple[int, str, int, str]] = []  # (id, originator, version, state)
        self.errors: list[Exception] = []
        self._url = url
        self._replicas = replicas
        self._threads = [threading.Thread(target=self._write, args=(number,)) for number in range(WRITERS)]

    async def run(self, disturb: Callable[[], Awaitable[None]], times: int) -> None:
        """Disturbs that often while they write, evenly spread."""
        for thread in self._threads:
            thread.start()
        total = 2 * WRITERS * INSERTS_EACH
        async with asyncio.timeout(WAIT_S):
            for number in range(1, times + 1):
                while len(self.acked) < number * total // (times + 1) and not self.errors:  # noqa: ASYNC110 - a list tells of no growth
                    await asyncio.sleep(0.005)
                await disturb()
        for thread in self._threads:
            await asyncio.to_thread(thread.join, WAIT_S)
        assert not self.errors
        assert len(self.acked) == total

    def _write(self, writer: int) -> None:
        factory = factory_at(self._url, self._replicas)
        try:
            recorder = factory.application_recorder()
            for number in range(1, INSERTS_EACH + 1):
                self._insert(recorder, f"own-{writer}", number, f"{writer}-{number}")
                self._insert(recorder, SHARED, None, f"{writer}-{number}")
        except Exception as error:  # noqa: BLE001 - a thread's error is the test's
            self.errors.append(error)
        finally:
            factory.close()

    def _insert(self, recorder: ApplicationRecorder, originator_id: str, version: int | None, state: str) -> None:
        while True:  # bounded by the test's time limit; each loser's version was won by another
            newest = recorder.select_events(originator_id, desc=True, limit=1)
            new = version or 1 + (newest[0].originator_version if newest else 0)
            try:
                ids = recorder.insert_events([stored(originator_id, new, state)])
            except IntegrityError:
                if version is not None:
                    raise  # nobody else writes there: it would be a conflict with ourselves
                continue
            assert ids is not None
            self.acked.append((ids[0], originator_id, new, state))
            return


def assert_nothing_lost_or_doubled(url: str, replicas: int, acked: list[tuple[int, str, int, str]]) -> None:
    factory = factory_at(url, replicas)
    recorder = factory.application_recorder()
    found = recorder.select_notifications(1, 2 * len(acked))
    assert [(each.id, each.originator_id, each.originator_version, each.state.decode()) for each in found] == sorted(
        acked
    )
    shared = recorder.select_events(SHARED)
    assert [each.originator_version for each in shared] == list(range(1, WRITERS * INSERTS_EACH + 1))
    factory.close()


async def test_a_killed_server_loses_nothing_and_doubles_nothing(bare_nats: EmbeddedNats) -> None:
    async def crash() -> None:
        await bare_nats.kill()
        await bare_nats.start()

    writers = Writers(bare_nats.admin_url, 1)
    await writers.run(crash, CRASHES)
    await asyncio.to_thread(assert_nothing_lost_or_doubled, bare_nats.admin_url, 1, writers.acked)


async def test_a_killed_leader_of_three_loses_nothing_and_doubles_nothing(nats_cluster: EmbeddedNatsCluster) -> None:
    async def crash() -> None:
        leader = await nats_cluster.leader("ES_FAULTS")
        await leader.kill()
        await leader.start()

    writers = Writers(nats_cluster.admin_url, nats_cluster.replicas)
    await writers.run(crash, 1)
    await asyncio.to_thread(
        assert_nothing_lost_or_doubled, nats_cluster.admin_url, nats_cluster.replicas, writers.acked
    )
