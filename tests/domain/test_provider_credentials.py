"""Provider credentials: events name them, and nothing else."""

from domain.provider_credentials import (
    Belongings,
    ProviderCredentialsRemoved,
    ProviderCredentialsSet,
    RecordCredentialsRemoved,
    RecordCredentialsSet,
    account_of,
    missing_credentials,
)
from tests.given import given

NAMES = ("project_id", "secret_key")
SET = ProviderCredentialsSet(provider="scaleway", names=NAMES)


def test_new_secrets_under_the_same_names_are_news() -> None:
    given(SET).when(RecordCredentialsSet(provider="scaleway", names=NAMES)).then(SET)


def test_they_are_removed_once() -> None:
    removed = ProviderCredentialsRemoved(provider="scaleway")
    given(SET).when(RecordCredentialsRemoved(provider="scaleway")).then(removed)
    given(SET, removed).when(RecordCredentialsRemoved(provider="scaleway")).then_nothing()


def test_an_account_with_servers_or_strays_is_not_left_behind() -> None:
    for left in (Belongings(instances=1), Belongings(strays=1)):
        changed = RecordCredentialsSet(provider="scaleway", names=NAMES, left_behind=left)
        given(SET).when(changed).then_rejected("provider_in_use")
        given(SET).when(RecordCredentialsRemoved(provider="scaleway", left_behind=left)).then_rejected(
            "provider_in_use"
        )


def test_credentials_tell_whose_account_they_open() -> None:
    assert account_of("scaleway", {"project_id": "ABC", "secret_key": "s"}) == "abc"
    assert account_of("aws", {"access_key_id": "ASIAQNZGKIQY56JQ7WML"}) == "029608264753"
    role = "arn:aws:iam::123456789012:role/inventiv"
    assert account_of("aws", {"access_key_id": "ASIAQNZGKIQY56JQ7WML", "role_arn": role}) == "123456789012"
    assert account_of("aws", {"access_key_id": "no such key"}) == account_of("bare_metal", {}) == ""


def test_an_unknown_name_is_refused() -> None:
    given().when(RecordCredentialsSet(provider="scaleway", names=("pin",))).then_rejected("unknown_credential")


def test_an_unknown_provider_is_refused() -> None:
    given().when(RecordCredentialsSet(provider="nowhere", names=())).then_rejected("provider_not_found")


def test_what_is_missing_is_named() -> None:
    assert missing_credentials("scaleway", ()) == NAMES
    assert missing_credentials("scaleway", ("secret_key",)) == ("project_id",)
    assert missing_credentials("local", ()) == ()
