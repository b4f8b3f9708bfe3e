"""The protocol as bytes: whatever the network cuts in two arrives whole, and in order."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.errors import ProtocolError

from infra.embedded.nats import EmbeddedNats
from infra.events import wire
from infra.events.connection import connect_reader, disconnect
from infra.events.wire import WireParser, read_headers
from tests.settled import settled

WAIT_S = 60.0
Message = tuple[bytes, bytes, bytes, bytes]

HEADERS = b"NATS/1.0\r\nKind: test\r\n\r\n"
STREAM: list[tuple[bytes, Message | str]] = [
    (b"MSG a.b 1 5\r\nhello\r\n", (b"a.b", b"", b"", b"hello")),
    (b"MSG a.b 1 reply.to 0\r\n\r\n", (b"a.b", b"reply.to", b"", b"")),
    (b"PING\r\n", "ping"),
    (b"HMSG a.c 1 24 27\r\n" + HEADERS + b"one\r\n", (b"a.c", b"", HEADERS, b"one")),
    (b"HMSG a.c 1 r 24 28\r\n" + HEADERS + b"\r\nx\n\r\n", (b"a.c", b"r", HEADERS, b"\r\nx\n")),
    (b"+OK\r\n", ""),
    (b"-ERR 'Permissions Violation'\r\n", "error 'permissions violation'"),
    (b"PONG\r\n", "pong"),
    (b'INFO {"server_id":"x"}\r\n', "info x"),
    (b"MSG other 2 3\r\nPIN\r\n", "other subscription 2"),
]


class Heard:
    """What a client's parser calls."""

    def __init__(self) -> None:
        self.said: list[Message | str] = []
        self.parser = WireParser(self)  # type: ignore[arg-type] # the five methods that it calls are here
        self.parser.sinks[b"1"] = lambda *message: self.said.append(message)

    async def _process_ping(self) -> None:
        self.said.append("ping")

    async def _process_pong(self) -> None:
        self.said.append("pong")

    async def _process_err(self, error: str) -> None:
        self.said.append(f"error {error}")

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.said.append(f"info {info['server_id']}")

    async def _process_msg(self, sid: int, *_rest: bytes) -> None:
        self.said.append(f"other subscription {sid}")


@given(cuts=st.lists(st.integers(0, sum(len(sent) for sent, _ in STREAM)), max_size=30))
def test_cut_anywhere_everything_arrives_whole_and_in_order(cuts: list[int]) -> None:
    data = b"".join(sent for sent, _ in STREAM)
    heard = Heard()

    async def receive() -> None:
        edges = [0, *sorted(cuts), len(data)]
        for begin, end in itertools.pairwise(edges):
            await heard.parser.parse(data[begin:end])

    asyncio.run(receive())
    assert heard.said == [meaning for _, meaning in STREAM if meaning]


async def test_half_a_message_of_a_lost_connection_means_nothing_on_the_next() -> None:
    heard = Heard()
    await heard.parser.parse(b"MSG a 1 100\r\nhalf of")
    heard.parser.reset()
    await heard.parser.parse(b"MSG b 1 2\r\nok\r\n")
    assert heard.said == [(b"b", b"", b"", b"ok")]


@pytest.mark.parametrize("noise", [b"HTTP/1.1 400 Bad Request\r\n", b"\r\n", b"x" * (wire.CONTROL_LINE_BYTES_MAX + 1)])
async def test_what_is_not_nats_ends_the_connection(noise: bytes) -> None:
    with pytest.raises(ProtocolError):
        await Heard().parser.parse(noise)


def test_a_status_and_its_headers_are_read() -> None:
    beat = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 7\r\n\r\n"
    assert read_headers(beat) == {"Status": "100", "Description": "Idle Heartbeat", "Nats-Last-Consumer": "7"}
    assert read_headers(b"NATS/1.0 503\r\n\r\n") == {"Status": "503", "Description": ""}
    assert read_headers(b"NATS/1.0\r\nKind: a: b\r\n\r\n") == {"Kind": "a: b"}


@pytest.fixture
async def ours(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    client = await connect_reader(nats_server.url, "reader")
    yield client
    await disconnect(client)


@pytest.fixture
async def foreign(nats_server: EmbeddedNats) -> AsyncIterator[Client]:
    client = await nats.connect(nats_server.url)
    yield client
    await client.close()


@pytest.fixture(params=["ours", "foreign"])
def client(request: pytest.FixtureRequest, ours: Client, foreign: Client) -> Client:
    return ours if request.param == "ours" else foreign


async def test_a_sink_hears_the_same_on_any_client(client: Client, foreign: Client) -> None:
    heard: list[Message] = []
    all_there = asyncio.Event()

    def sink(*message: bytes) -> None:
        heard.append(message)  # type: ignore[arg-type] # four of them
        if len(heard) == 3:
            all_there.set()

    subscription = await wire.subscribe(client, "test.>", sink)
    await settled(client)
    await foreign.publish("test.a", b"plain")
    await foreign.publish("test.b", b"with headers", headers={"Kind": "x", "Other": "y"}, reply="test.reply")
    await foreign.publish("test.c", b"")
    async with asyncio.timeout(WAIT_S):
        await all_there.wait()
    assert [(subject, reply, payload) for subject, reply, _, payload in heard] == [
        (b"test.a", b"", b"plain"),
        (b"test.b", b"test.reply", b"with headers"),
        (b"test.c", b"", b""),
    ]
    assert read_headers(heard[1][2]) == {"Kind": "x", "Other": "y"}
    await wire.unsubscribe(client, subscription)
    await settled(client)
    await foreign.publish("test.a", b"after the end")
    await settled(foreign)
    assert len(heard) == 3


async def test_a_sink_goes_on_after_a_reconnect(nats_server: EmbeddedNats, ours: Client, foreign: Client) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    await wire.subscribe(ours, "test", lambda _subject, _reply, _headers, payload: heard.put_nowait(payload))
    await nats_server.kill()
    await nats_server.start()
    async with asyncio.timeout(WAIT_S):
        while not (ours.is_connected and foreign.is_connected):  # noqa: ASYNC110 - nats-py offers no event for it
            await asyncio.sleep(0.01)
        await settled(ours)
        await foreign.publish("test", b"back")
        assert await heard.get() == b"back"
