"""A request's chance: the same seed draws the same, another label or seed draws otherwise."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from web.draw import MAX_SECRET_BYTES, Draw

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
seeds = st.binary(min_size=32, max_size=32)
labels = st.text(max_size=20)


@given(seeds, labels, labels)
def test_drawing_depends_on_seed_and_label_alone(seed: bytes, one: str, other: str) -> None:
    assert Draw(seed, NOON).id(one) == Draw(seed, NOON, resumed=True).id(one)
    assert (Draw(seed, NOON).id(one) == Draw(seed, NOON).id(other)) == (one == other)
    assert (Draw(seed, NOON).secret(one, 28) == Draw(seed, NOON).secret(other, 28)) == (one == other)


@given(seeds, st.datetimes(min_value=datetime(2000, 1, 1), max_value=datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis adds the zone
def test_a_drawn_id_is_a_uuid_of_version_7_that_carries_the_time(seed: bytes, at: datetime) -> None:
    drawn = UUID(Draw(seed, at).id("x"))
    assert (drawn.version, drawn.variant) == (7, "specified in RFC 4122")
    assert drawn.int >> 80 == int(at.timestamp() * 1000)


@given(seeds, st.integers(1, MAX_SECRET_BYTES))
def test_a_longer_secret_begins_like_a_shorter_one(seed: bytes, length: int) -> None:
    secret = Draw(seed, NOON).secret("x", length)
    assert len(secret) == length
    assert Draw(seed, NOON).secret("x", MAX_SECRET_BYTES).startswith(secret)


@pytest.mark.parametrize("length", [0, -1, MAX_SECRET_BYTES + 1])
def test_no_other_lengths_can_be_drawn(length: int) -> None:
    with pytest.raises(ValueError, match="bytes can be drawn"):
        Draw(b"x" * 32, NOON).secret("x", length)
