"""Host keys of rented servers, pinned at their first use, in the vault's schema; a key is public, so nothing is sealed.

    no row, or one unused for FORGOTTEN_AFTER ──first script──> pinned ──another key──> refused

The surprising rule: a pin fades. Clouds give addresses out again, so the next server at an address is another host with
another key; a server is installed within an hour of its start, and only then does anybody speak SSH to it.
"""

from datetime import timedelta

from domain.ids import OrganizationId
from infra.postgres import Pool
from infra.vault_tables import vault_connection

FORGOTTEN_AFTER = timedelta(hours=2)


class HostKeys:
    """Every method raises VaultUnavailableError when Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, organization: OrganizationId, provider: str, address: str) -> str:
        """The fingerprint that is pinned there; empty when none is."""
        query = (
            "SELECT fingerprint FROM vault.host_keys "
            "WHERE organization_id = %s AND provider = %s AND address = %s AND used_at > now() - %s"
        )
        async with vault_connection(self._pool, "find a host key") as connection:
            row = await (await connection.execute(query, [organization, provider, address, FORGOTTEN_AFTER])).fetchone()
        return str(row[0]) if row else ""

    async def pin(self, organization: OrganizationId, provider: str, address: str, fingerprint: str) -> bool:
        """Pins it, or says (False) that another one is pinned."""
        query = (
            "INSERT INTO vault.host_keys AS pinned (organization_id, provider, address, fingerprint) "
            "VALUES (%s, %s, %s, %s) ON CONFLICT (organization_id, provider, address) "
            "DO UPDATE SET fingerprint = excluded.fingerprint, used_at = now() "
            "WHERE pinned.fingerprint = excluded.fingerprint OR pinned.used_at <= now() - %s RETURNING 1"
        )
        values = [organization, provider, address, fingerprint, FORGOTTEN_AFTER]
        async with vault_connection(self._pool, "pin a host key") as connection:
            return await (await connection.execute(query, values)).fetchone() is not None
