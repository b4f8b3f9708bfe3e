"""An organisation's credentials for a provider. The secrets lie in the vault; events say only that they changed."""

from base64 import b32decode
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import assert_never

import msgspec

from domain.decider import Decider, Rejected
from domain.ids import DeploymentId, OrganizationId, derived_id


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider's adapter needs to know of an account; `required` ones must be there for it to work."""

    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        return frozenset((*self.required, *self.optional))


EXPECTED: Mapping[str, Expected] = {
    "local": Expected(),
    "scaleway": Expected(
        required=("project_id", "secret_key"),
        optional=("access_key", "organization_id", "ssh_private_key", "ssh_user"),
    ),
    "aws": Expected(
        required=("access_key_id", "secret_access_key"), optional=("regions", "role_arn", "external_id", "subnet_ids")
    ),
    "bare_metal": Expected(required=("ssh_private_key",), optional=("ssh_user",)),
    "ovh": Expected(required=("application_key", "application_secret", "consumer_key"), optional=("project_id",)),
    "huggingface": Expected(required=("token",)),
}
"""By provider code (SPEC 1.7, 6.7). A provider without required ones is always configured. `huggingface` is where
gated models come from.

Lists (`regions`, `subnet_ids`) are separated by commas. `role_arn` is assumed with the keys, which then need no other
right; `subnet_ids` are for accounts without a default network.
`ssh_private_key` fits a public key of the project, which Scaleway puts on its servers: with it a server whose own
installation came to nothing is installed by SSH.
"""


MAX_NAMED = 5
"""Deployments that a refusal names."""
_PURPOSE = "provider/"


def purpose_of(provider: str) -> str:
    """Under which word the vault keeps an account's bundle."""
    return f"{_PURPOSE}{provider}"


def provider_of(purpose: str) -> str:
    """Whose credentials such a bundle holds; empty when it is for something else."""
    return purpose.removeprefix(_PURPOSE) if purpose.startswith(_PURPOSE) else ""


def account_of(provider: str, values: Mapping[str, str]) -> str:
    """Which account at the provider they open, as far as they tell: Scaleway's project, AWS's account number. "" where
    they do not tell. No secret.

    An AWS key id carries its account's number: 40 bits from the second of its base-32 letters behind the first four on.
    """
    match provider:
        case "scaleway":
            return values.get("project_id", "").lower()
        case "aws":
            role = values.get("role_arn", "").split(":")
            return role[ARN_ACCOUNT] if len(role) > ARN_ACCOUNT else _account_in(values.get("access_key_id", ""))
        case _:
            return ""


ARN_ACCOUNT = 4
"""Which word of arn:aws:iam::<account>:role/<name> it is."""
_KEY_ID_LETTERS = 20


def _account_in(access_key_id: str) -> str:
    try:
        bits = int.from_bytes(b32decode(access_key_id[4:])[:6], "big")
    except ValueError:
        return ""
    return f"{(bits & 0x7FFF_FFFF_FF80) >> 7:012}" if len(access_key_id) == _KEY_ID_LETTERS else ""


class Belongings(msgspec.Struct, frozen=True, kw_only=True):
    """What an account's credentials are needed for: `instances` may own servers there (`deployments`: whose they are),
    and `strays`, servers and volumes that no record wants, are still being deleted.
    """

    instances: int = 0
    deployments: tuple[DeploymentId, ...] = ()
    strays: int = 0


class RecordCredentialsSet(msgspec.Struct, frozen=True, kw_only=True):
    """The vault holds them. `names` says which, e.g. ("project_id", "secret_key"); never what.

    `left_behind`: what is at the account that they take the place of, when it is another one.
    """

    provider: str
    names: tuple[str, ...]
    left_behind: Belongings = Belongings()


class RecordCredentialsRemoved(msgspec.Struct, frozen=True, kw_only=True):
    provider: str
    left_behind: Belongings = Belongings()


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
            _require_expected(command)
            _require_unused(command)
            return [ProviderCredentialsSet(provider=command.provider, names=command.names)]
        case RecordCredentialsRemoved():
            _require_unused(command)
            return [ProviderCredentialsRemoved(provider=command.provider)] if state.names else []
        case _:
            assert_never(command)


def _require_expected(command: RecordCredentialsSet) -> None:
    expected = EXPECTED.get(command.provider)
    if expected is None:
        raise Rejected("provider_not_found", "There is no provider with this code.")
    unknown = sorted(set(command.names) - expected.names)
    if unknown:
        raise Rejected("unknown_credential", f"{command.provider} has no credential called {unknown[0]}.")


def _require_unused(command: ProviderCredentialsCommand) -> None:
    """Nobody could delete then what is left behind; a new account would even say that it is gone."""
    left = command.left_behind
    if left.strays:
        words = f"{left.strays} servers or volumes that nobody wants are still being deleted at {command.provider}."
        raise Rejected("provider_in_use", f"{words} `inventiv provider ls` shows when they are gone.")
    if left.instances == 0:
        return
    named = left.deployments[:MAX_NAMED]
    more = f" and {len(left.deployments) - len(named)} more" if len(left.deployments) > len(named) else ""
    words = f"{left.instances} instances may own servers at {command.provider}, which nobody could delete then."
    raise Rejected("provider_in_use", f"{words} First stop deployment {', '.join(named)}{more}, and wait for its end.")


def missing_credentials(provider: str, names: Sequence[str]) -> tuple[str, ...]:
    """The required ones that are not among `names`."""
    expected = EXPECTED.get(provider, Expected())
    return tuple(name for name in expected.required if name not in names)


PROVIDER_CREDENTIALS: Decider[ProviderCredentialsCommand, ProviderCredentialsEvent, ProviderCredentials] = Decider(
    aggregate="provider_credentials",
    events=(ProviderCredentialsSet, ProviderCredentialsRemoved),
    initial=ProviderCredentials(),
    state_type=ProviderCredentials,
    evolve=evolve,
    decide=decide,
)
