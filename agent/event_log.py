"""The agent's own diary: one JSON line per event, in a file that rotates, served back at /logs.

    record(type, message) ──> worker-events.log ──at 10 MB or 10,000 lines──> worker-events.log.1   (an older one goes)

The surprising rule: what repeats itself is written once per REPEAT_SUCCESS_S or REPEAT_FAILURE_S, so that a beat every
five seconds does not push the interesting lines out. No line ever holds a token.
"""

import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

MAX_FILE_BYTES = 10_000_000
MAX_FILE_LINES = 10_000
MAX_TAIL_LINES = 2 * MAX_FILE_LINES
DEFAULT_TAIL_LINES = 1000

REPEAT_SUCCESS_S = 300.0
REPEAT_FAILURE_S = 60.0

EventType = Literal[
    "agent_started",
    "agent_draining",
    "agent_stopped",
    "http_server_started",
    "engine_started",
    "engine_exited",
    "register_start",
    "register_success",
    "register_failed",
    "register_exception",
    "heartbeat_success",
    "heartbeat_failed",
    "heartbeat_exception",
    "heartbeat_skipped",
    "token_rotated",
    "token_rotation_failed",
    "dead_man",
    "power_off",
    "power_off_failed",
    "tunnel_parked",
    "tunnel_failed",
    "vllm_ready",
    "vllm_not_ready",
    "vllm_check_failed",
    "vllm_check_exception",
]


class LoggedEvent(msgspec.Struct, frozen=True):
    timestamp: str
    event_type: str
    message: str
    worker_id: str
    instance_id: str
    details: dict[str, Any] = {}


class RotatingFile:
    """Appends bytes to `path`; when a limit is reached, what was there becomes `path`.1."""

    def __init__(self, path: Path, *, max_bytes: int = MAX_FILE_BYTES, max_lines: int = MAX_FILE_LINES) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.rotated = path.with_name(f"{path.name}.1")
        self._max_bytes = max_bytes
        self._max_lines = max_lines
        self._file = path.open("ab")
        self._bytes = self._file.tell()
        self._lines = sum(1 for _ in _lines_of(path))

    def append(self, content: bytes) -> None:
        if self._bytes + len(content) > self._max_bytes or self._lines >= self._max_lines:
            self._rotate()
        self._file.write(content)
        self._file.flush()
        self._bytes += len(content)
        self._lines += content.count(b"\n")

    def close(self) -> None:
        self._file.close()

    def _rotate(self) -> None:
        self._file.close()
        self.path.replace(self.rotated)
        self._file = self.path.open("ab")
        self._bytes = self._lines = 0


class EventLog:
    """Writes events to their file, and one short line each to standard error for whoever watches the process."""

    def __init__(self, file: RotatingFile, *, worker_id: str, instance_id: str) -> None:
        self._file = file
        self._worker_id = worker_id
        self._instance_id = instance_id
        self._last: dict[str, tuple[str, float]] = {}

    @property
    def path(self) -> Path:
        return self._file.path

    def record(self, event_type: EventType, message: str, *, repeat_after_s: float = 0.0, **details: Any) -> None:
        """Writes one event; with `repeat_after_s`, not if the same was written less than that ago."""
        now = time.monotonic()
        said, at = self._last.get(event_type, ("", -repeat_after_s))
        if repeat_after_s and said == message and now - at < repeat_after_s:
            return
        self._last[event_type] = (message, now)
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        event = LoggedEvent(timestamp, event_type, message, self._worker_id, self._instance_id, details)
        self._file.append(msgspec.json.encode(event) + b"\n")
        print(f"{timestamp} {event_type}: {message}", file=sys.stderr, flush=True)

    def read(self, *, tail: int = DEFAULT_TAIL_LINES, since: datetime | None = None) -> tuple[int, list[LoggedEvent]]:
        """(events on disk, the last `tail` of those at or after `since`), oldest first."""
        total = 0
        kept: deque[LoggedEvent] = deque(maxlen=min(tail, MAX_TAIL_LINES))
        for line in (*_lines_of(self._file.rotated), *_lines_of(self._file.path)):
            total += 1
            event = _decoded(line)
            if event and (since is None or datetime.fromisoformat(event.timestamp) >= since):
                kept.append(event)
        return total, list(kept)

    def close(self) -> None:
        self._file.close()


def _lines_of(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return


def _decoded(line: bytes) -> LoggedEvent | None:
    """None for the half line that a crash left behind."""
    try:
        return msgspec.json.decode(line, type=LoggedEvent)
    except msgspec.MsgspecError:
        return None
