"""What people set instead of the defaults, and which provider credentials an organisation has given (never which ones).

setting ──> settings (organisation, provider, key)        provider_credentials ──> credentials (names, who, when)
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec

from domain.ids import PLATFORM, OrganizationId
from domain.provider_credentials import ProviderCredentialsRemoved, ProviderCredentialsSet
from domain.setting import SettingSet, SettingUnset, Value
from projections.projection import Connection, Entry, Projection
from projections.query import MAX_LIST_ROWS, find_all
from projections.table import Table

_TABLES = """
CREATE TABLE settings (
    organization_id text NOT NULL,
    provider text NOT NULL,
    key text NOT NULL,
    value text NOT NULL,
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
    value: str


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
        WHERE organization_id = %s AND provider = %s ORDER BY key LIMIT %s
    """
    rows = await find_all(connection, _Setting, query, (organization_id, provider, MAX_LIST_ROWS))
    return {row.key: _values.decode(row.value) for row in rows}


async def find_global_settings(connection: Connection) -> dict[str, Value]:
    """The platform's own."""
    return await find_settings(connection, PLATFORM, "")


async def list_credentials(connection: Connection, organization_id: str) -> list[CredentialsView]:
    """By provider; those that were removed are absent."""
    query = """
        SELECT organization_id, provider, names, set_by, set_at FROM provider_credentials
        WHERE organization_id = %s ORDER BY provider LIMIT %s
    """
    rows = await find_all(connection, _Credentials, query, (organization_id, MAX_LIST_ROWS))
    return [
        CredentialsView(provider=row.provider, names=tuple(row.names.split()), set_by=row.set_by, set_at=row.set_at)
        for row in rows
    ]


async def apply(entries: Sequence[Entry], connection: Connection) -> None:
    settings: dict[tuple[str, str, str], _Setting | None] = {}
    credentials: dict[tuple[str, str], _Credentials | None] = {}
    for entry in entries:
        organization_id = entry.envelope.organization
        match entry.event:
            case SettingSet() as event:
                settings[organization_id, event.provider, event.key] = _setting(event, organization_id)
            case SettingUnset() as event:
                settings[organization_id, event.provider, event.key] = None
            case ProviderCredentialsSet() as event:
                credentials[organization_id, event.provider] = _given(event, entry)
            case ProviderCredentialsRemoved() as event:
                credentials[organization_id, event.provider] = None
    await _settings.put(connection, [row for row in settings.values() if row is not None])
    await _settings.remove(connection, [key for key, row in settings.items() if row is None])
    await _credentials.put(connection, [row for row in credentials.values() if row is not None])
    await _credentials.remove(connection, [key for key, row in credentials.items() if row is None])


def _setting(event: SettingSet, organization_id: OrganizationId) -> _Setting:
    value = msgspec.json.encode(event.value).decode()
    return _Setting(organization_id=organization_id, provider=event.provider, key=event.key, value=value)


def _given(event: ProviderCredentialsSet, entry: Entry) -> _Credentials:
    return _Credentials(
        organization_id=entry.envelope.organization,
        provider=event.provider,
        names=" ".join(sorted(event.names)),
        set_by=entry.envelope.actor,
        set_at=entry.envelope.at,
    )


SETTINGS = Projection("settings", 1, _TABLES, apply, aggregates=frozenset({"setting", "provider_credentials"}))
