"""Organisations, and who sees them."""

from domain.ids import UserId
from domain.limits import UNLIMITED, OrganizationLimits
from domain.organization import (
    MemberAdded,
    MemberRemoved,
    MemberRoleChanged,
    OrganizationCreated,
    OrganizationDeleted,
    OrganizationLimitsChanged,
    OrganizationPlanChanged,
    OrganizationRenamed,
    SidebarColorChosen,
)
from domain.roles import Role
from projections.organizations import (
    ORGANIZATIONS,
    find_member,
    find_organization,
    find_profile,
    find_role,
    list_members,
    list_organizations,
)
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


async def test_a_member_count_follows_those_who_come_and_go(postgres_url: str) -> None:
    story = _acme().happened("acme", "acme", MemberRemoved(user_id=URSULA))
    story.happened("acme", "acme", MemberAdded(user_id=URSULA, role="user"), MemberRemoved(user_id=URSULA))
    async with projected(postgres_url, ORGANIZATIONS, story.entries, batches=[2, 5, 6]) as connection:
        (seen,) = await list_organizations(connection, "oscar")
        assert seen.member_count == len(await list_members(connection, "acme")) == 2


async def test_a_new_role_is_seen_and_leaves_the_day_of_joining(postgres_url: str) -> None:
    story = _acme().happened("acme", "acme", MemberRoleChanged(user_id=URSULA, role="admin"))
    async with projected(postgres_url, ORGANIZATIONS, story.entries, batches=[3]) as connection:
        assert await find_role(connection, "acme", "ursula") == "admin"
        found = await find_member(connection, "acme", "ursula")
        assert found is not None
        assert found.joined_at == story.entries[1].envelope.at


async def test_name_slug_colour_and_plan_are_the_newest(postgres_url: str) -> None:
    story = _acme().happened(
        "acme",
        "acme",
        OrganizationRenamed(name="Acme Two", slug="acme-two"),
        SidebarColorChosen(color="#2f6f4f"),
        OrganizationPlanChanged(plan="subscriber"),
    )
    async with projected(postgres_url, ORGANIZATIONS, story.entries, batches=[5]) as connection:
        (seen,) = await list_organizations(connection, "oscar")
        profile = await find_profile(connection, "acme")
    assert (seen.name, seen.slug, seen.sidebar_color, seen.plan) == ("Acme Two", "acme-two", "#2f6f4f", "subscriber")
    assert profile is not None
    assert (profile.plan, profile.name) == ("subscriber", "Acme Two")


async def test_limits_are_the_newest_and_seen_by_members_and_the_platform(postgres_url: str) -> None:
    first = OrganizationLimits(requests_per_minute=600, tokens_per_minute=10_000)
    second = OrganizationLimits(concurrency=5, spend_limit_eur_micros_per_month=2**53 - 1, max_completion_tokens=100)
    story = _acme()
    before = len(story.entries)
    story.happened("acme", "acme", OrganizationLimitsChanged(limits=first), OrganizationLimitsChanged(limits=second))
    for count, limits in ((before, UNLIMITED), (before + 1, first), (before + 2, second)):
        async with projected(postgres_url, ORGANIZATIONS, story.entries[:count], batches=[count]) as connection:
            seen = await find_organization(connection, "acme", "oscar")
            profile = await find_profile(connection, "acme")
        assert seen is not None
        assert profile is not None
        assert (seen.limits, profile.limits) == (limits, limits)


async def test_a_deleted_organisation_has_no_members_and_is_nobodys(postgres_url: str) -> None:
    story = _acme().happened("globex", "globex", OrganizationCreated(name="Globex", slug="globex"))
    story.happened("globex", "globex", MemberAdded(user_id=URSULA, role="owner"))
    story.happened("acme", "acme", OrganizationDeleted())
    for batches in ([], [4], [7]):
        async with projected(postgres_url, ORGANIZATIONS, story.entries, batches=batches) as connection:
            assert [one.id for one in await list_organizations(connection, "ursula")] == ["globex"]
            assert await list_members(connection, "acme") == []
            assert await find_role(connection, "acme", "oscar") is None
            assert await find_profile(connection, "acme") is None
            assert await find_role(connection, "globex", "ursula") == "owner"
