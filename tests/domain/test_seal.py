"""What a seal says, to the byte: these texts are signed, so they may never change."""

from datetime import UTC, datetime

import msgspec

from domain.merkle import leaf_hash
from domain.seal import Seal, leaf_entry, note, origin_of

SEAL = Seal(
    origin="inventiv-agents/audit-log/0123456789abcdef",
    size=1000,
    root="00" * 31 + "ff",
    at=datetime(2026, 11, 21, 12, 0, 5, tzinfo=UTC),
    key_id="k",
    previous="ab" * 32,
)


def test_the_signed_text_has_five_lines() -> None:
    assert note(SEAL).decode() == (
        "inventiv-agents/audit-log/0123456789abcdef\n"
        "1000\n"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAP8=\n"
        "time 2026-11-21T12:00:05Z\n"
        f"previous {'ab' * 32}\n"
    )
    assert note(msgspec.structs.replace(SEAL, previous="")).endswith(b"\nprevious -\n")


def test_the_signed_time_is_the_one_in_the_json() -> None:
    for at in (SEAL.at, SEAL.at.replace(microsecond=120)):
        seal = msgspec.structs.replace(SEAL, at=at)
        stored = msgspec.json.decode(msgspec.json.encode(seal))
        assert f"\ntime {stored['at']}\n".encode() in note(seal)


def test_an_entry_binds_position_subject_and_payload() -> None:
    entry = leaf_entry(258, "evt.acme.key.k", b"{}")
    assert entry == b"\0\0\0\0\0\0\1\2" + b"\0\x0e" + b"evt.acme.key.k" + b"{}"
    others = {leaf_entry(259, "evt.acme.key.k", b"{}"), leaf_entry(258, "evt.acme.key.k{", b"}")}
    assert entry not in others


def test_a_log_is_named_by_its_first_entry() -> None:
    first = leaf_hash(leaf_entry(1, "evt.a.b.c", b"{}"))
    assert origin_of(first) == f"inventiv-agents/audit-log/{first.hex()[:16]}"
