"""Sealed keys of foreign upstreams, as a gateway reads them: the vault's one table that it may.

A module of its own because of the Postgres client, which only a gateway with such upstreams needs (upstream_keys.py).
"""

import asyncio
from collections.abc import Collection, Mapping

import psycopg

from infra.postgres import connect

TIMEOUT_S = 5.0

_QUERY = "SELECT credential_id, sealed FROM vault.upstream_keys WHERE credential_id = ANY(%s)"


async def read_sealed(postgres_url: str, credential_ids: Collection[str]) -> Mapping[str, bytes]:
    """Credential id -> what is sealed under it, as far as it is there.

    Raises:
        OSError: Postgres does not answer, or not in time.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async with await connect(postgres_url, "gateway", autocommit=True) as connection:
                rows = await (await connection.execute(_QUERY, [sorted(credential_ids)])).fetchall()
    except psycopg.Error as error:
        raise OSError(f"the vault did not answer: {str(error).strip()}") from error
    return {credential_id: bytes(sealed) for credential_id, sealed in rows}
