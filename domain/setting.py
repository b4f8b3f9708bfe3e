"""Settings that people change while the platform runs: global ones, and an organisation's own for each provider.

    organisation + provider ──> global ──> environment ──> the definition's default          (SPEC 9.1: first one found)

One aggregate holds the settings of one place: the platform's, or one organisation's for one provider.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Literal, assert_never

import msgspec
from msgspec.structs import replace

from domain.decider import Decider, Rejected
from domain.ids import OrganizationId, derived_id

Value = bool | int | str
SettingScope = Literal["global", "provider"]
Kind = Literal["int", "bool", "text"]
MAX_TEXT_LENGTH = 200


class SettingDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """`minimum` and `maximum` bound whole numbers, both included; `choices`, when given, are all that a text may be."""

    key: str
    scope: SettingScope
    kind: Kind
    default: Value
    description: str
    minimum: int = 0
    maximum: int = 0
    choices: tuple[str, ...] = ()


def _seconds(key: str, scope: SettingScope, minimum: int, default: int, words: str) -> SettingDefinition:
    return SettingDefinition(
        key=key, scope=scope, kind="int", default=default, description=words, minimum=minimum, maximum=86_400
    )


def _port(key: str, default: int, words: str) -> SettingDefinition:
    return SettingDefinition(
        key=key, scope="provider", kind="int", default=default, description=words, minimum=1, maximum=65_535
    )


_SERVER, _WORKER = "Seconds a plain server may take to start.", "Seconds a worker may take until its model is ready."
_DEAD_MAN = "Seconds without our API after which a worker drains and powers its machine off; 0: never; at least 60."
_BOOT_IMAGE = "What rented servers boot: an id at Scaleway; at AWS an id, or a name of your own images; empty: ours."
DEFINITIONS: Mapping[str, SettingDefinition] = {
    one.key: one
    for one in (
        _seconds("WORKER_INSTANCE_STARTUP_TIMEOUT_S", "provider", 30, 3600, _WORKER),
        _seconds("INSTANCE_STARTUP_TIMEOUT_S", "provider", 30, 300, _SERVER),
        _seconds("WORKER_SSH_BOOTSTRAP_TIMEOUT_S", "provider", 60, 900, "Seconds the installation by SSH may take."),
        _seconds("WORKER_DEAD_MAN_S", "provider", 0, 0, _DEAD_MAN),
        _port("WORKER_HEALTH_PORT", 8080, "Port of the agent on a worker."),
        _port("WORKER_VLLM_PORT", 8000, "Port of the engine on a worker."),
        SettingDefinition(
            key="WORKER_DATA_VOLUME_GB_DEFAULT",
            scope="provider",
            kind="int",
            default=200,
            description="Size of a data volume, in GB, where the model does not say one.",
            minimum=50,
            maximum=5000,
        ),
        SettingDefinition(
            key="WORKER_EXPOSE_PORTS",
            scope="provider",
            kind="bool",
            default=True,
            description="Whether the worker's ports are opened to the gateway.",
        ),
        SettingDefinition(
            key="WORKER_TUNNEL",
            scope="provider",
            kind="bool",
            default=False,
            description="Whether workers are reached through tunnels that they open themselves: hosts behind NAT.",
        ),
        SettingDefinition(
            key="WORKER_VLLM_MODE",
            scope="provider",
            kind="text",
            default="mono",
            description="One engine over all GPUs (mono), or one for each (multi).",
            choices=("mono", "multi"),
        ),
        SettingDefinition(
            key="WORKER_VLLM_IMAGE",
            scope="provider",
            kind="text",
            default="vllm/vllm-openai:latest",
            description="Container image of the engine.",
        ),
        SettingDefinition(key="WORKER_BOOT_IMAGE", scope="provider", kind="text", default="", description=_BOOT_IMAGE),
        _seconds("OPENAI_WORKER_STALE_SECONDS", "global", 10, 120, "Seconds of silence until a worker is passed over."),
    )
}
"""SPEC 9.1."""


class SetSetting(msgspec.Struct, frozen=True, kw_only=True):
    """`provider` is empty for the platform's own settings."""

    key: str
    value: Value
    provider: str = ""


class UnsetSetting(msgspec.Struct, frozen=True, kw_only=True):
    key: str
    provider: str = ""


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
    definition = _defined(command)
    match command:
        case SetSetting():
            _require_fitting(definition, command.value)
            same = command.key in state.values and state.values[command.key] == command.value
            return [] if same else [SettingSet(key=command.key, value=command.value, provider=command.provider)]
        case UnsetSetting():
            known = command.key in state.values
            return [SettingUnset(key=command.key, provider=command.provider)] if known else []
        case _:
            assert_never(command)


def _defined(command: SettingCommand) -> SettingDefinition:
    definition = DEFINITIONS.get(command.key)
    if definition is None or (definition.scope == "provider") != bool(command.provider):
        raise Rejected("unknown_setting", f"There is no such setting: {command.key[:MAX_TEXT_LENGTH]}.")
    return definition


def _require_fitting(definition: SettingDefinition, value: Value) -> None:
    if type(value) is not {"int": int, "bool": bool, "text": str}[definition.kind]:  # True would pass for an int
        raise Rejected("invalid_setting_type", f"{definition.key} is of type {definition.kind}.")
    if isinstance(value, str) and not (0 < len(value) <= MAX_TEXT_LENGTH and value.isascii() and value.isprintable()):
        # A machine is told in ASCII; what cannot be said would stop each of its instances instead of this command.
        words = f"{definition.key} has 1 to {MAX_TEXT_LENGTH} printable ASCII characters."
        raise Rejected("setting_out_of_range", words)
    if definition.choices and value not in definition.choices:
        raise Rejected("setting_out_of_range", f"{definition.key} is one of {', '.join(definition.choices)}.")
    if definition.kind == "int" and not definition.minimum <= int(value) <= definition.maximum:
        words = f"{definition.key} lies between {definition.minimum} and {definition.maximum}."
        raise Rejected("setting_out_of_range", words)


def resolved(key: str, *overrides: Mapping[str, Value], environment: Mapping[str, Value]) -> Value:
    """The value that counts: the first override that has it (own ones first), then environment, then the default."""
    for values in (*overrides, environment):
        if key in values:
            return values[key]
    return DEFINITIONS[key].default


SETTING: Decider[SettingCommand, SettingEvent, Settings] = Decider(
    aggregate="setting",
    events=(SettingSet, SettingUnset),
    initial=Settings(),
    state_type=Settings,
    evolve=evolve,
    decide=decide,
)
