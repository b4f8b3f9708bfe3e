"""Credentials of organisations at providers, in the vault: one wrapped bundle for each organisation and purpose.

    set(organization, "scaleway", {"secret_key": ...}) ──> names in the clear, values wrapped ──> open(...) for handlers

The surprising rule: whoever takes credentials in cannot read them. The REST API gets the port without `open`; only the
handlers' doors have it. A bundle is bound to its organisation and purpose, so no row opens in the place of another.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from domain.catalogue import HUGGING_FACE
from domain.ids import OrganizationId
from domain.provider_credentials import account_of, purpose_of
from handlers.person_ports import OpenCredentials
from infra.postgres import Pool
from infra.secret_files import read_secret_file
from infra.vault_tables import VaultUnavailableError, vault_connection
from infra.wrapping import KeyRing, WrappingKeyMissingError, newest_key

MOST_BUNDLES = 10_000
"""Accounts that a platform's duties go through; each of them asks its provider in turn."""


class CredentialStore:
    """Implements web.services.Credentials, and `open` for handlers.

    Every method raises VaultUnavailableError when Postgres is away, and WrappingKeyMissingError when this process lacks
    a key file.
    """

    def __init__(self, pool: Pool, keys: KeyRing) -> None:
        self._pool = pool
        self._keys = keys

    async def set(self, organization_id: str, purpose: str, values: Mapping[str, str]) -> None:
        """Replaces the whole bundle; `purpose` is a provider's code."""
        async with vault_connection(self._pool, "keep credentials") as connection:
            key_id = await newest_key(connection, self._keys)
            clear = msgspec.json.encode(dict(values))
            envelope = self._keys.wrap(key_id, clear, bound_to=bundle_of(organization_id, purpose))
            await connection.execute(
                "INSERT INTO vault.credentials (organization_id, purpose, names, envelope) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (organization_id, purpose) "
                "DO UPDATE SET names = excluded.names, envelope = excluded.envelope, set_at = now()",
                [organization_id, purpose, sorted(values), envelope],
            )

    async def remove(self, organization_id: str, purpose: str) -> None:
        """Asking twice is welcome."""
        async with vault_connection(self._pool, "remove credentials") as connection:
            await connection.execute(
                "DELETE FROM vault.credentials WHERE organization_id = %s AND purpose = %s", [organization_id, purpose]
            )

    async def names(self, organization_id: str, purpose: str) -> tuple[str, ...]:
        """Of what is there, in order; never the values."""
        async with vault_connection(self._pool, "list credentials") as connection:
            query = "SELECT names FROM vault.credentials WHERE organization_id = %s AND purpose = %s"
            row = await (await connection.execute(query, [organization_id, purpose])).fetchone()
        return tuple(row[0]) if row else ()

    async def account(self, organization_id: str, provider: str) -> str:
        """Which account at the provider they open, no secret; "" where there are none, or they do not tell."""
        return account_of(provider, await self.open(organization_id, purpose_of(provider)))

    async def list_bundles(self) -> Sequence[tuple[str, str]]:
        """(organization, purpose) of every bundle there is, in order; no values. Raises VaultUnavailableError: too many
        to be known at once.
        """
        async with vault_connection(self._pool, "list accounts") as connection:
            query = "SELECT organization_id, purpose FROM vault.credentials ORDER BY 1, 2 LIMIT %s"
            rows = await (await connection.execute(query, [MOST_BUNDLES + 1])).fetchall()
        if len(rows) > MOST_BUNDLES:
            raise VaultUnavailableError(f"vault: there are more than {MOST_BUNDLES} bundles of credentials")
        return [(row[0], row[1]) for row in rows]

    async def set_at(self, organization_id: str, purpose: str) -> datetime | None:
        """When the bundle was last replaced; None where there is none. It moves with every `set`."""
        async with vault_connection(self._pool, "date credentials") as connection:
            query = "SELECT set_at FROM vault.credentials WHERE organization_id = %s AND purpose = %s"
            row = await (await connection.execute(query, [organization_id, purpose])).fetchone()
        return row[0] if row else None

    async def open(self, organization_id: str, purpose: str) -> Mapping[str, str]:
        """By name; empty where there are none."""
        try:
            return await self._open(organization_id, purpose)
        except WrappingKeyMissingError:  # a rotation was quicker than we: the row names another key by now
            return await self._open(organization_id, purpose)

    async def _open(self, organization_id: str, purpose: str) -> Mapping[str, str]:
        async with vault_connection(self._pool, "open credentials") as connection:
            query = "SELECT envelope FROM vault.credentials WHERE organization_id = %s AND purpose = %s"
            row = await (await connection.execute(query, [organization_id, purpose])).fetchone()
        if row is None:
            return {}
        clear = self._keys.unwrap(bytes(row[0]), bound_to=bundle_of(organization_id, purpose))
        return msgspec.json.decode(clear, type=dict[str, str])


def bundle_of(organization_id: str, purpose: str) -> str:
    """What a wrapped bundle is bound to."""
    return f"{organization_id}/credentials/{purpose}"


def opened_by_provider(
    open_bundle: Callable[[str, str], Awaitable[Mapping[str, str]]], hf_token_file: Path | None
) -> OpenCredentials:
    """By a provider's code, not by the vault's word for it.

    Args:
        open_bundle: CredentialStore.open.
        hf_token_file: the platform's own token at Hugging Face, for organisations that gave none.

    Raises:
        SecretFileError: the file cannot be used; now, not at the first machine.
    """
    platforms = {"token": read_secret_file(hf_token_file).decode().strip()} if hf_token_file else {}

    async def opened(organization_id: OrganizationId, provider: str, /) -> Mapping[str, str]:
        own = await open_bundle(organization_id, purpose_of(provider))
        return platforms if not own and provider == HUGGING_FACE.code else own

    return opened
