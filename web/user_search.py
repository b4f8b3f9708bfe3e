"""Users as an administrator sees and searches them.

A whole username or e-mail address is found by its digest, however many users there are. The surprising rule: a part of
one is found only among the newest MAX_OPENED users, because names are sealed and must be opened to be read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from domain.roles import Role
from domain.user import PlatformRole
from domain.values import Plan
from projections.organizations import Membership, list_memberships
from projections.projection import EVERYTHING
from projections.query import Direction, page_rows
from projections.users import UserView, count_users, find_user_by_digest, list_users
from web.people import Names, all_names_of
from web.services import Services
from web.shapes import Reply

MAX_OPENED = 2_000
"""Users whose names one search opens."""

UserSort = Literal["username", "email", "role", "created_at", "updated_at", "organization_name", "organization_role"]


class UserShown(Reply):
    """`has_password`: false for one who never had any."""

    id: str
    username: str
    email: str
    first_name: str
    last_name: str
    role: PlatformRole
    account_plan: Plan
    has_password: bool
    created_at: datetime
    updated_at: datetime


class UserRow(UserShown):
    """A user in one organisation; null for a user who belongs to none."""

    organization_id: str | None
    organization_name: str | None
    organization_slug: str | None
    organization_role: Role | None


class UserPage(Reply):
    """`searched_count`: how many users' names were read; fewer than `total_count` means that older ones were not."""

    offset: int
    limit: int
    total_count: int
    searched_count: int
    filtered_count: int
    rows: list[UserRow]


@dataclass(frozen=True)
class UserWish:
    """What to look for; empty strings and None look for all. `text`: a username or e-mail address, or a part of one."""

    text: str
    organization_id: str
    organization_role: Role | None
    sort_by: UserSort
    sort_dir: Direction
    offset: int
    limit: int


async def found_users(services: Services, wish: UserWish, position: int) -> UserPage:
    """For platform administrators alone: it looks across all tenants."""
    async with services.read("users", "organizations", position=position, scope=EVERYTHING) as connection:
        total = await count_users(connection)
        searched = await list_users(connection, rows=MAX_OPENED)
        username, email = services.vault.digest("username", wish.text), services.vault.digest("email", wish.text)
        exact = await find_user_by_digest(connection, username_digest=username, email_digest=email)
        if exact is not None and exact not in searched:
            searched.append(exact)
        memberships = await list_memberships(connection, [user.id for user in searched])
    wanted = wish.text.strip().casefold()
    rows = [
        row
        for user, names in zip(searched, await all_names_of(services, searched), strict=True)
        if wanted in names.username.casefold() or wanted in names.email.casefold()
        for row in _rows(user, names, memberships.get(user.id, ()))
        if wish.organization_id in {"", row.organization_id} and wish.organization_role in {None, row.organization_role}
    ]
    rows.sort(key=lambda row: (_sort_key(getattr(row, wish.sort_by)), row.id), reverse=wish.sort_dir == "desc")
    limit = page_rows(wish.limit)
    return UserPage(
        offset=wish.offset,
        limit=limit,
        total_count=total,
        searched_count=len(searched),
        filtered_count=len(rows),
        rows=rows[wish.offset : wish.offset + limit],
    )


def shown(user: UserView, names: Names) -> UserShown:
    return UserShown(**_fields(user, names))


def _fields(user: UserView, names: Names) -> dict[str, Any]:
    return {
        "id": user.id,
        **vars(names),
        "role": user.role,
        "account_plan": user.plan,
        "has_password": user.has_password,
        "created_at": user.created_at,
        "updated_at": user.updated_at,
    }


def _rows(user: UserView, names: Names, memberships: Sequence[Membership]) -> list[UserRow]:
    fields = _fields(user, names)
    if not memberships:
        return [UserRow(**fields, **_NOWHERE)]
    return [
        UserRow(
            **fields,
            organization_id=one.organization_id,
            organization_name=one.name,
            organization_slug=one.slug,
            organization_role=one.role,
        )
        for one in memberships
    ]


_NOWHERE: dict[str, Any] = {
    "organization_id": None,
    "organization_name": None,
    "organization_slug": None,
    "organization_role": None,
}


def _sort_key(value: Any) -> tuple[bool, Any]:
    """What is not there comes last; names without regard to case."""
    return value is None, value.casefold() if isinstance(value, str) else value
