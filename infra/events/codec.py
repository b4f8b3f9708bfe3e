"""Between events and bytes. The envelope is JSON, so that an operator reads the stream with stock tools.

    event <──Codec──> (type, schema, data)      Envelope <──encode_envelope, decode_envelope──> bytes

The surprising rule: envelopes are decoded without looking into their data. A reader that needs three fields of ten
million events pays for no more, and an event type that it does not know is no obstacle.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from domain.decider import Decider, schema_of
from domain.message import Envelope, Recorded
from infra.events.port import UnreadableMessageError
from infra.events.upcasts import UPCASTS, Upcasts, lift

_envelopes = msgspec.json.Decoder(Envelope)


class UnknownEventError(LookupError):
    """This release does not know the event type or its schema: newer code wrote it, or an upcast is gone."""


def encode_envelope(envelope: Envelope) -> bytes:
    return msgspec.json.encode(envelope)


def decode_envelope(payload: bytes) -> Envelope:
    """Reads the envelope, its data left as raw JSON.

    Raises:
        msgspec.DecodeError: not an envelope.
    """
    return _envelopes.decode(payload)


def decode_recorded(position: int, subject: str, payload: bytes) -> Recorded:
    """A stored message as read back.

    Raises:
        UnreadableMessageError: not an envelope.
    """
    try:
        return Recorded(position, subject, payload, _envelopes.decode(payload))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the second for text that is no UTF-8
        raise UnreadableMessageError(f"position {position} on {subject} is no envelope: {error}") from error


class Codec:
    """Knows the event types of the given aggregates.

    Args:
        deciders: whose events it reads and writes; type names are unique among them.
        upcasts: see upcasts.py.
    """

    def __init__(self, deciders: Iterable[Decider[Any, Any, Any]], *, upcasts: Upcasts = UPCASTS) -> None:
        self._decoders: dict[str, tuple[int, msgspec.json.Decoder[Any]]] = {}
        self._types: set[type[Any]] = set()
        self._upcasts = upcasts
        for decider in deciders:
            for event_type in decider.events:
                self._register(event_type)

    def encode_event(self, event: Any) -> tuple[str, int, msgspec.Raw]:
        """(type, schema, data) for an envelope.

        Raises:
            UnknownEventError: no aggregate declares this event, so nobody could read it back.
        """
        event_type = type(event)
        if event_type not in self._types:
            raise UnknownEventError(f"{event_type.__name__} is not among the events of any aggregate")
        return event_type.__name__, schema_of(event_type), msgspec.Raw(msgspec.json.encode(event))

    def decode_event(self, envelope: Envelope) -> Any:
        """The event, lifted to its class of today.

        Raises:
            UnknownEventError: see the class.
            msgspec.ValidationError: the stored fields do not fit the class.
        """
        known = self._decoders.get(envelope.type)
        if known is None:
            raise UnknownEventError(f"event type {envelope.type} (event {envelope.event_id}) is not known")
        current, decoder = known
        if envelope.schema == current:
            return decoder.decode(envelope.data)
        return self._lifted(envelope, current, decoder)

    def _lifted(self, envelope: Envelope, current: int, decoder: msgspec.json.Decoder[Any]) -> Any:
        name = f"{envelope.type} of schema {envelope.schema} (event {envelope.event_id})"
        if envelope.schema > current:
            raise UnknownEventError(f"{name} is newer than this release, which knows schema {current}")
        data = msgspec.json.decode(envelope.data, type=dict[str, Any])
        try:
            data = lift(data, envelope.type, envelope.schema, current, self._upcasts)
        except KeyError as missing:
            raise UnknownEventError(f"{name} cannot be lifted: no upcast for {missing}") from missing
        return msgspec.convert(data, decoder.type)

    def _register(self, event_type: type[Any]) -> None:
        name = event_type.__name__
        if name in self._decoders:
            raise ValueError(f"two aggregates declare an event named {name}; its name must be its own")
        self._decoders[name] = (schema_of(event_type), msgspec.json.Decoder(event_type))
        self._types.add(event_type)
