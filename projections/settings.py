"""What people set instead of the defaults, and which provider credentials an organisation has given: names, no more.

setting ──> settings (organisation, provider, key)        provider_credentials ──> credentials (names, who, when)
"""

from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

import msgspec

from domain.ids import PLATFORM, OrganizationId
from domain.provider_credentials import ProviderCredentialsEvent, ProviderCredentialsRemoved, ProviderCredentialsSet
from domain.setting import SettingEvent, SettingSet, SettingUnset, Value
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all
from projections.table import Table

_TABLES = """
CREATE TABLE settings (
    organization_id text NOT NULL,
    provider text NOT NULL,
    key text NOT NULL,
    value text,
    PRIMARY KEY (organization_id, provider, key)
);
CREATE TABLE provider_credentials (
    organization_id text NOT NULL,
    provider text NOT NULL,
    names text NOT NULL,
    set_by text NOT NULL,
    set_at timestamptz NOT NULL,
    PRIMARY KEY (organization_id, provider)
)
"""


class CredentialsView(msgspec.Struct, frozen=True, kw_only=True):
    """`names` of the secrets that the vault holds; `set_by` as an envelope's actor."""

    provider: str
    names: tuple[str, ...]
    set_by: str
    set_at: datetime


class _Setting(msgspec.Struct, frozen=True, kw_only=True):
    organization_id: OrganizationId
    provider: str
    key: str
    value: str | None


class _Credentials(msgspec.Struct, frozen=True, kw_only=True):
    organization_id: OrganizationId
    provider: str
    names: str
    set_by: str
    set_at: datetime


_settings = Table("settings", _Setting, key=("organization_id", "provider", "key"))
_credentials = Table("provider_credentials", _Credentials, key=("organization_id", "provider"))
_values = msgspec.json.Decoder(bool | int | str)


async def find_settings(connection: Connection, organization_id: str, provider: str) -> dict[str, Value]:
    """An organisation's overrides for a provider."""
    query = """
        SELECT organization_id, provider, key, value FROM settings
        WHERE organization_id = %s AND provider = %s AND value IS NOT NULL ORDER BY key LIMIT %s
    """
    rows = await find_all(connection, _Setting, query, (organization_id, provider, MAX_LIST_ROWS))
    return {row.key: _values.decode(row.value) for row in rows if row.value is not None}


async def find_global_settings(connection: Connection) -> dict[str, Value]:
    """The platform's own."""
    return await find_settings(connection, PLATFORM, "")


async def list_credentials(connection: Connection, organization_id: str) -> list[CredentialsView]:
    """By provider; those that were removed are absent."""
    query = """
        SELECT organization_id, provider, names, set_by, set_at FROM provider_credentials
        WHERE organization_id = %s AND names <> '' ORDER BY provider LIMIT %s
    """
    rows = await find_all(connection, _Credentials, query, (organization_id, MAX_LIST_ROWS))
    return [
        CredentialsView(provider=row.provider, names=tuple(row.names.split()), set_by=row.set_by, set_at=row.set_at)
        for row in rows
    ]


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    settings: dict[tuple[str, str, str], _Setting] = {}
    credentials: dict[tuple[str, str], _Credentials] = {}
    for entry in entries:
        organization_id = entry.envelope.organization
        event: SettingEvent | ProviderCredentialsEvent = entry.event
        match event:
            case SettingSet() | SettingUnset():
                settings[organization_id, event.provider, event.key] = _setting(event, organization_id)
            case ProviderCredentialsSet() | ProviderCredentialsRemoved():
                credentials[organization_id, event.provider] = _given(event, entry)
            case _:
                assert_never(event)
    await _settings.put(connection, settings.values())
    await _credentials.put(connection, credentials.values())


def _setting(event: SettingEvent, organization_id: OrganizationId) -> _Setting:
    value = msgspec.json.encode(event.value).decode() if isinstance(event, SettingSet) else None
    return _Setting(organization_id=organization_id, provider=event.provider, key=event.key, value=value)


def _given(event: ProviderCredentialsEvent, entry: Entry) -> _Credentials:
    return _Credentials(
        organization_id=entry.envelope.organization,
        provider=event.provider,
        names=" ".join(sorted(event.names)) if isinstance(event, ProviderCredentialsSet) else "",
        set_by=entry.envelope.actor,
        set_at=entry.envelope.at,
    )


SETTINGS = Projection("settings", 1, _TABLES, apply, aggregates=frozenset({"setting", "provider_credentials"}))
