"""Roles in an organisation, and who may give them to whom (SPEC 6.4). One rule, for invitations and changes alike.

owner ──> anyone anything        admin ──> admin, user        manager ──> manager, user        user ──> nobody

The refusals that follow from it stand in delegation.py.
"""

from collections.abc import Mapping
from typing import Literal

Role = Literal["owner", "admin", "manager", "user"]

RANKS: tuple[Role, ...] = ("owner", "admin", "manager", "user")
"""Highest first. A rank orders lists and settles which of two roles stays; what a role may do is not in it."""
EVERYONE: frozenset[Role] = frozenset(RANKS)

_GIVEN_BY: Mapping[Role, frozenset[Role]] = {
    "owner": EVERYONE,
    "admin": frozenset({"admin", "user"}),
    "manager": frozenset({"manager", "user"}),
    "user": frozenset(),
}


def may_grant(by: Role, role: Role) -> bool:
    """Whether one who has the role `by` may give `role`, or take it away."""
    return role in _GIVEN_BY[by]


def may_change_role(by: Role, *, before: Role, after: Role) -> bool:
    return may_grant(by, before) and may_grant(by, after)


def may_invite(by: Role, role: Role) -> bool:
    """As may_grant, and nobody but an owner invites owners and admins (SPEC 6.4)."""
    return may_grant(by, role) and (by == "owner" or role not in {"owner", "admin"})


def higher_role(one: Role, other: Role) -> Role:
    return min(one, other, key=RANKS.index)
