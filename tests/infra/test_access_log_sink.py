"""Where access lines go: a file that may be moved away, or standard output that somebody may have stopped reading."""

import os
import select
import time
from pathlib import Path

import pytest

from infra import access_log_sink as sink
from infra.access_log_sink import access_log_sink, append_to_file, write_to_pipe

LINE = b'{"a":1}\n'


def test_off_is_no_sink_at_all() -> None:
    assert access_log_sink("off") is None


def test_a_file_is_appended_to_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "access.jsonl"
    write = access_log_sink(str(path))
    assert write is not None
    write(LINE)
    write(LINE * 2)
    assert path.read_bytes() == LINE * 3
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "access.jsonl"
    append_to_file(path, LINE)
    path.rename(tmp_path / "access.jsonl.1")
    append_to_file(path, LINE * 2)
    assert path.read_bytes() == LINE * 2


def test_a_file_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="directory"):
        access_log_sink(str(tmp_path))


def test_a_pipe_gets_whole_lines_in_pieces_that_no_other_writer_cuts() -> None:
    lines = b"".join(b"%d %s\n" % (number, b"x" * (number % 700)) for number in range(200))
    pieces = list(sink._pieces(lines))
    assert b"".join(pieces) == lines
    assert all(piece.endswith(b"\n") and len(piece) <= select.PIPE_BUF for piece in pieces)


def test_a_line_longer_than_a_pipe_takes_is_a_piece_of_its_own() -> None:
    long = b"x" * 3 * select.PIPE_BUF + b"\n"
    assert list(sink._pieces(LINE + long + LINE)) == [LINE, long, LINE]
    assert list(sink._pieces(b"no end")) == [b"no end"]


def test_a_pipe_gets_the_lines() -> None:
    reading, writing = os.pipe()
    write_to_pipe(writing, LINE * 3)
    assert os.read(reading, 1000) == LINE * 3
    os.close(reading)
    os.close(writing)


def test_a_pipe_that_nobody_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sink, "STDOUT_PATIENCE_S", 0.05)
    reading, writing = os.pipe()
    began_s = time.monotonic()
    with pytest.raises(TimeoutError):
        write_to_pipe(writing, LINE * 100_000)
    assert time.monotonic() - began_s < 5
    os.close(reading)
    os.close(writing)


def test_a_pipe_whose_reader_went_away_is_an_error_and_no_end() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(BrokenPipeError):
        write_to_pipe(writing, LINE)
    os.close(writing)
