"""Envelopes for tests of the log, which cares for their bytes and ids alone."""

from datetime import UTC, datetime

import msgspec

from domain.ids import PLATFORM, EventId
from domain.message import Envelope
from infra.events.codec import encode_envelope
from infra.events.port import Append


def payload(event_id: str, *, version: int = 1, data: bytes = b"{}") -> bytes:
    return encode_envelope(
        Envelope(
            event_id=EventId(event_id),
            aggregate="instance",
            id="i-1",
            version=version,
            type="Tested",
            schema=1,
            organization=PLATFORM,
            actor="system:test",
            cause=None,
            correlation="c-1",
            at=datetime(2026, 11, 21, tzinfo=UTC),
            previous="",
            data=msgspec.Raw(data),
        )
    )


def append_of(subject: str, *event_ids: str, expected: int = 0) -> Append:
    return Append(subject, expected, tuple((event_id, payload(event_id)) for event_id in event_ids))
