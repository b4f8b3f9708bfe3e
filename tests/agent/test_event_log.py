"""The diary: bounded on disk, readable after a crash, silent about what repeats itself."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agent.event_log import EventLog, RotatingFile


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    events = EventLog(RotatingFile(tmp_path / "events.log", max_lines=10), worker_id="w", instance_id="i")
    yield events
    events.close()


def messages(log: EventLog, **narrowed: object) -> list[str]:
    return [event.message for event in log.read(**narrowed)[1]]  # type: ignore[arg-type] # tail and since, as given


def test_an_event_says_when_what_and_who(log: EventLog) -> None:
    log.record("agent_started", "hello", version="1")
    total, [event] = log.read()
    assert total == 1
    assert (event.event_type, event.message, event.details) == ("agent_started", "hello", {"version": "1"})
    assert (event.worker_id, event.instance_id) == ("w", "i")
    assert datetime.now(UTC) - datetime.fromisoformat(event.timestamp) < timedelta(minutes=1)


def test_only_the_tail_is_read(log: EventLog) -> None:
    for number in range(5):
        log.record("agent_started", str(number))
    assert messages(log, tail=2) == ["3", "4"]
    assert messages(log, tail=0) == []


def test_only_what_came_since_is_read(log: EventLog) -> None:
    log.record("agent_started", "now")
    assert messages(log, since=datetime.now(UTC) - timedelta(minutes=1)) == ["now"]
    assert messages(log, since=datetime.now(UTC) + timedelta(minutes=1)) == []


def test_the_file_rotates_by_lines_and_keeps_one_older_one(log: EventLog) -> None:
    for number in range(25):
        log.record("agent_started", str(number))
    assert messages(log) == [str(number) for number in range(10, 25)]
    assert sorted(path.name for path in log.path.parent.iterdir()) == ["events.log", "events.log.1"]


def test_the_file_rotates_by_size(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "engine.log", max_bytes=100)
    for _ in range(5):
        file.append(b"x" * 40)
    file.close()
    assert file.path.stat().st_size == 40
    assert file.rotated.stat().st_size == 80


def test_lines_of_a_former_life_count(tmp_path: Path) -> None:
    (tmp_path / "events.log").write_bytes(b"{}\n" * 10)
    file = RotatingFile(tmp_path / "events.log", max_lines=10)
    file.append(b"{}\n")
    file.close()
    assert file.path.read_bytes() == b"{}\n"


def test_a_half_written_line_is_passed_over(log: EventLog) -> None:
    log.record("agent_started", "whole")
    with log.path.open("ab") as file:
        file.write(b'{"timestamp":"2026')
    assert messages(log) == ["whole"]


def test_what_repeats_itself_is_written_once(log: EventLog) -> None:
    for message in ("same", "same", "other", "same"):
        log.record("heartbeat_failed", message, repeat_after_s=60)
    assert messages(log) == ["same", "other", "same"]
