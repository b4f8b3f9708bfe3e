"""Whether messages of EVENTS are what dispatch would have written: checked one after the other, pure.

    message ──> position + 1? an envelope? its own subject? its own message id? version + 1? hash of its predecessor?
            ──> an event type that this release knows?

Readers stop at the first damage (infra/events/chain.py); this one tells of all of it. Of each aggregate only the head
is kept: subject, version and hash, about 270 bytes. The surprising rule: after damage the chain goes on from what is
there, so that one altered event is one finding and not ten thousand.
"""

from hashlib import sha256

import msgspec

from domain.message import Envelope, subject_in
from infra.events.codec import Codec, UnknownEventError, decode_envelope
from infra.replay.findings import Findings
from infra.replay.stored import Message

_VERSION_BYTES = 8
_MAX_VERSION = 2**63 - 1


class Inspector:
    """Checks messages in the order of their positions.

    Args:
        findings: where damage is told.
        codec: of this release; None does not look at events' fields.

    Attributes:
        position: of the message checked last.
        events: checked so far.
    """

    def __init__(self, findings: Findings, codec: Codec | None = None) -> None:
        self._findings = findings
        self._codec = codec
        self._heads: dict[str, bytes] = {}
        self.position = 0
        self.events = 0

    @property
    def aggregates(self) -> int:
        return len(self._heads)

    def head(self, subject: str) -> tuple[int, str]:
        """(version, SHA-256 in hex) of the subject's newest message; (0, "") when it has none."""
        head = self._heads.get(subject, b"")
        return int.from_bytes(head[:_VERSION_BYTES]), head[_VERSION_BYTES:].hex()

    def check(self, message: Message) -> Envelope | None:
        """The envelope, or None when there is none to decode."""
        if message.position != self.position + 1:
            missing = message.position - self.position - 1
            self._damage(message, "position", f"{missing:,} messages are missing before it")
        self.position = message.position
        self.events += 1
        try:
            envelope = decode_envelope(message.payload)
        except msgspec.DecodeError as error:
            self._damage(message, "envelope", f"it is no envelope: {error}")
            return None
        if message.subject != subject_in(envelope):
            self._damage(message, "subject", f"its envelope belongs on {subject_in(envelope)}")
        if message.message_id != envelope.event_id:
            self._damage(message, "message_id", f"message id {message.message_id!r} is not event {envelope.event_id}")
        self._check_order(message, envelope)
        self._check_event(message, envelope)
        return envelope

    def _check_order(self, message: Message, envelope: Envelope) -> None:
        version, previous = self.head(message.subject)
        if envelope.version != version + 1:
            self._damage(message, "version", f"version {envelope.version} comes after {version}")
        elif envelope.previous != previous:
            self._damage(message, "previous", f"version {version} is not as it was when this one was written")
        head = max(0, min(envelope.version, _MAX_VERSION)).to_bytes(_VERSION_BYTES)
        self._heads[message.subject] = head + sha256(message.payload).digest()

    def _check_event(self, message: Message, envelope: Envelope) -> None:
        if self._codec is None:
            return
        try:
            self._codec.decode_event(envelope)
        except UnknownEventError as error:
            self._findings.warn("event_type", str(error), position=message.position, subject=message.subject)
        except (msgspec.DecodeError, TypeError, ValueError, KeyError) as error:
            self._damage(message, "event_data", f"{envelope.type} of schema {envelope.schema}: {error}")

    def _damage(self, message: Message, check: str, found: str) -> None:
        self._findings.damage(check, found, position=message.position, subject=message.subject)
