"""Usage records on disk: in order, once while it lives, again after a crash, never lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.spool import FileSpool, SpoolInUseError


def drained(spool: FileSpool, batch: int = 3) -> list[bytes]:
    seen: list[bytes] = []
    while lines := spool.oldest(batch):
        seen += lines
        spool.remove(len(lines))
    return seen


def left_by_a_crash(folder: Path, *records: bytes) -> None:
    """A spool whose process ended without `close`, or rather: whose memory of what was removed is gone."""
    spool = FileSpool(folder)
    for record in records:
        spool.append([record])
    spool.close()


def test_records_come_back_in_order_and_once(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    for number in range(10):
        spool.append([b"%d" % number])
    assert drained(spool) == [b"%d" % number for number in range(10)]
    assert drained(spool) == []
    spool.close()


def test_what_is_not_removed_is_shown_again(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    spool.append([b"a"])
    spool.append([b"b"])
    assert spool.oldest(5) == spool.oldest(5) == [b"a", b"b"]
    spool.remove(1)
    assert spool.oldest(5) == [b"b"]
    spool.close()


def test_leftovers_come_before_new_records(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path, b"old 1", b"old 2")
    spool = FileSpool(tmp_path)
    spool.append([b"new"])
    assert drained(spool) == [b"old 1", b"old 2", b"new"]
    spool.close()


def test_an_empty_spool_leaves_no_file_of_records(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    spool.append([b"a"])
    drained(spool)
    spool.close()
    assert list(tmp_path.glob("usage-*")) == []


def test_a_line_torn_by_a_power_cut_is_skipped(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path, b"whole")
    with next(tmp_path.glob("usage-*")).open("ab") as segment:
        segment.write(b'{"torn')
    spool = FileSpool(tmp_path)
    spool.append([b"new"])
    assert drained(spool) == [b"whole", b"new"]
    assert spool.size_bytes == 0
    spool.close()


def test_a_killed_process_loses_no_record(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from infra.spool import FileSpool\n"
        "spool = FileSpool(pathlib.Path(sys.argv[1]))\n"
        "for n in range(1000): spool.append([b'%d' % n])\n"
        "print('written', flush=True); sys.stdin.read()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"written\n"
        os.kill(child.pid, signal.SIGKILL)
    spool = FileSpool(tmp_path)
    assert drained(spool, 100) == [b"%d" % n for n in range(1000)]
    spool.close()


def test_two_gateways_never_share_a_folder(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path)
    with pytest.raises(SpoolInUseError, match="another gateway"):
        FileSpool(tmp_path)
    spool.close()
    FileSpool(tmp_path).close()


def test_it_is_full_at_its_bound_and_not_after_removal(tmp_path: Path) -> None:
    spool = FileSpool(tmp_path, max_bytes=10)
    fullness = []
    for record in (b"12345678", b"x"):
        spool.append([record])
        fullness.append(spool.is_full)
    spool.remove(len(spool.oldest(1)))
    assert [*fullness, spool.is_full] == [False, True, False]
    spool.close()


def test_a_record_that_cannot_be_written_raises_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = FileSpool(tmp_path)
    spool.append([b"before"])
    with monkeypatch.context() as patched:
        write = os.write
        patched.setattr(os, "write", lambda fd, data: write(fd, data[:3]))
        with pytest.raises(OSError, match="took 3 of"):
            spool.append([b"on a full disk"])
    spool.append([b"after"])
    assert drained(spool) == [b"before", b"after"]
    spool.close()


def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    left_by_a_crash(tmp_path / "spool", b"a")
    assert [path.stat().st_mode & 0o077 for path in (tmp_path / "spool").iterdir()] == [0, 0]


@given(
    steps=st.lists(
        st.one_of(st.binary(min_size=1, max_size=40).map(bytes.hex), st.integers(1, 5), st.just("sync")), max_size=60
    )
)
def test_any_order_of_writing_removing_and_syncing_keeps_the_queue(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str | int]
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = FileSpool(folder, segment_bytes=100)
    expected: list[bytes] = []
    for step in steps:
        if step == "sync":
            spool.sync()
        elif isinstance(step, str):
            spool.append([step.encode()])
            expected.append(step.encode())
        else:
            shown = spool.oldest(step)
            assert list(shown) == expected[: len(shown)]
            assert bool(shown) == bool(expected)
            spool.remove(len(shown))
            del expected[: len(shown)]
        assert spool.size_bytes >= sum(len(record) + 1 for record in expected)
    spool.close()
    again = FileSpool(folder)
    assert drained(again)[-len(expected) :] == expected if expected else True
    again.close()
