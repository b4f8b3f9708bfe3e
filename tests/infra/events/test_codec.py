from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from domain.decider import Decider
from domain.ids import PLATFORM, EventId
from domain.message import Envelope
from infra.events.codec import Codec, UnknownEventError, decode_envelope, decode_recorded, encode_envelope
from infra.events.port import UnreadableMessageError
from infra.events.upcasts import UPCASTS


class ParcelSent(msgspec.Struct, frozen=True):
    """Schema 1 had a "weight" in grams; schema 2 named its unit; schema 3 added the carrier."""

    SCHEMA = 3
    weight_kg: float
    carrier: str


class ParcelArrived(msgspec.Struct, frozen=True):
    at: datetime


UPCASTS_OF_PARCEL = {
    ("ParcelSent", 1): lambda data: {"weight_kg": data["weight"] / 1000},
    ("ParcelSent", 2): lambda data: {**data, "carrier": "unknown"},
}


def decider_of(*events: type[Any]) -> Decider[Any, Any, Any]:
    def decide(_state: object, _command: object, _at: datetime) -> Sequence[object]:
        return ()

    return Decider(
        aggregate="parcel",
        events=events,
        initial=None,
        state_type=type(None),
        evolve=lambda state, _event, _at: state,
        decide=decide,
    )


CODEC = Codec([decider_of(ParcelSent, ParcelArrived)], upcasts=UPCASTS_OF_PARCEL)


def envelope_of(event_type: str, schema: int, data: bytes) -> Envelope:
    return Envelope(
        event_id=EventId("e1"),
        aggregate="parcel",
        id="p1",
        version=1,
        type=event_type,
        schema=schema,
        organization=PLATFORM,
        actor="system:test",
        cause=None,
        correlation="c1",
        at=datetime(2026, 11, 21, tzinfo=UTC),
        previous="",
        data=msgspec.Raw(data),
    )


@pytest.mark.parametrize("event", [ParcelSent(1.5, "post"), ParcelArrived(datetime(2026, 11, 21, tzinfo=UTC))])
def test_an_event_comes_back_as_it_was(event: object) -> None:
    event_type, schema, data = CODEC.encode_event(event)
    stored = encode_envelope(envelope_of(event_type, schema, bytes(data)))
    assert CODEC.decode_event(decode_envelope(stored)) == event


def test_an_envelope_is_json_that_an_operator_can_read() -> None:
    stored = encode_envelope(envelope_of("ParcelSent", 3, b'{"weight_kg":1.5,"carrier":"post"}'))
    assert msgspec.json.decode(stored)["data"] == {"weight_kg": 1.5, "carrier": "post"}


def test_an_envelope_of_an_unknown_type_is_read_and_only_its_event_is_not() -> None:
    envelope = decode_envelope(encode_envelope(envelope_of("FromTheFuture", 1, b"{}")))
    assert envelope.type == "FromTheFuture"
    with pytest.raises(UnknownEventError, match="FromTheFuture"):
        CODEC.decode_event(envelope)


@pytest.mark.parametrize(
    ("schema", "data", "event"),
    [
        (1, b'{"weight": 1500}', ParcelSent(1.5, "unknown")),
        (2, b'{"weight_kg": 1.5}', ParcelSent(1.5, "unknown")),
        (3, b'{"weight_kg": 1.5, "carrier": "post"}', ParcelSent(1.5, "post")),
    ],
)
def test_every_schema_ever_stored_is_lifted_to_todays(schema: int, data: bytes, event: ParcelSent) -> None:
    assert CODEC.decode_event(envelope_of("ParcelSent", schema, data)) == event


def test_a_newer_schema_is_not_guessed_at() -> None:
    with pytest.raises(UnknownEventError, match="newer than this release, which knows schema 3"):
        CODEC.decode_event(envelope_of("ParcelSent", 4, b"{}"))


def test_a_missing_upcast_is_named() -> None:
    codec = Codec([decider_of(ParcelSent)], upcasts={("ParcelSent", 1): UPCASTS_OF_PARCEL["ParcelSent", 1]})
    with pytest.raises(UnknownEventError, match=r"no upcast for \('ParcelSent', 2\)"):
        codec.decode_event(envelope_of("ParcelSent", 1, b'{"weight": 1500}'))


def test_an_event_that_nobody_declares_is_not_stored() -> None:
    class Stray(msgspec.Struct, frozen=True):
        pass

    with pytest.raises(UnknownEventError, match="Stray"):
        CODEC.encode_event(Stray())


def test_an_event_name_belongs_to_one_aggregate() -> None:
    with pytest.raises(ValueError, match="two aggregates declare an event named ParcelSent"):
        Codec([decider_of(ParcelSent), decider_of(ParcelSent)])


def test_fields_that_do_not_fit_are_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="carrier"):
        CODEC.decode_event(envelope_of("ParcelSent", 3, b'{"weight_kg": 1.5}'))


@pytest.mark.parametrize("payload", [b"{}", b"nonsense", b'{"event_id":"\xa2"}'])
def test_bytes_that_are_no_envelope_are_named_with_their_position(payload: bytes) -> None:
    with pytest.raises(UnreadableMessageError, match=r"position 7 on evt\.x"):
        decode_recorded(7, "evt.x", payload)


def test_each_upcast_lifts_a_schema_that_exists() -> None:
    assert all(event_type and schema >= 1 for event_type, schema in UPCASTS)
