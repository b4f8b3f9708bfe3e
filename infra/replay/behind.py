"""Whether the log is shorter than what was read from it, or another one: asked before any role may append to it.

A NATS whose store was wiped looks like a new one. Were the roles to start on it, new events would take the positions of
lost ones, and every read model would pass over them without a word. The surprising rule: length alone is no proof, so
the event at the audit log's checkpoint must have the very bytes of its row.
"""

from typing import Any

import psycopg
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from infra.events.streams import EVENTS, UnfitServerError
from infra.postgres import ReadModelUnavailableError, connect
from infra.replay.checkpoints import known_checkpoints, stream_of
from infra.replay.findings import Finding
from infra.replay.stored import end_of
from projections.audit_log import AUDIT_LOG, list_kept
from projections.projection import Connection

SHORTER_CURE = "run `inventiv events restore`, which rebuilds the log from the audit log; nothing may start before that"
ANOTHER_CURE = (
    "bring back the NATS store, or the Postgres, that belongs to the other one; "
    "`inventiv events verify` shows where they part"
)


async def log_is_behind(nc: Client, postgres_url: str) -> Finding | None:
    """The first reason why no role may start on these stores; None when all is well, or Postgres has read nothing yet.

    Args:
        nc: any connection.
        postgres_url: where the checkpoints are.

    Raises:
        ReadModelUnavailableError: Postgres does not answer.
        nats.errors.Error, ApiError: NATS does not answer.
    """
    try:
        return await _first_finding(nc, postgres_url)
    except psycopg.OperationalError as error:
        raise ReadModelUnavailableError(f"cannot learn how far the read models are: {error}") from error


async def require_whole_log(nc: Client, postgres_url: str) -> None:
    """Returns when roles may append; ask it after verify_server, whose errors end a role in the same way.

    Raises:
        UnfitServerError: with what log_is_behind found, and otherwise as log_is_behind.
    """
    finding = await log_is_behind(nc, postgres_url)
    if finding is not None:
        raise UnfitServerError([f"{finding.found}; {finding.cure}"])


async def _first_finding(nc: Client, postgres_url: str) -> Finding | None:
    async with await connect(postgres_url, "log-guard", autocommit=True, search_path=AUDIT_LOG.schema) as connection:
        checkpoints = await known_checkpoints(connection)
        heads = {stream: await end_of(nc, stream) for stream in {stream_of(c) for c in checkpoints}}
        for checkpoint in sorted(checkpoints, key=lambda c: c.position, reverse=True):
            stream = stream_of(checkpoint)
            if checkpoint.position > heads[stream]:
                read = f"{checkpoint.schema} has read up to {checkpoint.position:,}"
                found = f"{stream} ends at {heads[stream]:,}, but {read}"
                return _finding(checkpoint.position, stream, found, SHORTER_CURE)
        audited = next((c for c in checkpoints if c.schema == AUDIT_LOG.schema and c.position), None)
        if audited is not None and not await _is_same(nc, connection, audited.position):
            found = f"{EVENTS} holds another event at {audited.position:,} than the audit log does"
            return _finding(audited.position, EVENTS, found, ANOTHER_CURE)
    return None


async def _is_same(nc: Client, connection: Connection, position: int) -> bool:
    rows = await list_kept(connection, after=position - 1, limit=1)
    try:
        stored: Any = await nc.jetstream().get_msg(EVENTS, seq=position)
    except NotFoundError:
        return False
    return bool(rows) and (rows[0].position, rows[0].payload) == (position, stored.data)


def _finding(position: int, subject: str, found: str, cure: str) -> Finding:
    return Finding(severity="damage", check="checkpoint", position=position, subject=subject, found=found, cure=cure)
