"""One line of JSON for each request that ended, without a word of what was asked or answered.

    finished, refused ──encode──> buffer (bounded) ──once a second, on a thread──> stdout or a file
                                     └── full: dropped and counted, and the next line that fits says how many

It is what an operator reads at night beside the engine's own log; the account is the usage record, which never depends
on this. Off unless asked for (INVENTIV_ACCESS_LOG): USAGE tells the same of every request, /metrics counts the rest,
and nobody should pay 1 us a request for a file that no one reads. The surprising rule: a line names ids, never a name,
an address, a path that a client made up, or a field that an engine filled in freely; so nothing needs to be redacted.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import msgspec
import structlog

from domain.usage import UsageRecord

FLUSH_INTERVAL_S = 1.0
MAX_BUFFERED_BYTES = 8 * 1024 * 1024
"""About 20,000 lines: what a disk may be late by."""

Write = Callable[[bytes], None]
"""Writes whole lines; may block, and is called on a thread. Raises OSError."""

log = structlog.get_logger(__name__)
_encode = msgspec.json.Encoder().encode


class _Finished(msgspec.Struct, frozen=True):
    at: datetime
    request_id: str
    trace_id: str
    organization_id: str
    api_key_id: str
    deployment_id: str
    instance_id: str
    model: str
    endpoint: str
    streamed: bool
    status: int
    outcome: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    attempts: int
    queue_ms: float
    ttft_ms: float | None
    duration_ms: float


class _Refused(msgspec.Struct, frozen=True):
    at: datetime
    request_id: str
    trace_id: str
    status: int
    refused: str


class _Dropped(msgspec.Struct, frozen=True):
    at: datetime
    dropped_lines: int


class AccessLog:
    """Takes lines at once and never waits; `run` must be running for them to leave.

    Args:
        write: where they go.
        now: UTC.
    """

    def __init__(self, write: Write, *, now: Callable[[], datetime]) -> None:
        self._write = write
        self._now = now
        self._lines: list[bytes] = []
        self._buffered_bytes = 0
        self._untold = 0
        self.dropped_lines = 0

    def finished(self, record: UsageRecord, trace_id: str) -> None:
        """A request that reached a worker has ended, however."""
        self._take(
            _Finished(
                record.at,
                record.request_id,
                trace_id,
                record.organization_id,
                record.api_key_id,
                record.deployment_id,
                record.instance_id,
                record.model_code,
                record.endpoint,
                record.streamed,
                record.status_code,
                record.outcome,
                record.prompt_tokens,
                record.completion_tokens,
                record.cached_tokens,
                record.attempts,
                record.queue_ms,
                record.ttft_ms,
                record.duration_ms,
            )
        )

    def refused(self, code: str, status: int, *, request_id: str = "", trace_id: str = "") -> None:
        """The gateway itself answered with an error, and no worker was asked."""
        self._take(_Refused(self._now(), request_id, trace_id, status, code))

    async def run(self) -> None:
        """Writes once per interval until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.flush()

    async def flush(self) -> None:
        """Writes what is there, in one call; also the last call of a stopping gateway."""
        if self._untold:
            line = _encode(_Dropped(self._now(), self._untold)) + b"\n"
            self._lines.append(line)
            self._buffered_bytes += len(line)
            self._untold = 0
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        joined = b"".join(lines)
        try:
            await asyncio.to_thread(self._write, joined)
        except OSError as error:
            self._drop(len(lines))
            log.warning("access_log_not_written", lines=len(lines), reason=str(error))
        finally:
            self._buffered_bytes -= len(joined)  # not before: what is being written takes up memory too

    def _take(self, line: _Finished | _Refused) -> None:
        if self._buffered_bytes >= MAX_BUFFERED_BYTES:
            self._drop(1)
            return
        encoded = _encode(line) + b"\n"
        self._lines.append(encoded)
        self._buffered_bytes += len(encoded)

    def _drop(self, lines: int) -> None:
        self._untold += lines
        self.dropped_lines += lines
