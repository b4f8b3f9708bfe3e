"""When each session was last used, without a write for each request.

    request ──note()──> memory ──each FLUSH_EVERY_S, one statement──> vault.session_uses ──> GET /auth/sessions

A session is written at most once in WRITE_EVERY. What a killed process had not written yet is lost: the list then tells
a use of a minute before.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Self

import structlog

from infra.postgres import Pool
from infra.vault_tables import VaultUnavailableError, vault_connection

WRITE_EVERY = timedelta(minutes=1)
FLUSH_EVERY_S = 10.0
MAX_NOTED = 10_000
"""Sessions remembered by a process; the one that was noted longest ago makes room."""
LAST_FLUSH_S = 2.0
"""For the last write of a process that stops."""

_WRITE = """
    INSERT INTO vault.session_uses (session_id, user_id, last_used_at)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::timestamptz[])
    ON CONFLICT (session_id) DO UPDATE
        SET last_used_at = greatest(vault.session_uses.last_used_at, excluded.last_used_at)
"""

_log = structlog.get_logger()


class SessionUses:
    """Implements web.services.SessionUses. Use as an async context manager: it writes once more when it is left."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._noted: OrderedDict[str, tuple[str, datetime]] = OrderedDict()
        self._due: dict[str, tuple[str, datetime]] = {}

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name="session-uses")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        with suppress(VaultUnavailableError, TimeoutError):
            await asyncio.wait_for(self.flush(), LAST_FLUSH_S)

    def note(self, session_id: str, user_id: str, at: datetime) -> None:
        """Microseconds; no I/O."""
        before = self._noted.get(session_id)
        if before is not None and at - before[1] < WRITE_EVERY:
            return
        self._noted[session_id] = self._due[session_id] = (user_id, at)
        self._noted.move_to_end(session_id)
        while len(self._noted) > MAX_NOTED:
            gone, _ = self._noted.popitem(last=False)
            self._due.pop(gone, None)

    async def last_used(self, session_ids: Sequence[str]) -> Mapping[str, datetime]:
        """By session; raises VaultUnavailableError."""
        async with vault_connection(self._pool, "read uses of sessions") as connection:
            cursor = await connection.execute(
                "SELECT session_id, last_used_at FROM vault.session_uses WHERE session_id = ANY(%s)",
                [list(session_ids)],
            )
            stored: dict[str, datetime] = dict(await cursor.fetchall())
        noted = {one: self._noted[one][1] for one in session_ids if one in self._noted}
        return {one: max(at, stored.get(one, at)) for one, at in {**stored, **noted}.items()}

    async def flush(self) -> None:
        """Writes what is due; raises VaultUnavailableError, and then it stays due."""
        if not self._due:
            return
        due, self._due = self._due, {}
        rows = sorted((session_id, user_id, at) for session_id, (user_id, at) in due.items())
        try:
            async with vault_connection(self._pool, "write uses of sessions") as connection:
                await connection.execute(_WRITE, [list(column) for column in zip(*rows, strict=True)])
        except VaultUnavailableError:
            self._due = {**due, **self._due}
            raise

    async def _run(self) -> None:
        """Flushes from time to time, for ever."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            try:
                await self.flush()
            except VaultUnavailableError as error:
                _log.warning("session_uses_not_written", error=str(error))
