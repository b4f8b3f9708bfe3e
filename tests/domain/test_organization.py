from msgspec.structs import replace

from domain.decider import Claim
from domain.organization import (
    ORGANIZATION,
    AddMember,
    CreateOrganization,
    MemberAdded,
    MemberRemoved,
    OrganizationCreated,
    RemoveMember,
    slug_digest,
)
from tests.examples import ALICE, BOB
from tests.given import given

ACME_CREATED = (OrganizationCreated(name="Acme", slug="acme"), MemberAdded(user_id=ALICE, role="owner"))
CREATE = CreateOrganization(name="Acme", owner=ALICE, fallback_slug="org-0192aaaa")


def test_its_creator_becomes_its_owner() -> None:
    given().when(CREATE).then(*ACME_CREATED)


def test_creating_it_twice_creates_it_once() -> None:
    given(*ACME_CREATED).when(CREATE).then_nothing()


def test_it_needs_a_name() -> None:
    given().when(replace(CREATE, name="  ")).then_rejected("name_required")
    given().when(replace(CREATE, name="x" * 101)).then_rejected("name_too_long")


def test_its_slug_is_made_of_its_name() -> None:
    outcome = given().when(replace(CREATE, name="Ça & là: 42 Ltd."))
    assert outcome.events[0] == OrganizationCreated(name="Ça & là: 42 Ltd.", slug="a-l-42-ltd")


def test_a_name_without_letters_gets_the_fallback_slug() -> None:
    outcome = given().when(replace(CREATE, name="東京"))
    assert outcome.events[0] == OrganizationCreated(name="東京", slug="org-0192aaaa")


def test_its_slug_is_claimed_for_it_alone() -> None:
    claims = ORGANIZATION.reservations(ORGANIZATION.initial, ACME_CREATED[0])
    assert claims == [Claim("organization_slug", slug_digest("acme"), "organization_slug_already_exists")]


def test_a_member_is_added_once() -> None:
    given(*ACME_CREATED).when(AddMember(user_id=BOB, role="user")).then(MemberAdded(user_id=BOB, role="user"))
    given(*ACME_CREATED).when(AddMember(user_id=ALICE, role="owner")).then_nothing()
    given(*ACME_CREATED).when(AddMember(user_id=ALICE, role="user")).then_rejected("user_already_member")


def test_the_last_owner_stays() -> None:
    given(*ACME_CREATED).when(RemoveMember(user_id=ALICE)).then_rejected("last_owner_cannot_be_removed")


def test_one_of_two_owners_may_go() -> None:
    two = (*ACME_CREATED, MemberAdded(user_id=BOB, role="owner"))
    given(*two).when(RemoveMember(user_id=ALICE)).then(MemberRemoved(user_id=ALICE))


def test_removing_a_stranger_changes_nothing() -> None:
    given(*ACME_CREATED).when(RemoveMember(user_id=BOB)).then_nothing()


def test_nothing_happens_in_an_organization_that_does_not_exist() -> None:
    given().when(AddMember(user_id=BOB, role="user")).then_rejected("organization_not_found")
