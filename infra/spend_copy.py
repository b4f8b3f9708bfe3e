"""The book of spending as Postgres has it (projections/usage.py): where a gateway starts that begins to need it.

A module of its own because of the Postgres client, which a gateway without limits of spending never needs.
"""

import asyncio
from datetime import date

import psycopg
import structlog
from psycopg import sql

from gateway.spend import SpendSnapshot
from infra.postgres import connect
from projections.checkpoint import list_checkpoints
from projections.usage import USAGE, find_spend

TIMEOUT_S = 3.0

_log = structlog.get_logger(__name__)


async def read_copy(postgres_url: str, month: str) -> SpendSnapshot | None:
    """The sums of a month ("2026-11") and their position, both of one moment.

    Returns:
        None while they are being built, and when Postgres does not answer.
    """
    try:
        async with asyncio.timeout(TIMEOUT_S):
            async with await connect(postgres_url, "gateway") as connection:
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
                await connection.execute(sql.SQL("SET LOCAL search_path TO {}").format(sql.Identifier(USAGE.schema)))
                known = {checkpoint.schema: checkpoint for checkpoint in await list_checkpoints(connection)}
                checkpoint = known.get(USAGE.schema)
                if checkpoint is None or checkpoint.built_percent < 100:
                    return None
                spend = await find_spend(connection, month=date.fromisoformat(f"{month}-01"))
    except (psycopg.Error, OSError) as error:
        _log.warning("spend_totals_unavailable", reason=str(error).strip())
        return None
    return SpendSnapshot(position=checkpoint.position, month=month, keys=spend.keys, organizations=spend.organizations)
