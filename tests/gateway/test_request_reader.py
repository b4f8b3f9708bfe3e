"""Requests are read the same however their bytes are cut; what llhttp lets pass and we do not is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.client_limits import ReadLimits
from gateway.request_reader import CLOSES, FRAMING_SLACK_BYTES, HEAD_ONLY, OLD, Request, RequestReader

GET = b"GET /a?b HTTP/1.1\r\nHost: a\r\nX-Name: Value\r\n\r\n"
POST = b"POST /b HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello"
CHUNKS = (
    b"POST /c HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nx-t: a\r\n\r\n"
)
OFFER = b"POST /d HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\ncontent-length: 5\r\n\r\nhello"
OLDER = b"HEAD /e HTTP/1.0\r\nconnection: keep-alive\r\n\r\n"
KEPT = b"POST /b?c HTTP/1.1\r\nhost: a\r\nConnection: keep-alive\r\nContent-Length: %d\r\nx: y\r\n\r\n%b"
DAMAGES = [b"\r\n", b"\n", b"\r", b":", b" ", b"0", b"\0", b"content-length: 1\r\n"]
BROKEN = b"GET / HTTP/1.1\r\nhost : a\r\n\r\n"


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def reader(**limits: int) -> RequestReader:
    return RequestReader("192.0.2.1", ReadLimits(**limits), Clock())


def read(*pieces: bytes, **limits: int) -> RequestReader:
    one = reader(**limits)
    for piece in pieces:
        if not one.refusal:
            one.receive(piece)
    return one


def told(wholes: list[Request]) -> list[tuple[str, str, bytes, int]]:
    return [(head.method, head.path, body, manner) for head, body, manner in wholes]


def test_a_request_is_read_with_all_that_the_application_needs() -> None:
    one = read(GET)
    [(head, body, manner)] = one.wholes
    assert (head.method, head.path, head.peer, head.started_s) == ("GET", "/a", "192.0.2.1", 100.0)
    assert head.headers == [(b"host", b"a"), (b"x-name", b"Value")]
    assert head.given == {b"host": b"a", b"x-name": b"Value"}
    assert (body, manner) == (b"", 0)
    assert not one.is_midway


def test_of_several_lines_of_one_name_all_are_told_in_their_order() -> None:
    [(head, _, _)] = read(b"GET / HTTP/1.1\r\nhost: a\r\nx: 1\r\nx: 2\r\n\r\n").wholes
    assert head.headers == [(b"host", b"a"), (b"x", b"1"), (b"x", b"2")]
    assert head.given[b"x"] == b"2"


@given(
    st.lists(st.sampled_from([GET, POST, CHUNKS, OFFER, OLDER, BROKEN]), min_size=1, max_size=6),
    st.lists(st.integers(min_value=1, max_value=40), max_size=60),
)
def test_however_the_bytes_are_cut_the_requests_are_the_same(sent: list[bytes], sizes: list[int]) -> None:
    data = b"".join(sent)
    pieces = []
    rest = data
    for size in sizes:
        pieces.append(rest[:size])
        rest = rest[size:]
    pieces = [piece for piece in [*pieces, rest] if piece]
    whole, cut = read(data), read(*pieces)
    assert told(list(cut.wholes)) == told(list(whole.wholes))
    assert (cut.refusal and cut.refusal.code) == (whole.refusal and whole.refusal.code)
    expected = sent[: sent.index(BROKEN)] if BROKEN in sent else sent
    assert [body for _, body, _ in whole.wholes] == [b"" if one in (GET, OLDER) else b"hello" for one in expected]
    assert (whole.refusal is not None) == (BROKEN in sent)


@given(
    st.lists(st.sampled_from([GET, POST, CHUNKS, OFFER, OLDER]), min_size=1, max_size=4),
    st.integers(min_value=0, max_value=400),
    st.one_of(
        st.binary(max_size=4),
        st.sampled_from([b"\r\n", b"\n", b"\r", b":", b" ", b"0", b"\0", b"content-length: 1\r\n"]),
    ),
    st.integers(min_value=0, max_value=4),
    st.integers(min_value=1, max_value=7),
)
def test_whatever_is_damaged_in_it_is_read_the_same_however_it_is_cut(
    sent: list[bytes], at: int, damage: bytes, over: int, size: int
) -> None:
    data = b"".join(sent)
    data = data[:at] + damage + data[at + over :]
    whole, cut = read(data), read(*[data[start : start + size] for start in range(0, len(data), size)])
    assert told(list(cut.wholes)) == told(list(whole.wholes))
    assert (cut.refusal and cut.refusal.status) == (whole.refusal and whole.refusal.status)


def test_trailers_reach_nobody() -> None:
    one = read(CHUNKS, GET)
    assert [name for head, _, _ in one.wholes for name, _ in head.headers].count(b"x-t") == 0


def test_a_trailer_cannot_change_a_head_that_was_believed() -> None:
    one = read(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
    believed = one.head
    one.receive(b"authorization: Bearer stolen\r\n\r\n")
    [(head, _, _)] = one.wholes
    assert head is believed
    assert b"authorization" not in dict(head.headers)
    assert b"authorization" not in head.given


@pytest.mark.parametrize(
    ("data", "manner"),
    [
        (b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: keep-alive\r\n\r\n", 0),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", CLOSES),
        (b"GET / HTTP/1.1\r\nhost: a\r\nconnection: x, close\r\n\r\n", CLOSES),
        (b"GET / HTTP/1.0\r\n\r\n", CLOSES | OLD),
        (b"GET / HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", OLD),
        (b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n", HEAD_ONLY),
    ],
)
def test_a_request_says_in_which_manner_it_wants_its_reply(data: bytes, manner: int) -> None:
    assert [one[2] for one in read(data).wholes] == [manner]


def test_a_clock_is_asked_when_a_requests_first_byte_comes() -> None:
    clock = Clock()
    one = RequestReader("", ReadLimits(), clock)
    one.receive(POST[:3])
    clock.now_s = 200.0
    one.receive(POST[3:])
    one.receive(GET)
    assert [head.started_s for head, _, _ in one.wholes] == [100.0, 200.0]


def test_a_request_that_has_begun_is_midway() -> None:
    one = read(GET + POST[:-1])
    assert (len(one.wholes), one.is_midway, one.more) == (1, True, True)
    assert one.head is not None
    assert one.body == b"hell"


def test_more_requests_at_once_than_may_wait_stop_the_reading() -> None:
    one = read(GET * 10, pipelined=3)
    assert len(one.wholes) == 4  # three behind the one that can be answered
    assert one.refusal is not None
    assert one.refusal.code == "malformed_request"


def test_more_offers_of_another_protocol_at_once_than_may_wait_stop_the_reading() -> None:
    one = read(OFFER * 10, pipelined=3)
    assert (len(one.wholes), one.refusal is not None) == (4, True)
    assert {body for _, body, _ in one.wholes} == {b"hello"}


def test_as_many_requests_at_once_as_may_wait_are_read() -> None:
    one = read(GET * 4, pipelined=3)
    assert (len(one.wholes), one.refusal) == (4, None)


@pytest.mark.parametrize("cut", [1, 30, 1000, 32_000])
def test_a_head_that_begins_in_the_piece_of_another_is_bounded_too(cut: int) -> None:
    long = b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"a" * ReadLimits().head_bytes + b"\r\n\r\n"
    one = read(GET + long[:cut], long[cut:])
    assert one.refusal is not None
    assert (len(one.wholes), one.refusal.status) == (1, 431)


def test_chunks_of_one_byte_are_read() -> None:
    body = b"a" * 100_000
    chunks = b"1\r\na\r\n" * len(body) + b"0\r\n\r\n"
    one = read(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n" + chunks[:50_000], chunks[50_000:])
    assert [whole[1] for whole in one.wholes] == [body]


@pytest.mark.parametrize("padding", [b";" + b"x" * 20_000 + b"\r\na\r\n1", b"\r\na\r\n0000000000000000001" * 200])
def test_chunks_that_are_nearly_all_framing_stop_the_reading(padding: bytes) -> None:
    one = reader()
    one.receive(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1")
    fed = 0
    while not one.refusal and fed < 10 * FRAMING_SLACK_BYTES:
        one.receive(padding)
        fed += len(padding)
    assert one.refusal is not None
    assert one.refusal.status == 400
    assert fed < 2 * FRAMING_SLACK_BYTES


def test_trailers_without_an_end_stop_the_reading() -> None:
    one = reader()
    one.receive(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n")
    fed = 0
    while not one.refusal and fed < 10 * FRAMING_SLACK_BYTES:
        one.receive(b"x: y\r\n" * 1000)
        fed += 6000
    assert fed < 2 * FRAMING_SLACK_BYTES


def test_a_mistake_of_our_own_is_not_taken_for_one_of_the_clients() -> None:
    one = RequestReader("", ReadLimits(), Clock())
    one.wholes = None  # type: ignore[assignment]  # the mistake
    with pytest.raises(Exception, match="callback"):
        one.receive(GET)


def test_a_reader_lets_go_of_its_parser() -> None:
    one = read(GET)
    one.forget()
    assert not one.wholes
    with pytest.raises(AttributeError):
        one.receive(GET)


@given(
    st.lists(
        st.sampled_from([GET, POST, KEPT % (2, b"no"), CHUNKS, OFFER, OLDER, BROKEN, b"PO", b"\r\n", POST[:-2]]),
        max_size=4,
    ),
    st.sampled_from(
        [POST, POST.replace(b"5", b"2").replace(b"hello", b"no"), POST + b"x", POST[:-1], b"ST" + POST[4:]]
    ),
)
def test_a_request_is_read_the_same_after_others_with_its_head(before: list[bytes], last: bytes) -> None:
    """Told in one piece each, so that a head may be known, and byte by byte, so that none can be."""
    sent = [POST, *before, last]
    known, fresh = reader(), reader()
    requests: list[Request] = []
    for piece in sent:
        if not known.refusal:
            known.receive(piece)
            requests += known.wholes
            known.wholes.clear()
    for byte in b"".join(sent):
        if not fresh.refusal:
            fresh.receive(bytes([byte]))
    assert told(requests) == told(list(fresh.wholes))
    assert (known.refusal is None) == (fresh.refusal is None)
    assert known.refusal or known.is_midway == fresh.is_midway


def test_a_known_head_is_told_without_the_length_that_may_have_changed() -> None:
    one = reader()
    for body in (b"hello", b"no", b"a longer one"):
        one.receive(KEPT % (len(body), body))
        head, told_body, manner = one.wholes.popleft()
        assert (head.method, head.path, told_body, manner) == ("POST", "/b", body, 0)
        assert (head.given[b"host"], head.given[b"x"], head.peer) == (b"a", b"y", "192.0.2.1")
        assert (b"content-length" in head.given) == (body == b"hello")
