"""The shapes of the read models, pinned: a table or a stored state that changed must be built anew, beside the old."""

from hashlib import sha256

from projections.registry import PROJECTIONS

PINNED = {
    "organizations": (3, "8053257c12d4"),
    "invitations": (1, "34505294c0fb"),
    "users": (2, "c62d407219e7"),
    "sessions": (2, "1066495f7b83"),
    "api_keys": (3, "0de04cfd4eba"),
    "models": (3, "6b2c8ed13f20"),
    "offerings": (1, "b56c01f0fd25"),
    "shares": (1, "416c251d3ca3"),
    "deployments": (4, "fcc44bc9b0bf"),
    "instances": (4, "160d83510d58"),
    "settings": (1, "1dda0052df19"),
    "provider_accounts": (1, "303fa32b06b0"),
    "hosts": (1, "dc175992dfcb"),
    "catalogue": (1, "423a88a89794"),
    "router": (4, "de3abede3af8"),
    "usage": (3, "45ab9b5cfbaf"),
    "audit_log": (3, "453f73cc7688"),
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
