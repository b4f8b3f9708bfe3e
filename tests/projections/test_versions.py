"""The shapes of the read models, pinned: a table or a stored state that changed must be built anew, beside the old."""

from hashlib import sha256

from projections.registry import PROJECTIONS

PINNED = {
    "organizations": (1, "850429f0f05d"),
    "users": (1, "b6928a48ec08"),
    "sessions": (1, "d0b68509b89d"),
    "api_keys": (1, "705533ccf134"),
    "models": (1, "54c85dd9e3e6"),
    "deployments": (1, "c8bb5c14cf19"),
    "instances": (1, "326e3d53e8d4"),
    "router": (1, "68a8d72b7b44"),
    "usage": (1, "d1d555f96d9b"),
    "audit_log": (2, "3bbf5921ef95"),
    "audit_tree": (1, "ec58c431e962"),
}

REMEDY = (
    "The shape of {name} changed: its tables, or the domain state that its rows hold. Raise its version, so that it is "
    "built anew beside the old one, and write the new pin here: "
)


def test_a_changed_shape_has_a_new_version() -> None:
    for projection in PROJECTIONS:
        pin = (projection.version, sha256(projection.tables.encode()).hexdigest()[:12])
        assert PINNED.get(projection.name) == pin, REMEDY.format(name=projection.name) + repr(pin)


def test_nothing_is_pinned_that_is_gone() -> None:
    assert set(PINNED) == {projection.name for projection in PROJECTIONS}
