"""Bytes that no decent client sends, on a real socket: nothing hangs, nothing is read in two ways, nothing passes.

Each case is sent in one piece and byte by byte. After each, the connection is closed, or serves a well-formed probe;
and the application has seen the requests that the case names, and no other.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from gateway.client_limits import ClientLimits
from tests.gateway.raw_client import raw_client
from tests.gateway.scripted_application import MAX_BODY_BYTES, ScriptedApplication, serving

ON_BOTH_LOOPS = True
Seen = tuple[str, str, bytes]
PROBE = b"GET /probe HTTP/1.1\r\nhost: a\r\n\r\n"
PROBED: Seen = ("GET", "/probe", b"")
HIDDEN = b"POST /hidden HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n"
"""What a smuggler wants to be taken for a request of its own."""
READ = ClientLimits().read
MOST_PIECES = 1000
"""A case is sent byte by byte when it is no longer than this."""
GOES_ON = "goes on"
CLOSES = "closes"


@dataclass(frozen=True)
class Case:
    name: str
    sent: bytes
    statuses: Sequence[int]
    then: str
    seen: Sequence[Seen] = ()


def post(*lines: bytes, body: bytes = b"", path: bytes = b"/a") -> bytes:
    return b"\r\n".join([b"POST %b HTTP/1.1" % path, b"host: a", *lines, b"", body])


def get(*lines: bytes, target: bytes = b"/a", version: bytes = b"HTTP/1.1") -> bytes:
    return b"\r\n".join([b"GET %b %b" % (target, version), *(lines or (b"host: a",)), b"", b""])


def chunked(body: bytes) -> bytes:
    return post(b"transfer-encoding: chunked", body=body)


A_GET: Seen = ("GET", "/a", b"")
A_POST: Seen = ("POST", "/a", b"abc")
EMPTY_POST: Seen = ("POST", "/a", b"")

WELL_FORMED = [
    Case("a request without a body", get(), [200], GOES_ON, [A_GET]),
    Case("a body with its length", post(b"content-length: 3", body=b"abc"), [200], GOES_ON, [A_POST]),
    Case("a length of blanks and digits", post(b"content-length: \t3  ", body=b"abc"), [200], GOES_ON, [A_POST]),
    Case("a body of nothing", post(b"content-length: 0"), [200], GOES_ON, [EMPTY_POST]),
    Case("a body in a chunk", chunked(b"3\r\nabc\r\n0\r\n\r\n"), [200], GOES_ON, [A_POST]),
    Case("a body in chunks", chunked(b"1\r\na\r\n002\r\nbc\r\n0\r\n\r\n"), [200], GOES_ON, [A_POST]),
    Case("a chunk's extension", chunked(b"3;name=value\r\nabc\r\n0\r\n\r\n"), [200], GOES_ON, [A_POST]),
    Case("chunks of nothing", chunked(b"0\r\n\r\n"), [200], GOES_ON, [EMPTY_POST]),
    Case(
        "a coding in capitals",
        post(b"Transfer-Encoding: CHUNKED", body=b"3\r\nabc\r\n0\r\n\r\n"),
        [200],
        GOES_ON,
        [A_POST],
    ),
    Case("a trailer", chunked(b"3\r\nabc\r\n0\r\nx-checksum: 1\r\n\r\n"), [200], GOES_ON, [A_POST]),
    Case("an empty header", get(b"host: a", b"x-empty:"), [200], GOES_ON, [A_GET]),
    Case("a value with bytes above ASCII", get(b"host: a", b"x-name: \xc3\xa9"), [200], GOES_ON, [A_GET]),
    Case("an address with a query", get(target=b"/a?b=%00#c"), [200], GOES_ON, [A_GET]),
    Case("an address in percents", get(target=b"/%61"), [200], GOES_ON, [A_GET]),
    Case("a proxy's form of address", get(target=b"http://else.where/a"), [200], GOES_ON, [A_GET]),
    Case("empty lines before it", b"\r\n\r\n" + get(), [200], GOES_ON, [A_GET]),
    Case("two at once", post(b"content-length: 3", body=b"abc") + get(), [200, 200], GOES_ON, [A_POST, A_GET]),
    Case(
        "two at once, the first in chunks",
        chunked(b"3\r\nabc\r\n0\r\n\r\n") + get(),
        [200, 200],
        GOES_ON,
        [A_POST, A_GET],
    ),
    Case("one that closes", get(b"host: a", b"connection: close"), [200], CLOSES, [A_GET]),
    Case("one that keeps", get(b"host: a", b"connection: Keep-Alive"), [200], GOES_ON, [A_GET]),
    Case("HTTP/1.0", get(b"host: a", version=b"HTTP/1.0"), [200], CLOSES, [A_GET]),
    Case("HTTP/1.0 without a host", get(b"x-a: b", version=b"HTTP/1.0"), [200], CLOSES, [A_GET]),
    Case(
        "HTTP/1.0 that keeps", get(b"connection: keep-alive", version=b"HTTP/1.0"), [200], GOES_ON, [A_GET]
    ),
    Case("an address of all", b"OPTIONS * HTTP/1.1\r\nhost: a\r\n\r\n", [200], GOES_ON, [("OPTIONS", "*", b"")]),
    Case("an upgrade without its connection header", get(b"host: a", b"upgrade: h2c"), [200], GOES_ON, [A_GET]),
    Case(
        "an offer of another protocol",
        get(b"host: a", b"connection: Upgrade", b"upgrade: websocket"),
        [200],
        GOES_ON,
        [A_GET],
    ),
    Case(
        "an offer of another protocol with a body",
        post(b"connection: upgrade, http2-settings", b"upgrade: h2c", b"content-length: 3", body=b"abc") + get(),
        [200, 200],
        GOES_ON,
        [A_POST, A_GET],
    ),
    Case(
        "offers of another protocol, one after the other",
        post(b"connection: upgrade", b"upgrade: h2c", b"transfer-encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n") * 3,
        [200, 200, 200],
        GOES_ON,
        [A_POST] * 3,
    ),
    Case(
        "a refusal of what is whole", post(b"content-length: 3", body=b"abc", path=b"/wrong"), [400], GOES_ON,
        [("POST", "/wrong", b"abc")],
    ),
    Case("many headers", get(b"host: a", *[b"x-%d: a" % n for n in range(READ.headers - 1)]), [200], GOES_ON, [A_GET]),
    Case("a long header", get(b"host: a", b"x-a: " + b"a" * (READ.head_bytes - 100)), [200], GOES_ON, [A_GET]),
]  # fmt: skip

SMUGGLING = [
    Case(
        "a length and chunks",
        post(b"content-length: 6", b"transfer-encoding: chunked", body=b"0\r\n\r\n" + HIDDEN), [400], CLOSES,
    ),
    Case(
        "chunks and a length",
        post(b"transfer-encoding: chunked", b"content-length: 6", body=b"0\r\n\r\n" + HIDDEN), [400], CLOSES,
    ),
    Case("two lengths", post(b"content-length: 0", b"content-length: %d" % len(HIDDEN), body=HIDDEN), [400], CLOSES),
    Case("one length twice", post(b"content-length: 3", b"content-length: 3", body=b"abc"), [400], CLOSES),
    Case("a list of lengths", post(b"content-length: 3, 3", body=b"abc"), [400], CLOSES),
    Case("a length with a sign", post(b"content-length: +3", body=b"abc"), [400], CLOSES),
    Case("a length below nothing", post(b"content-length: -1", body=b"abc"), [400], CLOSES),
    Case("a length in hexadecimal", post(b"content-length: 0x3", body=b"abc"), [400], CLOSES),
    Case("a length in two parts", post(b"content-length: 3 3", body=b"abc"), [400], CLOSES),
    Case("a length of nothing at all", post(b"content-length:", body=b"abc"), [400], CLOSES),
    Case("a length over 64 bits", post(b"content-length: 18446744073709551617", body=b"a"), [400], CLOSES),
    Case("a length on the next line", post(b"content-length:\r\n 3", body=b"abc"), [400], CLOSES),
    Case("a blank before the colon", post(b"content-length : 3", body=b"abc" + HIDDEN), [400], CLOSES),
    Case("a blank before chunks' colon", post(b"transfer-encoding : chunked", body=b"0\r\n\r\n"), [400], CLOSES),
    Case("a coding that is not known", post(b"transfer-encoding: xchunked", body=b"0\r\n\r\n" + HIDDEN), [501], CLOSES),
    Case("a coding under the chunks", post(b"transfer-encoding: gzip, chunked", body=b"0\r\n\r\n"), [501], CLOSES),
    Case("a coding over the chunks", post(b"transfer-encoding: chunked, gzip", body=b"0\r\n\r\n"), [400], CLOSES),
    Case("identity", post(b"transfer-encoding: identity", body=b"abc"), [501], CLOSES),
    Case(
        "two codings on two lines",
        post(b"transfer-encoding: identity", b"transfer-encoding: chunked", body=b"0\r\n\r\n" + HIDDEN), [400], CLOSES,
    ),
    Case(
        "one coding twice",
        post(b"transfer-encoding: chunked", b"transfer-encoding: chunked", body=b"0\r\n\r\n" + HIDDEN), [400], CLOSES,
    ),
    Case("a coding behind a tab of another kind", post(b"transfer-encoding:\x0bchunked"), [400], CLOSES),
    Case("a coding in quotes", post(b'transfer-encoding: "chunked"', body=b"0\r\n\r\n" + HIDDEN), [501], CLOSES),
    Case("a coding on the next line", post(b"transfer-encoding:\r\n chunked", body=b"0\r\n\r\n"), [400], CLOSES),
    Case("a coding of nothing", post(b"transfer-encoding:", body=b"0\r\n\r\n"), [400], CLOSES),
    Case(
        "chunks in HTTP/1.0",
        b"POST /a HTTP/1.0\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n" + HIDDEN,
        [400], CLOSES,
    ),
    Case("a folded header", get(b"host: a", b"x-a: b\r\n c"), [400], CLOSES),
    Case("a folded first header", get(b" host: a"), [400], CLOSES),
    Case("lines without a return", b"GET /a HTTP/1.1\nhost: a\n\n", [400], CLOSES),
    Case("a header's line without a return", get(b"host: a\nx-a: b"), [400], CLOSES),
    Case("a head's end without a return", b"GET /a HTTP/1.1\r\nhost: a\r\n\n" + HIDDEN, [400], CLOSES),
    Case("a return alone", get(b"host: a\rx-a: b"), [400], CLOSES),
    Case("a return within a name", get(b"host: a", b"x\r-a: b"), [400], CLOSES),
    Case("two hosts", get(b"host: a", b"host: b"), [400], CLOSES),
    Case("no host", get(b"x-a: b"), [400], CLOSES),
    Case("a length in a trailer", chunked(b"0\r\ncontent-length: 50\r\n\r\n" + HIDDEN), [400], CLOSES),
    Case(
        "more than its length", post(b"content-length: 3", body=b"abc" + b"smuggled"), [200, 400], CLOSES, [A_POST],
    ),
    Case(
        "more after the last", get(b"host: a", b"connection: close") + HIDDEN, [200], CLOSES, [A_GET],
    ),
    Case(
        "a request in the body of an offered protocol",
        post(
            b"connection: upgrade", b"upgrade: h2c", b"content-length: %d" % len(HIDDEN), body=HIDDEN
        ), [200], GOES_ON, [("POST", "/a", HIDDEN)],
    ),
]  # fmt: skip

BROKEN_CHUNKS = [
    Case("a size with a prefix", chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), [400], CLOSES),
    Case("a size with a sign", chunked(b"+3\r\nabc\r\n0\r\n\r\n"), [400], CLOSES),
    Case("a size below nothing", chunked(b"-3\r\nabc\r\n0\r\n\r\n"), [400], CLOSES),
    Case("a size of nothing", chunked(b"\r\nabc\r\n0\r\n\r\n"), [400], CLOSES),
    Case("a size over 64 bits", chunked(b"10000000000000003\r\nabc\r\n0\r\n\r\n"), [400], CLOSES),
    Case("a blank behind a size", chunked(b"3 \r\nabc\r\n0\r\n\r\n"), [400], CLOSES),
    Case("a size without a return", chunked(b"3\nabc\r\n0\r\n\r\n"), [400], CLOSES),
    Case("a chunk without a return", chunked(b"3\r\nabc\n0\r\n\r\n"), [400], CLOSES),
    Case("a chunk longer than its size", chunked(b"3\r\nabcd\r\n0\r\n\r\n"), [400], CLOSES),
    Case("a chunk shorter than its size", chunked(b"4\r\nabc\r\n0\r\n\r\n"), [400], CLOSES),
    Case("an extension with a line's end", chunked(b"3;a\nb\r\nabc\r\n0\r\n\r\n"), [400], CLOSES),
    Case("an end without a return", chunked(b"3\r\nabc\r\n0\n\n"), [400], CLOSES),
    Case("a trailer that is no header", chunked(b"0\r\nnothing\r\n\r\n"), [400], CLOSES),
    Case("a trailer with a nul", chunked(b"0\r\na: \0\r\n\r\n"), [400], CLOSES),
    Case("a broken chunk after a good one", chunked(b"3\r\nabc\r\nz\r\n"), [400], CLOSES),
]

NOT_HTTP = [
    Case("a TLS hello", bytes.fromhex("1603010200010001fc0303") + b"\x00" * 32, [400], CLOSES),
    Case("a proxy's announcement", b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\n" + get(), [400], CLOSES),
    Case("an SSH greeting", b"SSH-2.0-OpenSSH_9.6\r\n", [400], CLOSES),
    Case("nul bytes", b"\0" * 64, [400], CLOSES),
    Case("HTTP/0.9", b"GET /a\r\n\r\n", [505], CLOSES),
    Case("HTTP/2 by name", get(version=b"HTTP/2.0"), [505], CLOSES),
    Case("HTTP/2 by its preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400], CLOSES),
    Case("HTTP/1.2", get(version=b"HTTP/1.2"), [400], CLOSES),
    Case("HTTP/1.10", get(version=b"HTTP/1.10"), [400], CLOSES),
    Case("a protocol in small letters", get(version=b"http/1.1"), [400], CLOSES),
    Case("a blank behind the version", get(version=b"HTTP/1.1 "), [400], CLOSES),
    Case("a method in small letters", b"get /a HTTP/1.1\r\nhost: a\r\n\r\n", [400], CLOSES),
    Case("a method that nobody knows", b"BREW /a HTTP/1.1\r\nhost: a\r\n\r\n", [400], CLOSES),
    Case("a method of other servers", b"PROPFIND /a HTTP/1.1\r\nhost: a\r\n\r\n", [405], CLOSES),
    Case("a tunnel", b"CONNECT a:443 HTTP/1.1\r\nhost: a\r\n\r\n" + HIDDEN, [405], CLOSES),
    Case("an address with a blank", get(target=b"/a b"), [400], CLOSES),
    Case("an address with a tab", get(target=b"/a\tb"), [400], CLOSES),
    Case("an address with a nul", get(target=b"/a\0b"), [400], CLOSES),
    Case("an address with a nul in percents", get(target=b"/a%00"), [400], CLOSES),
    Case("an address with a line's end in percents", get(target=b"/a%0d%0aevil"), [400], CLOSES),
    Case("an address above ASCII", get(target=b"/\xc3\xa9"), [400], CLOSES),
    Case("an address that is not UTF-8", get(target=b"/%ff"), [400], CLOSES),
    Case("an address without its slash", get(target=b"a"), [400], CLOSES),
    Case("a nul in a name", get(b"host: a", b"x\0: a"), [400], CLOSES),
    Case("a nul in a value", get(b"host: a", b"x: \0"), [400], CLOSES),
    Case("a control character in a value", get(b"host: a", b"x: \x01"), [400], CLOSES),
    Case("a header without a colon", get(b"host: a", b"nothing"), [400], CLOSES),
    Case("a header without a name", get(b"host: a", b": a"), [400], CLOSES),
    Case("an expectation nobody can meet", post(b"expect: a-miracle", b"content-length: 3"), [417], CLOSES),
]

OVERSIZE = [
    Case("an address without an end", b"GET /" + b"a" * (READ.head_bytes + 1), [431], CLOSES),
    Case("a header without an end", b"GET /a HTTP/1.1\r\nx: " + b"a" * READ.head_bytes, [431], CLOSES),
    Case("a name without an end", b"GET /a HTTP/1.1\r\n" + b"a" * READ.head_bytes, [431], CLOSES),
    Case("headers without an end", b"GET /a HTTP/1.1\r\n" + b"x: a\r\n" * 6000, [431], CLOSES),
    Case("a head one byte too long", get(b"host: a", b"x: " + b"a" * READ.head_bytes), [431], CLOSES),
    Case("a header too many", get(b"host: a", *[b"x-%d: a" % n for n in range(READ.headers)]), [431], CLOSES),
    Case("a head too long behind another", get() + get(b"host: a", b"x: " + b"a" * READ.head_bytes), [200, 431],
        CLOSES, [A_GET]),
    Case("empty lines without an end", b"\r\n" * READ.head_bytes, [431], CLOSES),
    Case("a length over the bound", post(b"content-length: %d" % (MAX_BODY_BYTES + 1), body=b"abc"), [413], CLOSES),
    Case("a length far over the bound", post(b"content-length: 99999999999", body=b"abc"), [413], CLOSES),
]  # fmt: skip

CASES = [*WELL_FORMED, *SMUGGLING, *BROKEN_CHUNKS, *NOT_HTTP, *OVERSIZE]


@pytest.mark.parametrize("piecewise", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_what_is_in_doubt_is_refused_and_what_is_not_is_served(case: Case, piecewise: bool) -> None:
    application = ScriptedApplication()
    size = 1 + len(case.sent) // MOST_PIECES if piecewise else len(case.sent)
    pieces = [case.sent[at : at + size] for at in range(0, len(case.sent), size)]
    async with serving(application) as server, raw_client(server.port) as client:
        if case.then == CLOSES:
            sending = asyncio.ensure_future(client.send(*pieces))
            answers = await client.replies_until_closed()
            await sending
        else:
            await client.send(*pieces, PROBE)
            answers = [await client.reply() for _ in [*case.statuses, PROBE]]
        probe = [200] if case.then == GOES_ON else []
        assert [answer.status for answer in answers] == [*case.statuses, *probe]
        assert all(answer.is_whole for answer in answers)
        assert application.answered == [*case.seen, *([PROBED] if probe else [])]


def test_there_are_enough_cases_and_most_of_them_are_attacks() -> None:
    assert len(CASES) - len(WELL_FORMED) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
