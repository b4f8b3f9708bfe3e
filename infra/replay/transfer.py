"""EVENTS as a file of JSON lines, and back: readable with stock tools, exact to the byte.

    {"position": 1, "subject": "evt...", "message_id": "...", "envelope": {...}}      the stored bytes, verbatim
    {"position": 2, "subject": "evt...", "message_id": "...", "base64": "..."}        bytes that are no JSON on one line
    {"end": {"events": 2, "first": 1, "last": 2, "filtered": false, "sha256": "..."}} of all lines before it

The surprising rule: the envelope is embedded as it lies in the stream, and read back without looking into it, so its
hash stays what its successor says. The last line tells a whole file from one that was cut off.
"""

import base64
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from hashlib import sha256
from typing import BinaryIO

import msgspec
from nats.aio.client import Client

from domain.aggregates import AGGREGATES
from domain.message import Envelope
from infra.events.codec import Codec, decode_envelope
from infra.events.streams import EVENTS
from infra.replay.findings import Findings
from infra.replay.inspector import Inspector
from infra.replay.refill import refill
from infra.replay.stored import Message, end_of, stored_messages

BATCH_LINES = 1000
MAX_LINE_BYTES = 1_000_000
"""Four times the largest message in base64."""


class UnfitExportError(ValueError):
    """The file is not what an import can take; the message names the line."""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events; an empty field does not restrict.

    Attributes:
        first, last: positions, inclusive; last 0 is the end of the log.
    """

    first: int = 1
    last: int = 0
    aggregate: str = ""
    organization: str = ""

    @property
    def filtered(self) -> bool:
        return bool(self.first > 1 or self.last or self.aggregate or self.organization)

    def holds(self, envelope: Envelope | None) -> bool:
        if not (self.aggregate or self.organization):
            return True
        return (
            envelope is not None
            and self.aggregate in {"", envelope.aggregate}
            and self.organization in {"", envelope.organization}
        )


class End(msgspec.Struct, frozen=True, kw_only=True):
    """The last line of an export; first and last are positions, 0 when there are no events."""

    events: int
    first: int
    last: int
    filtered: bool
    sha256: str


class _Line(msgspec.Struct, frozen=True, omit_defaults=True):
    position: int = 0
    subject: str = ""
    message_id: str = ""
    envelope: msgspec.Raw = msgspec.Raw()
    base64: str = ""
    end: End | None = None


_lines = msgspec.json.Decoder(_Line)


async def export_events(nc: Client, file: BinaryIO, wanted: Wanted, *, advance: Callable[[int], None]) -> End:
    """Writes what is wanted of EVENTS.

    Args:
        nc: any connection.
        file: open for writing.
        wanted: see the class.
        advance: told how many messages were read.
    """
    until = await end_of(nc, EVENTS)
    until = min(until, wanted.last) if wanted.last else until
    digest = sha256()
    events = first = last = 0
    async with stored_messages(nc, EVENTS, after=wanted.first - 1, until=until) as batches:
        async for messages in batches:
            for message in messages:
                if not wanted.holds(_envelope(message)):
                    continue
                line = encode_line(message)
                digest.update(line)
                file.write(line)
                events, first, last = events + 1, first or message.position, message.position
            advance(len(messages))
    end = End(events=events, first=first, last=last, filtered=wanted.filtered, sha256=digest.hexdigest())
    file.write(msgspec.json.encode({"end": end}) + b"\n")
    file.flush()
    return end


def encode_line(message: Message) -> bytes:
    """One message as one line, from which `decode_line` makes the same message again."""
    content: dict[str, object] = {
        "position": message.position,
        "subject": message.subject,
        "message_id": message.message_id,
    }
    if _is_plain_json(message.payload):
        content["envelope"] = msgspec.Raw(message.payload)
    else:
        content["base64"] = base64.b64encode(message.payload).decode()
    return msgspec.json.encode(content) + b"\n"


def decode_line(line: bytes) -> Message | End:
    """What a line holds.

    Raises:
        UnfitExportError: it is none of ours.
    """
    try:
        found = _lines.decode(line)
        if found.end is not None:
            return found.end
        payload = bytes(found.envelope) or base64.b64decode(found.base64, validate=True)
    except (msgspec.DecodeError, ValueError) as error:
        raise UnfitExportError(f"a line is not of an export: {error}") from error
    if not (found.position and found.subject and payload):
        raise UnfitExportError("a line has no position, subject or content")
    return Message(found.position, found.subject, found.message_id, payload)


async def import_events(
    nc: Client, file: BinaryIO, *, resume: bool = False, advance: Callable[[int], None]
) -> tuple[int, int]:
    """Fills an empty EVENTS from an export, every event at its old position, each one inspected before it is written.

    Args:
        nc: a writer's connection; no service may write meanwhile.
        file: an export of the whole log, open for reading.
        resume: go on with an import that was interrupted: what is there must be the file's beginning.
        advance: told how many events are done.

    Returns:
        (events that were there, events added).

    Raises:
        UnfitExportError: the file is cut off, altered, or not the whole log; all before the line named is written.
        DifferentLogError: EVENTS holds something else, or anything without `resume`.
        RefillError: the stream refused, or somebody writes to it.
    """
    end = await end_of(nc, EVENTS)
    if end and not resume:
        raise UnfitExportError(f"{EVENTS} is not empty: it ends at {end:,}")
    return await refill(nc, EVENTS, _messages(file), advance=advance)


async def _messages(file: BinaryIO) -> AsyncIterator[Sequence[Message]]:
    findings = Findings()
    inspector = Inspector(findings, Codec(AGGREGATES))
    digest = sha256()
    batch: list[Message] = []
    for number, line in enumerate(_read_lines(file), start=1):
        found = decode_line(line)
        if isinstance(found, End):
            yield batch
            _check_end(found, inspector.events, digest.hexdigest())
            return
        digest.update(line)
        inspector.check(found)
        damage = next((finding for finding in findings.kept if finding.severity == "damage"), None)
        if damage is not None:
            raise UnfitExportError(f"line {number}, position {damage.position}: {damage.found}")
        batch.append(found)
        if len(batch) == BATCH_LINES:
            yield batch
            batch = []
    raise UnfitExportError("the file is cut off: its last line is missing")


def _read_lines(file: BinaryIO) -> Iterable[bytes]:
    while line := file.readline(MAX_LINE_BYTES):
        yield line


def _check_end(end: End, events: int, digest: str) -> None:
    if end.filtered:
        raise UnfitExportError("this export is a selection; only one of the whole log can be imported")
    if (end.events, end.sha256) != (events, digest):
        raise UnfitExportError(f"the file holds {events:,} events of {end.events:,}, or others than were exported")


def _envelope(message: Message) -> Envelope | None:
    try:
        return decode_envelope(message.payload)
    except msgspec.DecodeError:
        return None


def _is_plain_json(payload: bytes) -> bool:
    """Whether it can stand in a line and be read back byte for byte: an object without white space around it."""
    if payload[:1] != b"{" or payload[-1:] != b"}" or b"\n" in payload or b"\r" in payload:
        return False
    try:
        msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return False
    return True
