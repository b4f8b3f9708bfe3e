"""What a client's library got over the wire, byte by byte, and how two such recordings differ.

library ──> Recorder (its transport) ──> engine | gateway        recorded: status, content type, body as it came
masked(body): the LISTED fields taken out, every other byte as it was ──> differences(one, other)
"""

import re
from collections.abc import Sequence

import httpx2
import msgspec

LISTED = ("id", "item_id", "created", "created_at", "system_fingerprint", "request_id")
"""The fields that two answers to the same request may differ in: names, times, and which build answered."""

_MEMBER = re.compile(rb',?"(?:%b)":\s?(?:"[^"]*"|[0-9.]+|null)' % "|".join(LISTED).encode())


class Recording(msgspec.Struct, frozen=True):
    """One answer as it came."""

    status: int
    content_type: str
    body: bytes


class Recorder(httpx2.AsyncBaseTransport):
    """Passes on what a library sends, and keeps what came back."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport()
        self.recordings: list[Recording] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        body = await response.aread()
        kind = response.headers.get("content-type", "")
        self.recordings.append(Recording(response.status_code, kind, body))
        return httpx2.Response(response.status_code, headers=response.headers, content=body, request=request)

    async def aclose(self) -> None:
        await self._inner.aclose()


def masked(body: bytes) -> bytes:
    """The body without the listed members; in JSON text inside a string their quotes are escaped, so that stays."""
    return _MEMBER.sub(b"", body)


def differences(direct: Sequence[Recording], through: Sequence[Recording]) -> list[str]:
    """Sentences; none when both are equal but for the listed fields."""
    if len(direct) != len(through):
        return [f"{len(direct)} answers directly, {len(through)} through the gateway"]
    return [text for one, other in zip(direct, through, strict=True) for text in _between(one, other)]


def _between(one: Recording, other: Recording) -> list[str]:
    found = []
    if one.status != other.status:
        found.append(f"status {one.status} became {other.status}: {other.body[:200]!r}")
    if one.content_type != other.content_type:
        found.append(f"content type {one.content_type} became {other.content_type}")
    expected, got = masked(one.body), masked(other.body)
    if expected != got:
        at = next((n for n, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), len(min(expected, got)))
        begin = max(0, at - 60)
        found.append(f"byte {at}: {expected[begin : at + 60]!r} became {got[begin : at + 60]!r}")
    return found
