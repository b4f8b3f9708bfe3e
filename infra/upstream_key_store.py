"""Keys of foreign upstreams in the vault: taken in by the API, destroyed by handlers, opened by gateways alone.

    keep(...) ──sealed──> vault.upstream_keys ──> upstream_keys.py (gateway)        destroy(..., but=current)

The surprising rule: a key is never overwritten. Another key has another id (domain/upstream.py), so a gateway that has
not heard of the replacement yet goes on with the old one, and neither is ever taken for the other.
"""

from collections.abc import Sequence

from domain.ids import DeploymentId, OrganizationId
from handlers.person_ports import KeptKey
from infra.postgres import Pool
from infra.upstream_sealing import UpstreamSealer
from infra.vault_tables import vault_connection

PAGE_ROWS = 500

_KEEP = """
    INSERT INTO vault.upstream_keys (credential_id, organization_id, deployment_id, sealed) VALUES (%s, %s, %s, %s)
    ON CONFLICT (credential_id) DO UPDATE SET sealed = excluded.sealed, kept_at = now()
"""
_DESTROY = """
    DELETE FROM vault.upstream_keys WHERE organization_id = %(organization)s AND deployment_id = %(deployment)s
      AND credential_id <> %(but)s
      AND kept_at < coalesce((SELECT kept_at FROM vault.upstream_keys WHERE credential_id = %(but)s), 'infinity')
"""
_OLDER = """
    SELECT organization_id, deployment_id, credential_id FROM vault.upstream_keys
    WHERE credential_id > %s AND kept_at < now() - make_interval(secs => %s) ORDER BY credential_id LIMIT %s
"""
_DESTROY_ONE = (
    "DELETE FROM vault.upstream_keys WHERE credential_id = %s AND kept_at < now() - make_interval(secs => %s)"
)


class UpstreamKeyVault:
    """Implements handlers.person_ports.UpstreamKeyVault; each method raises VaultUnavailableError: Postgres is away."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def destroy(self, organization: OrganizationId, deployment_id: DeploymentId, /, *, but: str) -> None:
        """See the port. A key that came later than `but` is one whose event is still on its way."""
        async with vault_connection(self._pool, "destroy upstreams' keys") as connection:
            await connection.execute(_DESTROY, {"organization": organization, "deployment": deployment_id, "but": but})

    async def list_older(self, after: str, /, *, age_s: float) -> Sequence[KeptKey]:
        async with vault_connection(self._pool, "list upstreams' keys") as connection:
            rows = await (await connection.execute(_OLDER, [after, age_s, PAGE_ROWS])).fetchall()
        return [KeptKey(*row) for row in rows]

    async def destroy_older(self, credential_id: str, /, *, age_s: float) -> None:
        async with vault_connection(self._pool, "destroy an upstream's key") as connection:
            await connection.execute(_DESTROY_ONE, [credential_id, age_s])


class UpstreamKeyIntake:
    """Implements web.services.UpstreamKeys: takes in, and cannot read."""

    def __init__(self, pool: Pool, sealer: UpstreamSealer) -> None:
        self._pool = pool
        self._sealer = sealer

    async def keep(self, organization_id: str, deployment_id: str, credential_id: str, key: str) -> None:
        """Asking twice is welcome.

        Raises:
            VaultUnavailableError: Postgres is away.
        """
        sealed = self._sealer.seal(organization_id, credential_id, key)
        async with vault_connection(self._pool, "keep an upstream's key") as connection:
            await connection.execute(_KEEP, [credential_id, organization_id, deployment_id, sealed])
