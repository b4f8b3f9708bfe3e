"""The head of a connection's last message, to know the next by: most differ in nothing but the body's length. Pure.

    POST ... content-length: │ 412 │ CRLF ... CRLF CRLF      same bytes around the digits, as many after as they say
       before                            after               ──> the same head, and this body; else llhttp reads it

Clients repeat their heads, and engines do within a second (`date`). To compare two hundred bytes costs a fifth of
parsing them and is as strict, for equal bytes mean the same: nothing is known that llhttp has not read, and only where
it stands at a message's end, so that passing it by leaves it as it was. The surprising rule: the fields of a known head
lack `content-length`, which is the one that may have changed; the body tells it.
"""

import re
from typing import Final

import msgspec

from gateway.http import Headers

LESSONS: Final = 3
"""After so many heads by which no next one was known, a connection's are no longer kept in mind: each is another."""
_LENGTH = re.compile(rb"(?i)\r\ncontent-length:[ \t]*(\d{1,9})\r\n")
_LENGTH_DIGITS = 10
_UNKNOWABLE = frozenset({b"transfer-encoding", b"expect", b"upgrade"})
"""What gives a message a way of its own."""


class KnownHead(msgspec.Struct, frozen=True):
    """A head's bytes on both sides of the length's digits."""

    before: bytes
    after: bytes

    def body_in(self, data: bytes) -> bytes:
        """The body of a whole message that has this head, and nothing else; b"" of what is anything else."""
        before, after = self.before, self.after
        if not data.startswith(before):
            return b""
        begin = len(before)
        end = data.find(b"\r", begin, begin + _LENGTH_DIGITS)
        digits, start = data[begin:end], end + len(after)
        if end < 0 or not digits.isdigit() or not data.startswith(after, end) or int(digits) != len(data) - start:
            return b""
        return data[start:]


def known_of(begins: bytes, data: bytes, headers: Headers, body: bytes) -> KnownHead | None:
    """What to know the next message by; None where this one is none of the usual, or not exactly what came.

    Args:
        begins: how the usual ones begin; what lacks it began before `data`.
        data: one read, after which the connection stays open.
        headers: that llhttp found in it.
        body: likewise, the whole.
    """
    names = {name for name, _ in headers}
    if not data.startswith(begins) or len(names) != len(headers) or not names.isdisjoint(_UNKNOWABLE):
        return None
    end = data.find(b"\r\n\r\n") + 4
    length = _LENGTH.search(data, 0, end)
    if length is None or end + len(body) != len(data):
        return None
    return KnownHead(data[: length.start(1)], data[length.end(1) : end])


def without_length(headers: Headers) -> Headers:
    return [field for field in headers if field[0] != b"content-length"]
