"""Who may give, take and offer which role among the members of one organisation (SPEC 6.4): the refusals of roles.py.

    members: user -> role     by: who acts; None is the platform itself, which may everything

Each rule returns nothing or raises Rejected. The surprising rule: the last owner stays, whoever asks, the platform too.
"""

from collections.abc import Mapping

from domain.decider import Rejected
from domain.ids import UserId
from domain.roles import Role, may_change_role, may_grant, may_invite

Members = Mapping[UserId, Role]


def require_role_change(members: Members, by: UserId | None, user_id: UserId, role: Role) -> None:
    """Raises Rejected: member_not_found, role_change_not_allowed, last_owner_cannot_be_changed."""
    before = members.get(user_id)
    if before is None:
        raise Rejected("member_not_found", "There is no member with this id.")
    if by is not None and not may_change_role(_role_of(members, by), before=before, after=role):
        raise Rejected(
            "role_change_not_allowed", f"Your role does not let you give {role} to a member who is {before}."
        )
    if is_last_owner(members, user_id) and role != "owner":
        raise Rejected("last_owner_cannot_be_changed", "The last owner stays; make someone else an owner first.")


def require_dismissal(members: Members, by: UserId, user_id: UserId) -> None:
    """Raises Rejected: member_remove_not_allowed. Everyone may go themselves."""
    if by != user_id and not may_grant(_role_of(members, by), members[user_id]):
        raise Rejected(
            "member_remove_not_allowed", f"Your role does not let you remove a member who is {members[user_id]}."
        )


def require_stays_owned(members: Members, user_id: UserId) -> None:
    """Raises Rejected: last_owner_cannot_be_removed."""
    if is_last_owner(members, user_id):
        raise Rejected("last_owner_cannot_be_removed", "The last owner stays; make someone else an owner first.")


def require_may_invite(members: Members, by: UserId, role: Role) -> None:
    """Raises Rejected: insufficient_permissions_to_invite, cannot_invite_owner_or_admin_role."""
    own = _role_of(members, by)
    if may_invite(own, role):
        return
    if own != "user" and role in {"owner", "admin"}:
        raise Rejected("cannot_invite_owner_or_admin_role", "Only an owner invites owners and admins.")
    raise Rejected("insufficient_permissions_to_invite", f"Your role does not let you invite somebody as {role}.")


def is_last_owner(members: Members, user_id: UserId) -> bool:
    return [user for user, role in members.items() if role == "owner"] == [user_id]


def _role_of(members: Members, by: UserId) -> Role:
    """Who is no member any more may what a user may: nothing that is decided here."""
    return members.get(by, "user")
