"""Fields of a form, found without touching its file."""

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.multipart import MAX_HEAD_BYTES, MAX_PARTS, text_fields
from tests.gateway.forms import BOUNDARY, form


def found(content_type: bytes, body: bytes) -> dict[str, bytes]:
    return {name: body[begin:end] for name, (begin, end) in text_fields(content_type, body).items()}


def test_fields_are_found_around_a_file() -> None:
    assert found(*form(("model", b"w"), ("file", b"\x00\xff\r\n\r\n"), ("stream", b"true"))) == {
        "model": b"w",
        "stream": b"true",
    }


@given(file=st.binary(max_size=200), value=st.text(max_size=20).map(str.encode))
def test_no_file_and_no_value_is_mistaken_for_a_boundary(file: bytes, value: bytes) -> None:
    assert found(*form(("file", file), ("model", value))) == {"model": value}


def test_what_a_clients_library_writes_is_read() -> None:
    request = httpx2.Request(
        "POST", "http://x", data={"model": "größe", "stream": "true"}, files={"file": ("a.wav", b"RIFF", "audio/wav")}
    )
    assert found(request.headers["content-type"].encode(), request.read()) == {
        "model": "größe".encode(),
        "stream": b"true",
    }


@pytest.mark.parametrize("boundary", [b'"a b"', b"'x'", b"x.y:z="])
def test_a_boundary_may_be_quoted(boundary: bytes) -> None:
    bare = boundary.strip(b'"')
    _, body = form(("model", b"w"), boundary=bare)
    assert found(b'Multipart/Form-Data; charset=x; boundary="%b"' % bare, body) == {"model": b"w"}


WHOLE = form(("model", b"w"))[1]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (b"", WHOLE),
        (b"multipart/form-data", WHOLE),
        (b"multipart/mixed; boundary=" + BOUNDARY, WHOLE),
        (b"multipart/form-data; boundary=other", WHOLE),
        (b"multipart/form-data; boundary=" + b"x" * 71, WHOLE.replace(BOUNDARY, b"x" * 71)),
        (b"multipart/form-data; boundary=" + BOUNDARY, b""),
        (b"multipart/form-data; boundary=" + BOUNDARY, WHOLE[:-6]),
        (b"multipart/form-data; boundary=" + BOUNDARY, WHOLE[:40]),
        form(("model", b"w"), ("model", b"v")),
        form(*[(f"f{i}", b"") for i in range(MAX_PARTS + 1)]),
        form(("x" * MAX_HEAD_BYTES, b"")),
    ],
)
def test_a_form_that_cannot_be_trusted_is_refused(content_type: bytes, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"form|part|multipart"):
        text_fields(content_type, body)
