"""The first lines of what comes to a relay, read and rewritten; no I/O.

    gateway:  POST /t/<instance>/engine/v1/chat/completions ──> POST /v1/chat/completions ... connection: close
    agent:    GET <prefix>TUNNEL_PATH, Upgrade, bearer, instance ──> Greeting

The surprising rule: each request goes to its engine with `connection: close`. What follows the head is then bytes that
nobody need understand, up to the end, and no second request on the same connection can reach another instance, however
it is made. It costs two connections over loopback a request; the tunnel itself, the long way with its TLS, is kept.
"""

import re
from typing import NamedTuple

from agent.frames import Target
from agent.protocol import TUNNEL_INSTANCE_HEADER, TUNNEL_PATH, TUNNEL_PROTOCOL

MAX_HEAD_BYTES = 65_536
"""Above what gateways let through."""
MAX_TOKEN_LENGTH = 256
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) ([\x21-\x7e]{1,16384}) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}):[ \t]*([^\r\n\x00]*)")
_PLACE = re.compile(rb"/t/([A-Za-z0-9-]{1,64})/(engine|agent)(/.*|\?.*|)")
_ABOUT_THE_CONNECTION = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"upgrade"})
_TARGETS: dict[bytes, Target] = {b"engine": "engine", b"agent": "agent"}


class BadHeadError(Exception):
    """Not what comes to this listener; the status and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Routed(NamedTuple):
    """A gateway's request: where it goes, and the head as its target gets it."""

    instance_id: str
    target: Target
    head: bytes


class Greeting(NamedTuple):
    """An agent that wants to park a connection."""

    instance_id: str
    token: str


def routed(head: bytes) -> Routed:
    """Args: head, up to and with its empty line. Raises BadHeadError."""
    method, path, fields = _parsed(head)
    place = _PLACE.fullmatch(path)
    if place is None:
        raise BadHeadError(404, "not the address of a tunnel")
    below = place[3] if place[3].startswith(b"/") else b"/" + place[3]
    kept = b"".join(
        b"%b: %b\r\n" % (name, value) for name, value in fields if name.lower() not in _ABOUT_THE_CONNECTION
    )
    first_line = b"%b %b HTTP/1.1\r\n" % (method, below)
    return Routed(place[1].decode(), _TARGETS[place[2]], first_line + kept + b"connection: close\r\n\r\n")


def greeting(head: bytes) -> Greeting:
    """Raises BadHeadError."""
    method, path, fields = _parsed(head)
    said = {name.lower(): value.decode("latin-1") for name, value in fields}
    if method != b"GET" or not path.endswith(TUNNEL_PATH.encode()):
        raise BadHeadError(404, "not the address of the relay")
    if said.get(b"upgrade", "").lower() != TUNNEL_PROTOCOL:
        raise BadHeadError(426, f"this needs Upgrade: {TUNNEL_PROTOCOL}")
    scheme, _, token = said.get(b"authorization", "").partition(" ")
    instance_id = said.get(TUNNEL_INSTANCE_HEADER.encode(), "")
    if scheme.lower() != "bearer" or not token or len(token) > MAX_TOKEN_LENGTH or not instance_id:
        raise BadHeadError(401, "a worker's token and its instance are needed")
    return Greeting(instance_id[:64], token)


def _parsed(head: bytes) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Method, target and fields; strict, for what is read here in one way must not be read in another one later."""
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    request = _REQUEST_LINE.fullmatch(first)
    found = [_FIELD.fullmatch(line) for line in lines]
    if request is None or not all(found):
        raise BadHeadError(400, "not the head of an HTTP/1.1 request")
    return request[1], request[2], [(field[1], field[2].rstrip(b" \t")) for field in found if field]
