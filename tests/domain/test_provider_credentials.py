"""Provider credentials: events name them, and nothing else."""

from domain.provider_credentials import (
    ProviderCredentialsRemoved,
    ProviderCredentialsSet,
    RecordCredentialsRemoved,
    RecordCredentialsSet,
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


def test_an_unknown_name_is_refused() -> None:
    given().when(RecordCredentialsSet(provider="scaleway", names=("pin",))).then_rejected("unknown_credential")


def test_an_unknown_provider_is_refused() -> None:
    given().when(RecordCredentialsSet(provider="nowhere", names=())).then_rejected("provider_not_found")


def test_what_is_missing_is_named() -> None:
    assert missing_credentials("scaleway", ()) == NAMES
    assert missing_credentials("scaleway", ("secret_key",)) == ("project_id",)
    assert missing_credentials("local", ()) == ()
