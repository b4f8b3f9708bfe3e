"""Where the small fields of an uploaded form stand; the file beside them is neither copied nor looked at.

    content-type: multipart/form-data; boundary=...  ──> {"model": (begin, end), "stream": (begin, end), ...}

The heads of the parts, each of bounded length, are read by the standard library's parser of mail; between them stand
only the boundaries that the form itself announces.
"""

from email.message import Message
from email.parser import BytesHeaderParser

MAX_PARTS = 64
MAX_HEAD_BYTES = 4096
"""Of one part; a head holds a name, a file's name and a type."""
MAX_BOUNDARY_CHARS = 70
"""RFC 2046, section 5.1.1."""

Span = tuple[int, int]

_END_OF_HEAD = b"\r\n\r\n"
_heads = BytesHeaderParser()


def text_fields(content_type: bytes, body: bytes) -> dict[str, Span]:
    """Begin and end of each field that is not a file.

    Raises:
        ValueError: the body is no such form, or a field stands in it twice; the message says which.
    """
    delimiter = b"\r\n--" + _boundary(content_type)
    fields: dict[str, Span] = {}
    if not body.startswith(delimiter[2:]):
        raise ValueError("the form does not begin with its boundary")
    at = len(delimiter) - 2
    for _ in range(MAX_PARTS):
        if body.startswith(b"--", at):
            return fields
        head_end = body.find(_END_OF_HEAD, at, at + MAX_HEAD_BYTES)
        end = body.find(delimiter, head_end)
        if head_end < 0 or end < 0:
            raise ValueError("a part of the form has no end")
        name = _text_name(body[at + 2 : head_end + len(_END_OF_HEAD)])
        if name in fields:
            raise ValueError("the form names a field twice")
        if name:
            fields[name] = (head_end + len(_END_OF_HEAD), end)
        at = end + len(delimiter)
    raise ValueError(f"the form has more than {MAX_PARTS} parts")


def _boundary(content_type: bytes) -> bytes:
    head = Message()
    head["content-type"] = content_type.decode("latin-1")
    boundary = head.get_boundary("")
    if head.get_content_type() != "multipart/form-data" or not 0 < len(boundary) <= MAX_BOUNDARY_CHARS:
        raise ValueError("the body must be multipart/form-data with a boundary")
    return boundary.encode("latin-1", "replace")


def _text_name(head: bytes) -> str:
    """The field's name; "" for a file, or for a part that does not say."""
    read = _heads.parsebytes(head)
    name = read.get_param("name", header="content-disposition")
    is_file = read.get_filename() is not None
    return name if isinstance(name, str) and not is_file else ""
