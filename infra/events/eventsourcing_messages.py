"""How the `eventsourcing` library's records lie in a stream: subjects and bytes, readable with stock tools.

    <stream>.event.<originator id>   {"version":3,"topic":"bank:Opened","uuid":true}   one line, then the state as the
                                     <state>                                           library's mapper made it
    <stream>.tracking.<application>  {"notification_id":17}

The surprising rule: each event's line also says which versions its originator has (lowest, highest, whether there are
gaps), so that one read of the last message answers whether a version is new. What is usual is left out of the line.
"""

import re
from uuid import UUID

import msgspec
from eventsourcing.persistence import DataError, Notification, StoredEvent, Tracking

from infra.events.port import UnreadableMessageError
from infra.events.reads import Stored

TOKEN_CHARACTERS_MAX = 512
"""Of an id in a subject; the server's limit of a whole protocol line is 4096 bytes."""

_UNSAFE = re.compile(rb"[^A-Za-z0-9_-]")
_QUOTED = re.compile(rb"=([0-9A-F]{2})")


class Versions(msgspec.Struct, frozen=True):
    """Which versions one originator has; none when lowest > highest.

    Attributes:
        gaps: not every version between lowest and highest is known to be there.
    """

    lowest: int = 0
    highest: int = -1
    gaps: bool = False

    def have(self, version: int) -> bool | None:
        """Whether that version is stored; None when only a look at all of them can tell."""
        if not self.lowest <= version <= self.highest:
            return False
        return None if self.gaps else True

    def adding(self, version: int) -> "Versions":
        if self.lowest > self.highest:
            return Versions(version, version)
        adjacent = version in (self.lowest - 1, self.highest + 1)
        return Versions(min(self.lowest, version), max(self.highest, version), self.gaps or not adjacent)


class _Line(msgspec.Struct, omit_defaults=True):
    """An event's first line; `lowest` and `highest` as in Versions, `highest` left out when it is this version."""

    version: int
    topic: str
    uuid: bool = False
    lowest: int = 1
    highest: int | None = None
    gaps: bool = False


class _TrackingBody(msgspec.Struct):
    notification_id: int


_lines = msgspec.json.Decoder(_Line)
_tracking_bodies = msgspec.json.Decoder(_TrackingBody)


class StoredMessage(msgspec.Struct, frozen=True):
    """An event as read back.

    Attributes:
        position: in the stream; the library's notification id.
        versions: which the originator has, this one included.
    """

    position: int
    event: StoredEvent
    versions: Versions

    def notification(self) -> Notification:
        event = self.event
        return Notification(event.originator_id, event.originator_version, event.topic, event.state, self.position)


def token(text: str) -> str:
    """Any text as one token of a subject; letters, digits, `_` and `-` as they are, other bytes as =XX.

    Raises:
        DataError: longer than TOKEN_CHARACTERS_MAX.
    """
    quoted = _UNSAFE.sub(lambda found: b"=%02X" % found[0][0], text.encode()).decode() or "="
    if len(quoted) > TOKEN_CHARACTERS_MAX:
        raise DataError(f"an id has {len(quoted)} characters as a subject, more than {TOKEN_CHARACTERS_MAX}")
    return quoted


def event_subject(stream: str, originator_id: UUID | str) -> str:
    return f"{stream}.event.{token(str(originator_id))}"


def events_subject(stream: str) -> str:
    """A filter for the events of all originators."""
    return f"{stream}.event.*"


def tracking_subject(stream: str, application_name: str) -> str:
    return f"{stream}.tracking.{token(application_name)}"


def is_event(stream: str, subject: str) -> bool:
    return subject.startswith(f"{stream}.event.")


def encode_event(event: StoredEvent, versions: Versions) -> bytes:
    """The bytes of an event; `versions` as they are with it."""
    highest = None if versions.highest == event.originator_version else versions.highest
    uuid = isinstance(event.originator_id, UUID)
    line = _Line(event.originator_version, event.topic, uuid, versions.lowest, highest, versions.gaps)
    return msgspec.json.encode(line) + b"\n" + event.state


def decode_event(stream: str, position: int, subject: str, payload: bytes) -> StoredMessage:
    """The event of a message.

    Raises:
        UnreadableMessageError: something else wrote it.
    """
    head, _, state = payload.partition(b"\n")
    try:
        line = _lines.decode(head)
        name = _text(subject.removeprefix(f"{stream}.event."))
        originator_id = UUID(name) if line.uuid else name
    except ValueError as error:  # msgspec.DecodeError is one
        raise UnreadableMessageError(f"position {position} on {subject} is no event: {error}") from error
    highest = line.version if line.highest is None else line.highest
    event = StoredEvent(originator_id, line.version, line.topic, state)
    return StoredMessage(position, event, Versions(line.lowest, highest, line.gaps))


def encode_tracking(tracking: Tracking) -> bytes:
    return msgspec.json.encode(_TrackingBody(tracking.notification_id))


def decode_tracking(message: Stored) -> int:
    """The notification id in a tracking message.

    Raises:
        UnreadableMessageError: something else wrote it.
    """
    try:
        return _tracking_bodies.decode(message.payload).notification_id
    except msgspec.DecodeError as error:
        raise UnreadableMessageError(f"position {message.position} on {message.subject} tracks nothing") from error


def _text(quoted: str) -> str:
    if quoted == "=":
        return ""
    return _QUOTED.sub(lambda found: bytes.fromhex(found[1].decode()), quoted.encode()).decode()
