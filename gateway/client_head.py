"""What is believed of a client's head, beyond what llhttp checks: pure, and asked only where something is unusual.

    target ──path_of──> path | None          headers ──doubt_about──> None | Refusal

llhttp (strict) refuses nearly all that two servers could read in two ways. The surprising rule: nearly. Two
Transfer-Encoding lines, codings that are not taken off, chunks in HTTP/1.0, two Host lines and versions that do not
exist pass it, so they are refused here.
"""

from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import httptools

from gateway.http import Headers
from gateway.wire import Refusal

PATHS_KEPT = 1024
"""Targets whose path is remembered; clients use a dozen."""
_ALONE = (b"host", b"content-length", b"transfer-encoding", b"expect")
_OF_AN_UPGRADE = frozenset({b"connection", b"upgrade", b"http2-settings"})


@lru_cache(maxsize=PATHS_KEPT)
def path_of(target: bytes) -> str | None:
    """The decoded path of a request's target, its query left out; None when no such path can be served.

    A proxy's form (http://host/path) is as good as the plain one. What does not print is no path: it would reach logs.
    """
    if target == b"*":
        return "*"
    try:
        path: bytes | None = httptools.parse_url(target).path
        text = unquote_to_bytes(path or b"/").decode()
    except (httptools.HttpParserInvalidURLError, UnicodeDecodeError):
        return None
    return text if text.startswith("/") and text.isprintable() else None


def doubt_about(version: str, fields: Mapping[bytes, bytes], headers: Headers) -> Refusal | None:
    """Why a head that llhttp took is not believed; None when it is.

    Args:
        version: "1.1".
        fields: the headers by name; of several lines of one name, one.
        headers: all lines.
    """
    if version not in {"1.0", "1.1"}:
        return Refusal(505, "http_version_not_supported", "This server speaks HTTP/1.1.")
    if len(fields) != len(headers):
        names = [name for name, _ in headers]
        if repeated := next((name for name in _ALONE if names.count(name) > 1), None):
            return malformed(f"There is more than one {repeated.decode()} header.")
    if version == "1.1" and b"host" not in fields:
        return malformed("A request of HTTP/1.1 has a host header.")
    coding = fields.get(b"transfer-encoding")
    if coding is not None and version == "1.0":
        return malformed("HTTP/1.0 knows no transfer-encoding.")
    if coding is not None and coding.strip().lower() != b"chunked":
        return Refusal(501, "transfer_encoding_not_supported", "The one transfer-encoding known here is chunked.")
    if fields.get(b"expect", b"100-continue").strip().lower() != b"100-continue":
        return Refusal(417, "expectation_failed", "The one expectation met here is 100-continue.")
    return None


def malformed(message: str) -> Refusal:
    return Refusal(400, "malformed_request", message)


def head_bytes(target: bytes, headers: Headers) -> int:
    """The length of a head, near enough for a bound."""
    return len(target) + sum(len(name) + len(value) + 4 for name, value in headers)


def field_of(headers: Headers, wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)


def without_upgrade(method: bytes, target: bytes, headers: Headers) -> bytes:
    """The same head, as if it had not offered another protocol; a server may ignore that (RFC 9110, 7.8).

    Java's own client offers h2c with each plain request, and llhttp takes no body with an offer.
    """
    kept = [b": ".join(pair) for pair in headers if pair[0] not in _OF_AN_UPGRADE]
    return b"\r\n".join([b"%b %b HTTP/1.1" % (method, target), *kept, b"", b""])
