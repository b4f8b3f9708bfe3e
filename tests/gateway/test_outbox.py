"""Writes of one turn of the loop leave together and in order; what ends a connection sends them, what cuts it never."""

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import cast

import pytest

from gateway.calls import Calls
from gateway.client_connection import ClientConnection
from gateway.client_limits import ClientLimits
from gateway.client_shared import Shared
from gateway.engine_connection import EngineConnection
from gateway.engine_pool import EngineCall, Pool
from gateway.origin import STREAMED, origin_of
from gateway.outbox import Outbox, Outgoing
from tests.gateway.scripted_application import ScriptedApplication
from tests.gateway.told import Told
from tests.gateway.turns import at_once

GET = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
SHARED = Calls(now_s=time.monotonic)._shared


@dataclass
class Wire:
    """A transport that remembers its writes, one entry each."""

    writes: list[bytes] = field(default_factory=list)
    broken: bool = False
    aborted: bool = False

    def write(self, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("the handle is closed")
        self.writes.append(data)

    def writelines(self, pieces: list[bytes]) -> None:
        self.write(b"".join(pieces))

    def abort(self) -> None:
        self.aborted = True


@dataclass
class Turn:
    """A turn of the loop that ends when the test says so."""

    asked: int = 0

    def __post_init__(self) -> None:
        self.outbox = Outbox(self._soon)

    def _soon(self, _flush: object) -> None:
        self.asked += 1

    def connection(self) -> tuple[Outgoing, Wire]:
        wire = Wire()
        return Outgoing(cast("asyncio.Transport", wire), self.outbox), wire

    def ends(self) -> None:
        self.outbox.flush()


@pytest.fixture
def turn() -> Turn:
    return Turn()


def test_nothing_leaves_before_the_turn_ends(turn: Turn) -> None:
    (one, first), (two, second) = turn.connection(), turn.connection()
    one.write(b"a")
    two.writelines((b"head", b"body"))
    assert (first.writes, second.writes, one.holds) == ([], [], True)
    turn.ends()
    assert (first.writes, second.writes, one.holds) == ([b"a"], [b"headbody"], False)


def test_the_loop_is_asked_once_a_turn_however_many_write(turn: Turn) -> None:
    for _ in range(2):
        for outgoing, _ in (turn.connection() for _ in range(10)):
            outgoing.write(b"x")
        turn.ends()
    assert turn.asked == 2


def test_gathering_nothing_writes_at_once() -> None:
    """The control of the first specification."""
    wire = Wire()
    Outgoing(cast("asyncio.Transport", wire), Outbox(at_once)).write(b"a")
    assert wire.writes == [b"a"]


def test_a_second_write_sends_both_in_order(turn: Turn) -> None:
    outgoing, wire = turn.connection()
    outgoing.write(b"a")
    outgoing.write(b"b")
    assert wire.writes == [b"ab"]
    outgoing.write(b"c")
    outgoing.writelines((b"d", b"e"))
    turn.ends()
    assert wire.writes == [b"ab", b"c", b"de"]


def test_what_is_written_now_leaves_at_once_behind_what_waited(turn: Turn) -> None:
    outgoing, wire = turn.connection()
    outgoing.write_now(b"a")
    assert wire.writes == [b"a"]
    outgoing.write(b"b")
    outgoing.write_now(b"c")
    assert b"".join(wire.writes) == b"abc"
    turn.ends()
    assert b"".join(wire.writes) == b"abc"


def test_a_flush_sends_now_and_the_end_of_the_turn_nothing_twice(turn: Turn) -> None:
    outgoing, wire = turn.connection()
    outgoing.write(b"a")
    outgoing.flush()
    assert wire.writes == [b"a"]
    turn.ends()
    assert wire.writes == [b"a"]


def test_what_is_dropped_never_leaves(turn: Turn) -> None:
    outgoing, wire = turn.connection()
    outgoing.write(b"a")
    outgoing.drop()
    turn.ends()
    assert (wire.writes, outgoing.holds) == ([], False)


def test_one_connection_that_fails_is_cut_and_the_others_write_on(turn: Turn) -> None:
    (one, first), (two, second) = turn.connection(), turn.connection()
    first.broken = True
    one.write(b"a")
    two.write(b"b")
    turn.ends()
    assert (first.aborted, second.aborted, second.writes) == (True, False, [b"b"])


def test_what_is_written_while_others_are_flushed_waits_for_the_next_turn(turn: Turn) -> None:
    (one, first), (two, second) = turn.connection(), turn.connection()

    def write_and_answer(data: bytes) -> None:
        first.writes.append(data)
        two.write(b"later")

    first.write = write_and_answer  # type: ignore[method-assign]
    one.write(b"a")
    turn.ends()
    assert (first.writes, second.writes, turn.asked) == ([b"a"], [], 2)
    turn.ends()
    assert second.writes == [b"later"]


async def test_on_a_real_loop_the_writes_of_a_turn_leave_before_the_next_one_waits() -> None:
    wire, other = Wire(), Wire()
    outbox = Outbox()
    Outgoing(cast("asyncio.Transport", wire), outbox).write(b"a")
    Outgoing(cast("asyncio.Transport", other), outbox).write(b"b")
    assert (wire.writes, other.writes) == ([], [])
    await asyncio.sleep(0)
    assert (wire.writes, other.writes) == ([b"a"], [b"b"])


class Paper(Wire):
    """As much of a transport as a client's or an engine's connection uses."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[str] = []

    def get_extra_info(self, name: str) -> object:
        return ("192.0.2.1", 4711) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return bool(self.ends)

    def can_write_eof(self) -> bool:
        return True

    def resume_reading(self) -> None: ...

    def close(self) -> None:
        self.ends.append(f"closed after {len(self.writes)}")

    def write_eof(self) -> None:
        self.ends.append(f"half-closed after {len(self.writes)}")

    def abort(self) -> None:
        self.ends.append(f"cut after {len(self.writes)}")


def client(turn: Turn, request: bytes) -> tuple[ClientConnection, Paper]:
    paper, shared = Paper(), Shared(ScriptedApplication(), ClientLimits(), time.monotonic, turn.outbox)
    connection = ClientConnection(shared)
    connection.connection_made(cast("asyncio.Transport", paper))
    connection.data_received(request)
    return connection, paper


async def test_a_reply_that_closes_its_connection_leaves_before_that(turn: Turn) -> None:
    _, paper = client(turn, b"GET /a HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert paper.ends == ["closed after 1"]


async def test_a_refusal_leaves_before_the_half_close_that_follows_it(turn: Turn) -> None:
    _, paper = client(turn, b"nonsense\r\n\r\n")
    assert paper.ends == ["half-closed after 1"]


async def test_who_asks_and_goes_in_one_turn_is_answered_all_the_same(turn: Turn) -> None:
    connection, paper = client(turn, GET)
    connection.eof_received()
    assert len(paper.writes) == 1


async def test_a_client_who_is_cut_off_gets_nothing_more(turn: Turn) -> None:
    connection, paper = client(turn, GET)
    connection.cut_off()
    turn.ends()
    assert (paper.writes, paper.ends) == ([], ["cut after 0"])


def engine(turn: Turn) -> tuple[EngineCall, Paper]:
    """A call that was begun in this turn, on a connection that was idle."""
    paper = Paper()
    pool = Pool(origin_of("http://127.0.0.1:1"), replace(SHARED, outbox=turn.outbox))
    connection: EngineConnection[EngineCall] = EngineConnection(pool, turn.outbox)
    connection.connection_made(cast("asyncio.Transport", paper))
    call = EngineCall(pool, (b"head", b"body"), Told(), STREAMED)
    connection.carry(call)
    return call, paper


def test_a_call_that_is_left_in_its_own_turn_is_never_sent(turn: Turn) -> None:
    call, paper = engine(turn)
    call.leave()
    turn.ends()
    assert (paper.writes, paper.ends) == ([], ["cut after 0"])


def test_a_request_leaves_before_the_half_close_that_counts_it_out(turn: Turn) -> None:
    call, paper = engine(turn)
    call.count_out()
    assert (paper.writes, paper.ends) == ([b"headbody"], ["half-closed after 1"])


def test_an_engine_that_answers_before_it_was_asked_is_not_asked_again(turn: Turn) -> None:
    call, paper = engine(turn)
    assert call.connection is not None
    call.connection.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
    turn.ends()
    assert (paper.writes, paper.ends) == ([], ["cut after 0"])
