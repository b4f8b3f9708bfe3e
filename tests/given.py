"""The grammar of domain specifications: given events, when a command, then events or a refusal.

    given(ServerCreated(...)).when(RecordServerCreated(...)).then_rejected("another_server_recorded")

The decider is found by the types of what is said. `later(seconds)` moves the clock between given and when.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.access import ACCESS, AccessCommand
from domain.aggregates import AGGREGATES
from domain.api_key import API_KEY, ApiKeyCommand
from domain.decider import Decider, Rejected
from domain.deployment import DEPLOYMENT, DeploymentCommand
from domain.host import HOST, HostCommand
from domain.instance import INSTANCE
from domain.instance_commands import InstanceCommand
from domain.model import MODEL, ModelCommand
from domain.offering import OFFERING, OfferingCommand
from domain.organization import ORGANIZATION
from domain.organization_commands import OrganizationCommand
from domain.provider_account import PROVIDER_ACCOUNT
from domain.provider_account_commands import ProviderAccountCommand
from domain.provider_credentials import PROVIDER_CREDENTIALS, ProviderCredentialsCommand
from domain.session import SESSION, SessionCommand
from domain.setting import SETTING, SettingCommand
from domain.share import SHARE, ShareCommand
from domain.user import USER, UserCommand

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)

COMMANDS: dict[type[Any], Decider[Any, Any, Any]] = {
    command: decider
    for decider, commands in (
        (ACCESS, AccessCommand),
        (API_KEY, ApiKeyCommand),
        (DEPLOYMENT, DeploymentCommand),
        (INSTANCE, InstanceCommand),
        (HOST, HostCommand),
        (MODEL, ModelCommand),
        (OFFERING, OfferingCommand),
        (ORGANIZATION, OrganizationCommand),
        (PROVIDER_ACCOUNT, ProviderAccountCommand),
        (PROVIDER_CREDENTIALS, ProviderCredentialsCommand),
        (SESSION, SessionCommand),
        (SETTING, SettingCommand),
        (SHARE, ShareCommand),
        (USER, UserCommand),
    )
    for command in commands.__args__
}
EVENTS: dict[type[Any], Decider[Any, Any, Any]] = {event: decider for decider in AGGREGATES for event in decider.events}


@dataclass(frozen=True)
class Outcome:
    events: Sequence[Any] = ()
    rejected: str = ""

    def then(self, *events: object) -> None:
        assert (self.rejected, list(self.events)) == ("", list(events))

    def then_nothing(self) -> None:
        self.then()

    def then_rejected(self, code: str) -> None:
        assert (self.rejected, list(self.events)) == (code, [])


@dataclass(frozen=True)
class Given:
    history: Sequence[Any]
    at: datetime = NOON

    def later(self, seconds: float) -> "Given":
        return replace(self, at=self.at + timedelta(seconds=seconds))

    def when(self, command: object) -> Outcome:
        decider = COMMANDS[type(command)]
        try:
            return Outcome(decider.decide(state_after(decider, self.history), command, self.at))
        except Rejected as refusal:
            return Outcome(rejected=refusal.code)


def given(*history: object) -> Given:
    return Given(history)


def state_after(decider: Decider[Any, Any, Any], history: Sequence[Any], at: datetime = NOON) -> Any:
    state = decider.initial
    for event in history:
        state = decider.evolve(state, event, at)
    return state
