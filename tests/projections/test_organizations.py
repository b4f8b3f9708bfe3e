"""Organisations, and who sees them."""

from domain.ids import UserId
from domain.organization import MemberAdded, MemberRemoved, OrganizationCreated
from domain.roles import Role
from projections.organizations import ORGANIZATIONS, find_organization, find_role, list_members, list_organizations
from tests.projections.grammar import Story, projected

URSULA = UserId("ursula")
MEMBERS: tuple[tuple[UserId, Role], ...] = (
    (URSULA, "user"),
    (UserId("oscar"), "owner"),
    (UserId("maria"), "manager"),
)


def _acme() -> Story:
    story = Story().happened("acme", "acme", OrganizationCreated(name="Acme", slug="acme"))
    return story.happened("acme", "acme", *(MemberAdded(user_id=user, role=role) for user, role in MEMBERS))


async def test_members_are_listed_by_rank(postgres_url: str) -> None:
    async with projected(postgres_url, ORGANIZATIONS, _acme().entries) as connection:
        members = await list_members(connection, "acme")
    assert [(member.user_id, member.role) for member in members] == [
        ("oscar", "owner"),
        ("maria", "manager"),
        ("ursula", "user"),
    ]


async def test_a_member_sees_the_organisation_with_their_own_role(postgres_url: str) -> None:
    async with projected(postgres_url, ORGANIZATIONS, _acme().entries) as connection:
        (seen,) = await list_organizations(connection, "maria")
        assert seen == await find_organization(connection, "acme", "maria")
    assert (seen.id, seen.name, seen.slug, seen.role, seen.member_count) == ("acme", "Acme", "acme", "manager", 3)


async def test_who_left_sees_the_organisation_no_longer(postgres_url: str) -> None:
    story = _acme().happened("acme", "acme", MemberRemoved(user_id=URSULA))
    async with projected(postgres_url, ORGANIZATIONS, story.entries) as connection:
        assert await list_organizations(connection, "ursula") == []
        assert await find_role(connection, "acme", "ursula") is None
        assert await find_role(connection, "acme", "oscar") == "owner"
        assert len(await list_members(connection, "acme")) == 2


async def test_who_comes_back_is_a_member_again(postgres_url: str) -> None:
    story = _acme().happened("acme", "acme", MemberRemoved(user_id=URSULA), MemberAdded(user_id=URSULA, role="admin"))
    async with projected(postgres_url, ORGANIZATIONS, story.entries, batches=[5]) as connection:
        assert await find_role(connection, "acme", "ursula") == "admin"


async def test_a_stranger_sees_no_organisation(postgres_url: str) -> None:
    async with projected(postgres_url, ORGANIZATIONS, _acme().entries) as connection:
        assert await find_organization(connection, "acme", "eve") is None
        assert await list_organizations(connection, "eve") == []
