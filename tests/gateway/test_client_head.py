"""Which addresses have a path, and which heads are believed."""

import pytest

from gateway.client_head import doubt_about, path_of
from gateway.http import Headers


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/v1/models", "/v1/models"),
        (b"/v1/models?limit=2", "/v1/models"),
        (b"/v1/models#part", "/v1/models"),
        (b"/v1/models/acme%2Fllama%203", "/v1/models/acme/llama 3"),
        (b"/v1/models/%C3%A9", "/v1/models/é"),
        (b"http://host:8080/v1/models?x", "/v1/models"),
        (b"https://host", "/"),
        (b"//host/v1/models", "//host/v1/models"),
        (b"/../etc", "/../etc"),
        (b"*", "*"),
        (b"host:443", None),
        (b"v1/models", None),
        (b"", None),
        (b"/%ff", None),
        (b"/%00", None),
        (b"/a%0Ab", None),
        (b"/a%7f", None),
        (b"/%E2%80%AE", None),  # would turn a line of the log around
    ],
)
def test_a_target_has_a_path_or_is_not_served(target: bytes, path: str | None) -> None:
    assert path_of(target) == path


HOST = (b"host", b"a")


@pytest.mark.parametrize(
    ("version", "headers", "status"),
    [
        ("1.1", [HOST], None),
        ("1.0", [], None),
        ("1.1", [HOST, (b"transfer-encoding", b"Chunked ")], None),
        ("1.1", [HOST, (b"expect", b"100-Continue")], None),
        ("1.1", [HOST, (b"accept", b"a"), (b"accept", b"b")], None),
        ("1.1", [], 400),
        ("1.1", [HOST, HOST], 400),
        ("1.1", [HOST, (b"content-length", b"1"), (b"content-length", b"1")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"identity"), (b"transfer-encoding", b"chunked")], 400),
        ("1.1", [HOST, (b"transfer-encoding", b"gzip, chunked")], 501),
        ("1.0", [HOST, (b"transfer-encoding", b"chunked")], 400),
        ("1.1", [HOST, (b"expect", b"200-ok")], 417),
        ("2.0", [HOST], 505),
        ("0.9", [HOST], 505),
    ],
)
def test_a_head_is_believed_or_there_is_a_reason(version: str, headers: Headers, status: int | None) -> None:
    refusal = doubt_about(version, dict(headers), headers)
    assert (refusal and refusal.status) == status
