"""The bytes of the library's records are for ever, and what they say of versions is never wrong."""

from uuid import UUID

from eventsourcing.persistence import StoredEvent, Tracking
from hypothesis import given
from hypothesis import strategies as st

from infra.events.eventsourcing_messages import (
    Versions,
    decode_event,
    encode_event,
    encode_tracking,
    event_subject,
    token,
    tracking_subject,
)

ID = UUID("9b2f5a1e-3c4d-4e5f-8a6b-7c8d9e0f1a2b")
originator_ids = st.uuids() | st.text(max_size=20)


def test_stored_bytes_and_subjects_stay_as_they_are() -> None:
    usual = StoredEvent(ID, 3, "bank:Opened", b'{"by":"alice"}')
    assert encode_event(usual, Versions(1, 3)) == b'{"version":3,"topic":"bank:Opened","uuid":true}\n{"by":"alice"}'
    odd = StoredEvent("a.b", 2, "bank:Closed", b"\n")
    assert (
        encode_event(odd, Versions(0, 7, gaps=True))
        == b'{"version":2,"topic":"bank:Closed","lowest":0,"highest":7,"gaps":true}\n\n'
    )
    assert encode_tracking(Tracking("bank", 17)) == b'{"notification_id":17}'
    assert event_subject("ES_BANK", ID) == f"ES_BANK.event.{ID}"
    assert event_subject("ES_BANK", "a.b=") == "ES_BANK.event.a=2Eb=3D"
    assert tracking_subject("ES_BANK", "") == "ES_BANK.tracking.="


@given(originator_ids, st.integers(0, 9), st.text(), st.binary(), st.integers(0, 9), st.booleans())
def test_what_is_written_is_read_back(
    originator_id: UUID | str, version: int, topic: str, state: bytes, more: int, gaps: bool
) -> None:
    event = StoredEvent(originator_id, version, topic, state)
    versions = Versions(0, version + more, gaps)
    found = decode_event("S", 5, event_subject("S", originator_id), encode_event(event, versions))
    assert (found.event, found.versions, found.position) == (event, versions, 5)
    assert type(found.event.originator_id) is type(originator_id)


@given(st.text(max_size=40), st.text(max_size=40))
def test_different_ids_never_share_a_subject(one: str, other: str) -> None:
    assert (token(one) == token(other)) == (one == other)
    assert set(token(one)).isdisjoint(".*> \t\r\n")


@given(st.lists(st.integers(-3, 12), unique=True), st.integers(-3, 12))
def test_what_is_known_of_versions_is_never_wrong(stored: list[int], asked: int) -> None:
    versions = Versions()
    for version in stored:
        versions = versions.adding(version)
    assert versions.have(asked) in {asked in stored, None}
    if sorted(stored) == list(range(min(stored, default=0), max(stored, default=-1) + 1)) and stored == sorted(stored):
        assert versions.have(asked) is not None, "consecutive versions need no look at all of them"
