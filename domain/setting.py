"""Settings that people change while the platform runs: global ones, and an organisation's own for each provider.

    organisation + provider ──> global ──> environment ──> the definition's default          (SPEC 9.1: first one found)

One aggregate holds the settings of one place: the platform's, or one organisation's for one provider.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Decider
from domain.ids import OrganizationId, derived_id

Value = int | bool | str
SettingScope = Literal["global", "provider"]


class SettingDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """`minimum` and `maximum` bound whole numbers, both included."""

    key: str
    scope: SettingScope
    kind: Literal["int", "bool", "text"]
    default: Value
    description: str
    minimum: int = 0
    maximum: int = 0


class SetSetting(msgspec.Struct, frozen=True, kw_only=True):
    scope: SettingScope
    key: str
    value: Value


class UnsetSetting(msgspec.Struct, frozen=True, kw_only=True):
    key: str


SettingCommand = SetSetting | UnsetSetting


class SettingSet(msgspec.Struct, frozen=True, kw_only=True):
    """`provider` is empty for the platform's own settings."""

    key: str
    value: Value
    provider: str = ""


class SettingUnset(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    provider: str = ""


SettingEvent = SettingSet | SettingUnset


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    values: Mapping[str, Value] = {}


def settings_id_of(organization_id: OrganizationId, provider: str = "") -> str:
    return derived_id(organization_id, f"settings/{provider}")


def evolve(state: Settings, event: SettingEvent, _at: datetime) -> Settings:
    match event:
        case SettingSet():
            return replace(state, values={**state.values, event.key: event.value})
        case SettingUnset():
            return replace(state, values={k: v for k, v in state.values.items() if k != event.key})
        case _:
            assert_never(event)


def decide(state: Settings, command: SettingCommand, _at: datetime) -> Sequence[SettingEvent]:
    raise NotImplementedError


SETTING: Decider[SettingCommand, SettingEvent, Settings] = Decider(
    aggregate="setting",
    events=(SettingSet, SettingUnset),
    initial=Settings(),
    state_type=Settings,
    evolve=evolve,
    decide=decide,
)
