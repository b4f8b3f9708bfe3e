"""What a relay reads of a request, and what it sends on: strict, and never another instance's."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.protocol import TUNNEL_PATH
from infra.tunnel.heads import BadHeadError, Greeting, greeting, routed


def head(first: str, *fields: str) -> bytes:
    return "\r\n".join((first, *fields, "", "")).encode("latin-1")


def test_the_prefix_goes_and_the_rest_stays() -> None:
    found = routed(head("POST /t/i-1/engine/v1/chat?x=1 HTTP/1.1", "host: r", "content-length: 2", "X-A:  b c "))
    assert (found.instance_id, found.target) == ("i-1", "engine")
    assert found.head == head(
        "POST /v1/chat?x=1 HTTP/1.1", "host: r", "content-length: 2", "X-A: b c", "connection: close"
    )


@pytest.mark.parametrize(
    ("path", "target", "below"),
    [
        ("/t/i/agent/healthz", "agent", "/healthz"),
        ("/t/i/engine", "engine", "/"),
        ("/t/i/engine/", "engine", "/"),
        ("/t/i/agent?tail=1", "agent", "/?tail=1"),
        ("/t/i/engine//x", "engine", "//x"),
        ("/t/i/engine/t/j/engine/x", "engine", "/t/j/engine/x"),
    ],
)
def test_each_target_has_its_own_root(path: str, target: str, below: str) -> None:
    found = routed(head(f"GET {path} HTTP/1.1", "host: r"))
    assert (found.instance_id, found.target) == ("i", target)
    assert found.head.split(b" ")[1].decode() == below


def test_the_engine_is_told_to_close_whatever_the_client_wished() -> None:
    wished = ("Connection: keep-alive, x", "Keep-Alive: timeout=5", "connection: upgrade", "upgrade: h2c")
    sent = routed(head("GET /t/i/engine/ HTTP/1.1", "host: r", *wished, "Proxy-Connection: keep-alive")).head
    assert sent == head("GET / HTTP/1.1", "host: r", "connection: close")


@pytest.mark.parametrize(
    "path",
    ["/", "/t", "/t/i", "/t/i/", "/t//engine/", "/t/i/engines/", "/t/i/shell/", "/t/a%2fb/engine/", "/x/t/i/engine"],
)
def test_any_other_path_is_none_of_ours(path: str) -> None:
    with pytest.raises(BadHeadError) as refused:
        routed(head(f"GET {path} HTTP/1.1", "host: r"))
    assert refused.value.status == 404


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"\r\n\r\n",
        b"GET /t/i/engine/ HTTP/1.0\r\n\r\n",
        b"GET  /t/i/engine/ HTTP/1.1\r\n\r\n",
        b"get /t/i/engine/ HTTP/1.1\r\n\r\n",
        b"GET /t/i/engine/ HTTP/1.1\r\n folded: x\r\n\r\n",
        b"GET /t/i/engine/ HTTP/1.1\r\na: b\r\n c\r\n\r\n",
        b"GET /t/i/engine/ HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /t/i/engine/ HTTP/1.1\r\nname : x\r\n\r\n",
        b"GET /t/i/engine/ HTTP/1.1\r\na: b\nc: d\r\n\r\n",
        b"GET /t/i/engine/ HTTP/1.1\r\na: b\rc: d\r\n\r\n",
        b"GET /t/i/engine/ HTTP/1.1\r\na: \x00\r\n\r\n",
        b"GET /t/i/engine/\x7f HTTP/1.1\r\n\r\n",
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(bad: bytes) -> None:
    with pytest.raises(BadHeadError) as refused:
        routed(bad)
    assert refused.value.status == 400


@given(st.binary(max_size=200))
def test_no_bytes_are_a_defect(noise: bytes) -> None:
    for tried in (noise, b"GET /t/i/engine/ HTTP/1.1\r\n" + noise + b"\r\n\r\n"):
        with contextlib.suppress(BadHeadError):
            greeting(tried)
        with contextlib.suppress(BadHeadError):
            sent = routed(tried).head
            assert sent.count(b"\r\n\r\n") == 1
            assert sent.endswith(b"connection: close\r\n\r\n")


def test_an_agents_greeting_is_read() -> None:
    fields = ("Upgrade: inventiv-tunnel", "Authorization: bearer wk_1", "X-Inventiv-Instance: i")
    assert greeting(head(f"GET {TUNNEL_PATH} HTTP/1.1", *fields)) == Greeting("i", "wk_1")
    assert greeting(head(f"GET /behind/a/prefix{TUNNEL_PATH} HTTP/1.1", *fields)) == Greeting("i", "wk_1")


@pytest.mark.parametrize(
    ("first", "fields", "status"),
    [
        ("POST {} HTTP/1.1", ("upgrade: inventiv-tunnel",), 404),
        ("GET /elsewhere HTTP/1.1", ("upgrade: inventiv-tunnel",), 404),
        ("GET {} HTTP/1.1", ("upgrade: websocket",), 426),
        ("GET {} HTTP/1.1", ("upgrade: inventiv-tunnel", "x-inventiv-instance: i"), 401),
        ("GET {} HTTP/1.1", ("upgrade: inventiv-tunnel", "authorization: Bearer x"), 401),
        ("GET {} HTTP/1.1", ("upgrade: inventiv-tunnel", "authorization: Basic x", "x-inventiv-instance: i"), 401),
        (
            "GET {} HTTP/1.1",
            ("upgrade: inventiv-tunnel", f"authorization: Bearer {'x' * 300}", "x-inventiv-instance: i"),
            401,
        ),
    ],
)
def test_what_is_no_greeting_says_what_it_lacks(first: str, fields: tuple[str, ...], status: int) -> None:
    with pytest.raises(BadHeadError) as refused:
        greeting(head(first.format(TUNNEL_PATH), *fields))
    assert refused.value.status == status
