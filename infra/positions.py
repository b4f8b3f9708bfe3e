"""How far each read model is, known in memory: Postgres tells, nobody asks again and again.

    LISTEN, then one query for where everything stands ──> notifications ──> waiters whose position is reached

The query comes after LISTEN, so no move falls between them. When the connection is lost, nothing is known any more:
after a crash, Postgres may have lost its last transactions, and a position that was true would be believed too early.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import psycopg
import structlog

from infra.cancellation import heed_cancellation
from projections.checkpoint import CHANNEL, list_checkpoints
from projections.projection import Connection

_log = structlog.get_logger(__name__)

FIRST_RETRY_DELAY_S = 0.05
LONGEST_RETRY_DELAY_S = 2.0


class _Waiter(msgspec.Struct, frozen=True):
    schemas: tuple[str, ...]
    position: int
    reached: asyncio.Future[None]


class Positions:
    """Positions by schema. `start` and `stop` it; while Postgres is away it tries again for ever, ever more slowly.

    Args:
        connect: opens a connection in autocommit.
    """

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._positions: dict[str, int] = {}
        self._waiters: list[_Waiter] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def known(self) -> bool:
        """False while Postgres is away."""
        return bool(self._positions)

    def start(self) -> None:
        self._task = asyncio.create_task(self._listen_for_ever(), name="positions")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def have_reached(self, schemas: Sequence[str], position: int) -> bool:
        return position <= 0 or all(self._positions.get(schema, -1) >= position for schema in schemas)

    def late(self, schemas: Sequence[str], position: int) -> str:
        """Those that have not reached the position, for an error message."""
        return ", ".join(
            f"{schema} is at {self._positions.get(schema, 'no position')}"
            for schema in schemas
            if not self.have_reached([schema], position)
        )

    async def wait(self, schemas: Sequence[str], position: int, *, timeout_s: float) -> None:
        """Returns as soon as all have reached the position.

        Raises:
            TimeoutError: they had not, within timeout_s.
        """
        waiter = _Waiter(tuple(schemas), position, asyncio.get_running_loop().create_future())
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.reached
        finally:
            self._waiters.remove(waiter)

    async def _listen_for_ever(self) -> None:
        delay_s = FIRST_RETRY_DELAY_S
        while True:  # endless by contract; each failure waits, longer each time
            heed_cancellation()
            try:
                async with await self._connect() as connection:
                    await self._learn_all(connection)
                    delay_s = FIRST_RETRY_DELAY_S
                    async for notification in connection.notifies():
                        self._learn(notification.payload)
                reason = "the connection was closed"
            except (psycopg.Error, OSError, ValueError) as error:  # ValueError: a notification that is not ours
                reason = str(error).strip()
            self._positions.clear()
            _log.warning("positions_unknown", reason=reason, retry_s=delay_s)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LONGEST_RETRY_DELAY_S)

    async def _learn_all(self, connection: Connection) -> None:
        await connection.execute(f"LISTEN {CHANNEL}")
        with contextlib.suppress(psycopg.errors.UndefinedTable):  # no projection has started yet; each move is told
            for known in await list_checkpoints(connection):
                self._positions[f"{known.name}_v{known.version}"] = known.position
        self._wake()

    def _learn(self, payload: str) -> None:
        for line in payload.splitlines():
            schema, _, position = line.rpartition(" ")
            self._positions[schema] = int(position)
        self._wake()

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.reached.done() and self.have_reached(waiter.schemas, waiter.position):
                waiter.reached.set_result(None)
