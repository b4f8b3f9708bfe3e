"""Where tunnels wait: none at all, none free, dead ones, spare ones. The other end is a socket that a spec plays."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from agent.frames import BrokenTunnelError, Frame, frame, read_frame
from infra.tunnel import lot as lots
from infra.tunnel.connection import Call, TunnelConnection
from infra.tunnel.lot import KEPT_IDLE, PARKED_LIFE_S, PING_EVERY_S, PONG_TIMEOUT_S, Lot, NoTunnelError

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Yard:
    """A lot, and agents that a spec plays frame by frame."""

    def __init__(self) -> None:
        self.now_s = 1000.0
        self.lot = Lot(self._now)
        self._serving: list[asyncio.Task[None]] = []
        self._writers: list[asyncio.StreamWriter] = []

    def _now(self) -> float:
        return self.now_s

    async def park(self, instance_id: str = "i") -> Streams:
        """The agent's end of a new tunnel."""
        ours, theirs = socket.socketpair()
        agent, relay = await asyncio.open_connection(sock=theirs), await asyncio.open_connection(sock=ours)
        self._writers += [agent[1], relay[1]]
        connection = TunnelConnection(instance_id, *relay, now_s=self._now)
        self.lot.park(connection)
        self._serving.append(asyncio.create_task(self._serve(connection)))
        return agent

    async def call(self) -> tuple[Call, Streams]:
        """One with a client, and that client's end."""
        ours, theirs = socket.socketpair()
        client, relay = await asyncio.open_connection(sock=theirs), await asyncio.open_connection(sock=ours)
        self._writers += [client[1], relay[1]]
        return Call(relay[1]), client

    async def close(self) -> None:
        self.lot.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.gather(*self._serving)
        await asyncio.gather(*(writer.wait_closed() for writer in self._writers), return_exceptions=True)

    async def _serve(self, connection: TunnelConnection) -> None:
        await connection.serve()
        self.lot.remove(connection)


@pytest.fixture
async def yard() -> AsyncIterator[Yard]:
    made = Yard()
    yield made
    await made.close()


async def said(agent: Streams) -> Frame:
    async with asyncio.timeout(5):
        return await read_frame(agent[0])


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - any state
            await asyncio.sleep(0.005)


async def opened(yard: Yard, *, instance_id: str = "i") -> TunnelConnection:
    call, _ = await yard.call()
    return await yard.lot.open(instance_id, "engine", call)


async def test_an_instance_without_a_tunnel_is_told_at_once(yard: Yard) -> None:
    await yard.park("another")
    with pytest.raises(NoTunnelError, match="no tunnel is parked"):
        await asyncio.wait_for(opened(yard), 0.5)


async def test_one_whose_tunnels_are_busy_waits_for_the_next(yard: Yard) -> None:
    agent = await yard.park()
    first = asyncio.create_task(opened(yard))
    assert await said(agent) == Frame("open", b"engine")
    agent[1].write(frame("opened"))
    await first
    second = asyncio.create_task(opened(yard))
    await until(lambda: bool(yard.lot._waiting["i"]))
    another = await yard.park()
    assert await said(another) == Frame("open", b"engine")
    another[1].write(frame("opened"))
    await second


async def test_a_wait_is_bounded(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lots, "FREE_TIMEOUT_S", 0.05)
    agent = await yard.park()
    first = asyncio.create_task(opened(yard))
    await said(agent)
    agent[1].write(frame("opened"))
    await first
    with pytest.raises(NoTunnelError, match="no tunnel became free"):
        await opened(yard)


async def test_who_waits_is_told_when_the_last_tunnel_closes(yard: Yard) -> None:
    agent = await yard.park()
    first = asyncio.create_task(opened(yard))
    await said(agent)
    agent[1].write(frame("opened"))
    await first
    second = asyncio.create_task(opened(yard))
    await until(lambda: bool(yard.lot._waiting["i"]))
    agent[1].close()
    with pytest.raises(NoTunnelError, match="last tunnel closed"):
        await second


async def test_a_dead_tunnel_is_passed_over(yard: Yard) -> None:
    living, dead = await yard.park(), await yard.park()
    asked = asyncio.create_task(opened(yard))
    assert await said(dead) == Frame("open", b"engine"), "the one that spoke last"
    dead[1].close()
    assert await said(living) == Frame("open", b"engine")
    living[1].write(frame("opened"))
    tunnel = await asked
    assert (yard.lot.count, tunnel.instance_id) == (1, "i")


async def test_a_silent_tunnel_is_passed_over_in_time(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lots, "OPEN_TIMEOUT_S", 0.05)
    living, silent = await yard.park(), await yard.park()
    asked = asyncio.create_task(opened(yard))
    await said(silent)
    await said(living)
    living[1].write(frame("opened"))
    await asked
    assert yard.lot.count == 1


async def test_after_a_few_dead_ones_a_request_is_given_up(yard: Yard) -> None:
    agents = [await yard.park() for _ in range(5)]

    async def dies(agent: Streams) -> None:
        await said(agent)
        agent[1].close()

    dying = [asyncio.create_task(dies(agent)) for agent in agents]
    with pytest.raises(NoTunnelError, match="3 tunnels were dead"):
        await opened(yard)
    for task in dying:
        task.cancel()
    await asyncio.gather(*dying, return_exceptions=True)


async def test_a_refusal_says_why_and_keeps_the_tunnel(yard: Yard) -> None:
    agent = await yard.park()
    asked = asyncio.create_task(opened(yard))
    await said(agent)
    agent[1].write(frame("refused", b"nobody listens"))
    with pytest.raises(NoTunnelError, match="the engine does not answer its agent: nobody listens"):
        await asked
    again = asyncio.create_task(opened(yard))
    assert await said(agent) == Frame("open", b"engine")
    agent[1].write(frame("opened"))
    await again


async def test_a_call_on_a_tunnel_that_breaks_is_broken_and_not_ended(yard: Yard) -> None:
    agent = await yard.park()
    call, client = await yard.call()
    asked = asyncio.create_task(yard.lot.open("i", "engine", call))
    await said(agent)
    agent[1].write(frame("opened") + frame("data", b"half"))
    await asked
    assert await client[0].readexactly(4) == b"half"
    agent[1].close()
    await asyncio.wait_for(call.ended.wait(), 5)
    assert call.broken


@pytest.mark.parametrize(
    "wrong",
    [frame("data", b"x"), frame("end"), frame("opened"), frame("open", b"agent"), b"ZZZZZZZZ", b"D\xff\xff\xff\xff"],
)
async def test_an_agent_that_speaks_out_of_turn_is_cut_off(yard: Yard, wrong: bytes) -> None:
    agent = await yard.park()
    agent[1].write(wrong)
    await until(lambda: yard.lot.count == 0)


async def test_idle_tunnels_are_pinged_and_who_does_not_answer_is_closed(yard: Yard) -> None:
    answering, silent = await yard.park(), await yard.park()
    yard.lot.look_after()
    for agent in (answering, silent):
        assert await said(agent) == Frame("ping", b"")
    yard.now_s += PING_EVERY_S
    answering[1].write(frame("pong"))
    await until(lambda: any(one.heard_at_s == yard.now_s for one in yard.lot._idle["i"]))
    yard.now_s += PONG_TIMEOUT_S + 1
    yard.lot.look_after()
    assert await said(answering) == Frame("ping", b"")
    with pytest.raises(BrokenTunnelError):
        await said(silent)
    await until(lambda: yard.lot.count == 1)


async def test_an_old_tunnel_has_to_prove_itself_anew(yard: Yard) -> None:
    agent = await yard.park()
    yard.now_s += PARKED_LIFE_S + 1
    [connection] = yard.lot._idle["i"]
    connection.heard_at_s = yard.now_s
    yard.lot.look_after()
    assert await said(agent) == Frame("end", b"")
    with pytest.raises(NoTunnelError):
        await opened(yard)


async def test_spare_tunnels_are_dismissed_and_the_fresh_ones_kept(yard: Yard) -> None:
    agents = [await yard.park() for _ in range(KEPT_IDLE + 3)]
    yard.lot.look_after()
    words = [(await said(agent)).kind for agent in agents]
    assert words == ["end"] * 3 + ["ping"] * KEPT_IDLE


async def test_one_instance_cannot_take_all_the_room(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lots, "MAX_PER_INSTANCE", 2)
    monkeypatch.setattr(lots, "MAX_CONNECTIONS", 3)
    for _ in range(2):
        assert yard.lot.has_room("i")
        await yard.park("i")
    assert not yard.lot.has_room("i")
    assert yard.lot.has_room("j")
    await yard.park("j")
    assert not yard.lot.has_room("j")
