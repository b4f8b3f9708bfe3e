"""Opens the audit log and its tree for somebody who reads all of it: one moment of both, read-only, no time limit."""

import contextlib
from collections.abc import AsyncIterator

from infra.postgres import ReadModels, connect, search_path
from projections.audit_log import AUDIT_LOG
from projections.audit_tree import AUDIT_TREE
from projections.projection import EVERYTHING, Connection, NotYetVisibleError

TABLES = (AUDIT_LOG, AUDIT_TREE)


@contextlib.asynccontextmanager
async def open_audit_log(postgres_url: str, *, at_least: int = 0) -> AsyncIterator[Connection]:
    """Lends a connection inside a transaction.

    Args:
        postgres_url: where the read models live.
        at_least: position that a running platform is given a moment to reach, so that what was just sealed is there;
            when it does not, the reader sees what there is.

    Raises:
        ReadModelUnavailableError: Postgres does not answer, or the tables are not built yet (when asked to wait).
        psycopg.OperationalError, psycopg.errors.UndefinedTable: the same, otherwise.
    """
    if at_least:
        with contextlib.suppress(NotYetVisibleError):
            async with (
                ReadModels(postgres_url, projections=TABLES, scope=EVERYTHING) as read,
                read("audit_log", "audit_tree", position=at_least),
            ):
                pass  # it is there
    connection = await connect(
        postgres_url,
        "audit",
        search_path=search_path(TABLES),
        default_transaction_read_only="on",
        default_transaction_isolation="repeatable\\ read",
    )
    async with connection, connection.transaction():
        yield connection
