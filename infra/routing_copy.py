"""The routing table as Postgres has it (projections/router.py), for a gateway that has no fresh snapshot of its own.

The surprising rule: nobody imports this at a plain start, since Postgres' client would be a fifth of the gateway's
memory.
"""

import asyncio
from datetime import datetime

import msgspec
import psycopg
import structlog
from psycopg import sql

from infra.postgres import connect
from projections.checkpoint import list_checkpoints
from projections.router import ROUTER, load_routing
from projections.routing_table import RoutingTable

TIMEOUT_S = 3.0

_log = structlog.get_logger(__name__)


async def read_copy(postgres_url: str) -> tuple[RoutingTable, datetime] | None:
    """The router's tables, as old as their checkpoint: whether the projector still lives, they do not tell.

    Returns:
        The table, and when it was current (UTC); None while it is being built, and when Postgres does not answer.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async with await connect(postgres_url, "gateway", autocommit=True) as connection:
                await connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(ROUTER.schema)))
                known = {checkpoint.schema: checkpoint for checkpoint in await list_checkpoints(connection)}
                checkpoint = known.get(ROUTER.schema)
                if checkpoint is None or checkpoint.built_percent < 100:
                    return None
                return await load_routing(connection), checkpoint.updated_at
    except (psycopg.Error, OSError, msgspec.MsgspecError) as error:
        _log.warning("router_tables_unavailable", reason=str(error).strip())
        return None
