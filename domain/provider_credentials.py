"""An organisation's credentials for a provider. The secrets lie in the vault; events say only that they changed."""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

import msgspec

from domain.decider import Decider
from domain.ids import OrganizationId, derived_id


class RecordCredentialsSet(msgspec.Struct, frozen=True, kw_only=True):
    """The vault holds them. `names` says which, e.g. ("project_id", "secret_key"); never what."""

    provider: str
    names: tuple[str, ...]


class RecordCredentialsRemoved(msgspec.Struct, frozen=True, kw_only=True):
    provider: str


ProviderCredentialsCommand = RecordCredentialsSet | RecordCredentialsRemoved


class ProviderCredentialsSet(msgspec.Struct, frozen=True, kw_only=True):
    provider: str
    names: tuple[str, ...]


class ProviderCredentialsRemoved(msgspec.Struct, frozen=True, kw_only=True):
    provider: str


ProviderCredentialsEvent = ProviderCredentialsSet | ProviderCredentialsRemoved


class ProviderCredentials(msgspec.Struct, frozen=True, kw_only=True):
    names: tuple[str, ...] = ()


def credentials_id_of(organization_id: OrganizationId, provider: str) -> str:
    return derived_id(organization_id, f"credentials/{provider}")


def evolve(_state: ProviderCredentials, event: ProviderCredentialsEvent, _at: datetime) -> ProviderCredentials:
    match event:
        case ProviderCredentialsSet():
            return ProviderCredentials(names=event.names)
        case ProviderCredentialsRemoved():
            return ProviderCredentials()
        case _:
            assert_never(event)


def decide(
    state: ProviderCredentials, command: ProviderCredentialsCommand, _at: datetime
) -> Sequence[ProviderCredentialsEvent]:
    match command:
        case RecordCredentialsSet():
            return [ProviderCredentialsSet(provider=command.provider, names=command.names)]
        case RecordCredentialsRemoved():
            return [ProviderCredentialsRemoved(provider=command.provider)] if state.names else []
        case _:
            assert_never(command)


PROVIDER_CREDENTIALS: Decider[ProviderCredentialsCommand, ProviderCredentialsEvent, ProviderCredentials] = Decider(
    aggregate="provider_credentials",
    events=(ProviderCredentialsSet, ProviderCredentialsRemoved),
    initial=ProviderCredentials(),
    state_type=ProviderCredentials,
    evolve=evolve,
    decide=decide,
)
