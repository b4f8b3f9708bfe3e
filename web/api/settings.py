"""Settings and provider accounts: what the platform and each organisation chose instead of the defaults.

    GET /settings/definitions      GET, PUT /settings/global      GET /providers/params      PUT /providers/{id}/params
    GET /providers/config-status   PUT, DELETE /providers/{id}/credentials

Credentials are write-only: they go into the vault, and no reply of this API ever holds one. The surprising rule: what a
setting is not said to be is left alone; null takes an override away.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import Field, StrictBool, StrictInt, StrictStr

from domain.catalogue import HUGGING_FACE, PROVIDERS, Provider
from domain.ids import PLATFORM, OrganizationId
from domain.provider_account import PROVIDER_ACCOUNT, provider_account_id_of
from domain.provider_account_commands import RequestCatalogueSync, RequestReconciliation
from domain.provider_credentials import (
    PROVIDER_CREDENTIALS,
    Belongings,
    RecordCredentialsRemoved,
    RecordCredentialsSet,
    account_of,
    credentials_id_of,
    missing_credentials,
    purpose_of,
)
from domain.setting import (
    DEFINITIONS,
    SETTING,
    SetSetting,
    SettingDefinition,
    UnsetSetting,
    Value,
    resolved,
    settings_id_of,
)
from projections.instance_owning import list_owning
from projections.projection import EVERYTHING
from projections.settings import CredentialsView, find_global_settings, find_settings, list_credentials
from web.api.catalogue import provider_id
from web.auth import Member, PlatformAdmin, Position, Served, member
from web.errors import ApiError, not_found
from web.intent import Intended
from web.services import Services
from web.shapes import Body, PathId, Reply

router = APIRouter(tags=["settings"])

Viewer = Annotated[Member, Depends(member("settings.view"))]
Editor = Annotated[Member, Depends(member("settings.edit"))]

MAX_SECRET_LENGTH = 4000
"""A private key of 4,096 bits has 3,400 characters."""
ACCOUNTS = (*PROVIDERS, HUGGING_FACE)
"""Where an organisation may have an account with credentials."""
_TOKEN = re.compile(r"[\x21-\x7e]+")
PROVIDER_KEYS = tuple(key for key, definition in DEFINITIONS.items() if definition.scope == "provider")


class DefinitionShown(Reply):
    """One setting that can be changed. `default_*`: the one of its type; the others are null."""

    key: str
    scope: str
    value_type: str
    min_int: int | None
    max_int: int | None
    default_int: int | None
    default_bool: bool | None
    default_text: str | None
    choices: list[str]
    description: str


class GlobalSetting(Reply):
    """`value` is what counts now; `is_override` tells whether somebody set it."""

    key: str
    value: bool | int | str
    is_override: bool


class GlobalChange(Body):
    """Name one value of the setting's type; all of them null takes the override away."""

    key: str = Field(max_length=100)
    value_int: StrictInt | None = None
    value_bool: StrictBool | None = None
    value_text: StrictStr | None = None

    @property
    def value(self) -> Value | None:
        return next((v for v in (self.value_int, self.value_bool, self.value_text) if v is not None), None)


class ProviderParams(Body):
    """Null removes the organisation's override; a field that is left out stays as it is."""

    worker_instance_startup_timeout_s: StrictInt | None = None
    instance_startup_timeout_s: StrictInt | None = None
    worker_ssh_bootstrap_timeout_s: StrictInt | None = None
    worker_dead_man_s: StrictInt | None = None
    worker_health_port: StrictInt | None = None
    worker_vllm_port: StrictInt | None = None
    worker_data_volume_gb_default: StrictInt | None = None
    worker_expose_ports: StrictBool | None = None
    worker_tunnel: StrictBool | None = None
    worker_vllm_mode: StrictStr | None = None
    worker_vllm_image: StrictStr | None = None
    worker_boot_image: StrictStr | None = None


class ProviderParamsShown(Reply):
    """`overrides`: what the organisation set; `effective`: what counts."""

    provider_id: str
    provider_code: str
    provider_name: str
    overrides: dict[str, bool | int | str]
    effective: dict[str, bool | int | str]


class ConfigStatus(Reply):
    """Whether an organisation's account at a provider can be used; `set_at` of what is there."""

    provider_id: str
    provider_code: str
    provider_name: str
    is_configured: bool
    missing_config: list[str]
    configured: list[str]
    set_at: datetime | None


class NewCredentials(Body):
    """By name, e.g. `project_id`, `secret_key`. They replace all that was given before."""

    values: dict[str, Annotated[str, Field(min_length=1, max_length=MAX_SECRET_LENGTH)]] = Field(
        min_length=1, max_length=10
    )


@router.get("/settings/definitions")
async def setting_definitions(_viewer: Viewer) -> list[DefinitionShown]:
    return [_definition(one) for one in DEFINITIONS.values()]


def _definition(one: SettingDefinition) -> DefinitionShown:
    whole = one.kind == "int"
    return DefinitionShown(
        key=one.key,
        scope=one.scope,
        value_type=one.kind,
        min_int=one.minimum if whole else None,
        max_int=one.maximum if whole else None,
        default_int=int(one.default) if whole else None,
        default_bool=bool(one.default) if one.kind == "bool" else None,
        default_text=str(one.default) if one.kind == "text" else None,
        choices=list(one.choices),
        description=one.description,
    )


@router.get("/settings/global")
async def global_settings(_viewer: Viewer, services: Served, position: Position) -> list[GlobalSetting]:
    """The platform's settings, as they count for everyone."""
    return await _global_settings(services, position)


async def _global_settings(services: Services, position: int) -> list[GlobalSetting]:
    # The platform's rows belong to no organisation, and are the same for all of them.
    async with services.read("settings", position=position, scope=EVERYTHING) as connection:
        found = await find_global_settings(connection)
    return [
        GlobalSetting(
            key=key, value=resolved(key, found, environment=services.settings.defaults), is_override=key in found
        )
        for key, definition in DEFINITIONS.items()
        if definition.scope == "global"
    ]


@router.put("/settings/global")
async def change_global_setting(
    body: GlobalChange, admin: PlatformAdmin, services: Served, intent: Intended
) -> list[GlobalSetting]:
    """For platform administrators: they count for every organisation."""
    value = body.value
    command = UnsetSetting(key=body.key) if value is None else SetSetting(key=body.key, value=value)
    await intent.send(SETTING, PLATFORM, settings_id_of(PLATFORM), command, actor=admin.actor)
    return await _global_settings(services, intent.position)


@router.get("/providers/params")
async def provider_params(viewer: Viewer, services: Served, position: Position) -> list[ProviderParamsShown]:
    return [await _params(services, viewer.organization_id, provider, position) for provider in PROVIDERS]


@router.put("/providers/{provider}/params")
async def change_provider_params(
    provider: PathId, body: ProviderParams, editor: Editor, services: Served, intent: Intended
) -> ProviderParamsShown:
    found = _provider(provider)
    settings_id = settings_id_of(editor.organization_id, found.code)
    for field in sorted(body.model_fields_set):
        key, value = field.upper(), getattr(body, field)
        command = (
            UnsetSetting(key=key, provider=found.code)
            if value is None
            else SetSetting(key=key, value=value, provider=found.code)
        )
        await intent.send(SETTING, editor.organization_id, settings_id, command, actor=editor.caller.actor)
    return await _params(services, editor.organization_id, found, intent.position)


async def _params(
    services: Services, organization_id: OrganizationId, provider: Provider, position: int
) -> ProviderParamsShown:
    async with services.read("settings", position=position) as connection:
        own = await find_settings(connection, organization_id, provider.code)
    return ProviderParamsShown(
        provider_id=provider_id(provider.code),
        provider_code=provider.code,
        provider_name=provider.name,
        overrides=_named(own),
        effective=_named({key: resolved(key, own, environment=services.settings.defaults) for key in PROVIDER_KEYS}),
    )


def _named(values: Mapping[str, Value]) -> dict[str, Value]:
    return {key.lower(): value for key, value in values.items()}


def _provider(id_or_code: str, among: Sequence[Provider] = PROVIDERS) -> Provider:
    for provider in among:
        if id_or_code in {provider.code, provider_id(provider.code)}:
            return provider
    raise not_found("provider")


@router.get("/providers/config-status")
async def config_status(viewer: Viewer, services: Served, position: Position) -> list[ConfigStatus]:
    return await _statuses(services, viewer.organization_id, position)


async def _statuses(services: Services, organization_id: OrganizationId, position: int) -> list[ConfigStatus]:
    async with services.read("settings", position=position) as connection:
        given = {one.provider: one for one in await list_credentials(connection, organization_id)}
    return [_status(provider, given.get(provider.code)) for provider in ACCOUNTS]


def _status(provider: Provider, given: CredentialsView | None) -> ConfigStatus:
    names = given.names if given else ()
    missing = missing_credentials(provider.code, names)
    return ConfigStatus(
        provider_id=provider_id(provider.code),
        provider_code=provider.code,
        provider_name=provider.name,
        is_configured=not missing,
        missing_config=list(missing),
        configured=list(names),
        set_at=given.set_at if given else None,
    )


@router.put("/providers/{provider}/credentials")
async def set_credentials(
    provider: PathId, body: NewCredentials, editor: Editor, services: Served, intent: Intended
) -> ConfigStatus:
    """Write-only. The vault first, the event after it: whoever reads the event can use them.

    Refused with 409 provider_in_use where they open another account than those before, which is still needed: its
    servers would be gone for us, and billed all the same.

    A complete account is looked at at once, so that it is soon seen whether they work (GET /provider_accounts).
    `huggingface` is no such account: its token is for the machines that fetch gated models.
    """
    found = _provider(provider, ACCOUNTS)
    left_behind = await _left_behind(services, editor.organization_id, found.code, body.values)
    names = tuple(sorted(body.values))
    command = RecordCredentialsSet(provider=found.code, names=names, left_behind=left_behind)
    PROVIDER_CREDENTIALS.decide(PROVIDER_CREDENTIALS.initial, command, intent.draw.at)  # before anything is stored
    values = _token_alone(body.values) if found is HUGGING_FACE else body.values
    await services.credentials.set(editor.organization_id, purpose_of(found.code), values)
    aggregate_id = credentials_id_of(editor.organization_id, found.code)
    actor = editor.caller.actor
    await intent.send(PROVIDER_CREDENTIALS, editor.organization_id, aggregate_id, command, actor=actor)
    if found is not HUGGING_FACE and not missing_credentials(found.code, command.names):
        account_id = provider_account_id_of(editor.organization_id, found.code)
        for wanted in (RequestReconciliation(provider=found.code), RequestCatalogueSync(provider=found.code)):
            await intent.send(PROVIDER_ACCOUNT, editor.organization_id, account_id, wanted, actor=actor)
    return await _status_of(services, editor.organization_id, found, intent.position)


def _token_alone(values: Mapping[str, str]) -> dict[str, str]:
    """It becomes a variable of a machine's environment, in one line. Raises ApiError: 400 invalid_credential."""
    token = values["token"].strip()
    if not _TOKEN.fullmatch(token):
        raise ApiError(400, "invalid_credential", "A token is one word of plain characters.")
    return {"token": token}


@router.delete("/providers/{provider}/credentials")
async def remove_credentials(provider: PathId, editor: Editor, services: Served, intent: Intended) -> ConfigStatus:
    """The event first: from then on nobody reaches for them; then they are destroyed.

    Refused with 409 provider_in_use while instances may own servers there, or what nobody wants there is not deleted
    yet; replacing them by others of the same account stays possible.
    """
    found = _provider(provider, ACCOUNTS)
    aggregate_id = credentials_id_of(editor.organization_id, found.code)
    belongings = await _belongings(services, editor.organization_id, found.code)
    command, actor = RecordCredentialsRemoved(provider=found.code, left_behind=belongings), editor.caller.actor
    await intent.send(PROVIDER_CREDENTIALS, editor.organization_id, aggregate_id, command, actor=actor)
    await services.credentials.remove(editor.organization_id, purpose_of(found.code))
    return await _status_of(services, editor.organization_id, found, intent.position)


async def _left_behind(
    services: Services, organization_id: OrganizationId, provider: str, values: Mapping[str, str]
) -> Belongings:
    """Nothing, as long as the credentials open the account that those before opened."""
    before = await services.credentials.account(organization_id, provider)
    if not before or before == account_of(provider, values):
        return Belongings()
    return await _belongings(services, organization_id, provider)


async def _belongings(services: Services, organization_id: OrganizationId, provider: str) -> Belongings:
    """As of the log's newest event: what was started a moment ago counts, and what a late create left behind."""
    async with services.read("instances", position=await services.log.head()) as connection:
        page = await list_owning(connection, organization_id=organization_id, provider=provider)
    owning = [one for one in page if one.provider_instance_id or one.status != "provisioning_failed"]
    deployments = tuple(dict.fromkeys(one.deployment_id for one in owning))
    account_id = provider_account_id_of(organization_id, provider)
    account = (await services.load(PROVIDER_ACCOUNT, organization_id, account_id)).state
    return Belongings(instances=len(owning), deployments=deployments, strays=len(account.strays))


async def _status_of(
    services: Services, organization_id: OrganizationId, provider: Provider, position: int
) -> ConfigStatus:
    for status in await _statuses(services, organization_id, position):
        if status.provider_code == provider.code:
            return status
    raise ApiError(404, "provider_not_found", "There is no provider with this id.")
