"""What a reply looks like in bytes, and how many writes it takes: the connection on a transport that writes down."""

import time
from typing import Any

import pytest

from gateway.client_connection import ClientConnection
from gateway.client_limits import ClientLimits
from gateway.client_shared import Shared
from gateway.http import Headers, Reply
from gateway.outbox import Outbox
from tests.gateway.scripted_application import ScriptedApplication, post
from tests.gateway.turns import at_once

GET = b"GET /a HTTP/1.1\r\nhost: a\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nhost: a\r\n\r\n"
TEXT: Headers = ((b"content-type", b"text/plain"),)


class Paper:
    """A transport that writes everything down."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.writes.append(data)

    def get_extra_info(self, name: str) -> Any:
        return ("192.0.2.1", 4711) if name == "peername" else None

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high

    def close(self) -> None:
        self.closed = True


def on_paper(application: ScriptedApplication, data: bytes) -> tuple[ClientConnection, Paper]:
    paper = Paper()
    connection = ClientConnection(Shared(application, ClientLimits(), time.monotonic, Outbox(at_once)))
    connection.connection_made(paper)  # type: ignore[arg-type]  # as much of a transport as is used
    connection.data_received(data)
    return connection, paper


def undated(data: bytes) -> bytes:
    """Without the date, which must be there."""
    lines = data.split(b"\r\n")
    assert lines[1].startswith(b"date: ")
    assert lines[1].endswith(b" GMT")
    return b"\r\n".join(lines[:1] + lines[2:])


async def test_a_whole_answer_is_one_write() -> None:
    _, paper = on_paper(ScriptedApplication(), post(3, b"abc"))
    [written] = paper.writes
    assert undated(written) == b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 8\r\n\r\nPOST abc"


async def test_an_answer_without_headers_is_well_formed() -> None:
    application = ScriptedApplication(on_held=lambda held: held.reply.whole(418, (), b""))
    _, paper = on_paper(application, LATER)
    assert undated(paper.writes[0]) == b"HTTP/1.1 418 I'm a Teapot\r\ncontent-length: 0\r\n\r\n"


async def test_a_status_that_is_not_in_the_books_is_passed_on() -> None:
    application = ScriptedApplication(on_held=lambda held: held.reply.whole(529, TEXT, b"full"))
    _, paper = on_paper(application, LATER)
    assert paper.writes[0].startswith(b"HTTP/1.1 529 \r\n")


async def test_a_streams_head_leaves_with_its_first_bytes_and_its_end_with_its_last() -> None:
    application = ScriptedApplication()
    _, paper = on_paper(application, LATER)
    reply = application.held[0].reply
    reply.begin(200, TEXT)
    assert paper.writes == []
    reply.send(b"one")
    reply.send(b"")  # no chunk of nothing: that would be the end
    reply.send(b"x" * 20)
    reply.end(b"last")
    head, second, last = paper.writes
    assert undated(head) == (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n"
    )
    assert (second, last) == (b"14\r\n" + b"x" * 20 + b"\r\n", b"4\r\nlast\r\n0\r\n\r\n")
    assert not paper.closed


async def test_a_stream_that_ends_at_once_is_one_write() -> None:
    application = ScriptedApplication()
    _, paper = on_paper(application, LATER)
    application.held[0].reply.begin(200, ())
    application.held[0].reply.end()
    [written] = paper.writes
    assert undated(written) == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"


def _answer_in_pieces(reply: Reply, status: int = 200) -> None:
    reply.begin(status, TEXT)
    reply.send(b"one")
    reply.end(b"two")


@pytest.mark.parametrize(
    ("request_head", "written", "closes"),
    [
        (
            b"GET /later HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/plain\r\n\r\nonetwo",
            True,
        ),
        (
            b"HEAD /later HTTP/1.1\r\nhost: a\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n",
            False,
        ),
        (
            b"GET /later HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n%b"
            % b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n",
            True,
        ),
    ],
)
async def test_a_stream_is_framed_as_its_client_understands(request_head: bytes, written: bytes, closes: bool) -> None:
    application = ScriptedApplication(on_held=lambda held: _answer_in_pieces(held.reply))
    _, paper = on_paper(application, request_head)
    assert (undated(b"".join(paper.writes)), paper.closed) == (written, closes)


@pytest.mark.parametrize(
    ("request_head", "status", "written"),
    [
        (b"HEAD /later HTTP/1.1\r\nhost: a\r\n\r\n", 200, b"content-type: text/plain\r\ncontent-length: 5\r\n\r\n"),
        (LATER, 204, b"content-type: text/plain\r\n\r\n"),
        (LATER, 304, b"content-type: text/plain\r\n\r\n"),
        (
            b"GET /later HTTP/1.0\r\nconnection: keep-alive\r\n\r\n",
            200,
            b"connection: keep-alive\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nhello",
        ),
    ],
)
async def test_an_answer_has_a_body_only_where_one_may_be(request_head: bytes, status: int, written: bytes) -> None:
    application = ScriptedApplication(on_held=lambda held: held.reply.whole(status, TEXT, b"hello"))
    _, paper = on_paper(application, request_head)
    assert undated(paper.writes[0]).split(b"\r\n", 1)[1] == written
    assert not paper.closed


async def test_the_application_is_told_the_clients_address() -> None:
    application = ScriptedApplication()
    on_paper(application, GET)
    assert application.heads[0].peer == "192.0.2.1"


@pytest.mark.parametrize("late", ["whole", "begin", "send", "end", "cut"])
async def test_a_reply_that_was_finished_takes_nothing_more(late: str) -> None:
    application = ScriptedApplication()
    _, paper = on_paper(application, LATER)
    reply = application.held[0].reply
    reply.whole(200, TEXT, b"done")
    before = list(paper.writes)
    {
        "whole": lambda: reply.whole(200, TEXT, b"again"),
        "begin": lambda: reply.begin(200, TEXT),
        "send": lambda: reply.send(b"more"),
        "end": lambda: reply.end(b"more"),
        "cut": reply.cut,
    }[late]()
    assert (paper.writes, paper.closed) == (before, False)
