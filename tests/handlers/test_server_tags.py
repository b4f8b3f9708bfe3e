import pytest

from domain.ids import InstanceId, OrganizationId
from handlers.server_tags import Owner, owner_of, tags_of
from tests.handlers.world import Signer

OWNER = Owner(OrganizationId("acme"), InstanceId("instance-1"), 2)


def test_signed_tags_tell_the_owner() -> None:
    assert owner_of(tags_of(OWNER, Signer()), Signer()) == OWNER


@pytest.mark.parametrize("tag", ["organization", "instance", "attempt", "signature", "platform"])
def test_a_changed_tag_makes_a_stranger(tag: str) -> None:
    tags = {**tags_of(OWNER, Signer()), tag: "9"}
    assert owner_of(tags, Signer()) is None


def test_a_server_without_tags_is_a_stranger() -> None:
    assert owner_of({}, Signer()) is None
