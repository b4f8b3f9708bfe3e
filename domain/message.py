"""The envelope around each event: which aggregate, which version, who acted, what caused it.

    command --decide--> event --Envelope--> stream `evt.<organization>.<aggregate>.<id>`

The envelope's bytes are the truth: `previous` is the SHA-256 of the predecessor's exact stored bytes, so any reader
sees a hole or an altered event. No envelope holds a secret, or personal data in the clear.
"""

from datetime import datetime
from hashlib import sha256
from typing import ClassVar

import msgspec

from domain.ids import EventId, OrganizationId

EVENT_SUBJECTS = "evt.>"
RESERVATION_SUBJECTS = "uniq.>"
RESERVATION_AGGREGATE = "reservation"
"""The aggregate's word whose id is "<kind>.<digest>"; see domain/reservation.py."""


class Envelope(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    # gc=False: no cycles, and a replay is a seventh faster. omit_defaults: an envelope without `origin`, as all were
    # before that field, keeps its very bytes when it is encoded again.
    """One stored event.

    Attributes:
        event_id: UUIDv7; also the message id that the stream dedupes on.
        aggregate: the aggregate's word, e.g. "instance".
        id: the aggregate's id.
        version: 1 for the first event of the aggregate, then without gap.
        type: the event's name, e.g. "InstanceRequested".
        schema: version of that event's fields; upcasters lift older ones.
        organization: owner, or "_" for the platform.
        actor: "user:<id>", "key:<id>", "worker:<id>" or "system:<service>".
        cause: id of the event that this one reacts to; null when a person or the clock began it.
        correlation: the intent that all its effects share.
        at: UTC.
        previous: SHA-256 (hex) of the aggregate's previous stored envelope; "" for version 1.
        data: the event's own fields, as JSON.
        origin: by which door the actor came: "session:<id>" (whose row knows address and browser, sealed), "key:<id>",
            or "" for the platform itself and for all that was written before this field (schema 1).
    """

    SCHEMA: ClassVar[int] = 2

    event_id: EventId
    aggregate: str
    id: str
    version: int
    type: str
    schema: int
    organization: OrganizationId
    actor: str
    cause: EventId | None
    correlation: str
    at: datetime
    previous: str
    data: msgspec.Raw
    origin: str = ""


class Context(msgspec.Struct, frozen=True, kw_only=True):
    """Who acts and why; travels with a command into the envelopes of its events.

    An empty `correlation` goes on with the story that the aggregate is in: news from a worker belongs to whatever was
    last wanted of its instance.
    """

    actor: str
    correlation: str
    cause: EventId | None = None
    origin: str = ""


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """An envelope as read back: its stream position (>= 1), subject, and exact bytes beside the decoded form."""

    position: int
    subject: str
    payload: bytes
    envelope: Envelope


def subject_of(organization: str, aggregate: str, aggregate_id: str) -> str:
    return f"evt.{organization}.{aggregate}.{aggregate_id}"


def reservation_subject(kind: str, digest: str) -> str:
    """Where the right to a unique name is held; `digest` is a hash, never the name itself."""
    return f"uniq.{kind}.{digest}"


def subject_in(envelope: Envelope) -> str:
    """Where an envelope stands in the log, as it says itself."""
    if envelope.aggregate == RESERVATION_AGGREGATE:
        return f"uniq.{envelope.id}"
    return subject_of(envelope.organization, envelope.aggregate, envelope.id)


def payload_hash(payload: bytes) -> str:
    return sha256(payload).hexdigest()
