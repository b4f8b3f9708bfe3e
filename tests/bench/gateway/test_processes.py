"""What a process and its children used, as the kernel tells it."""

import os
import sys
import time
from pathlib import Path

import pytest

from tests.bench.gateway.processes import cpu_ns, family, on_core, parse_schedstat, resident_mb, start


def threads(proc: Path, pid: int, **ran: str) -> None:
    for thread, text in ran.items():
        folder = proc / str(pid) / "task" / thread.removeprefix("t")
        folder.mkdir(parents=True)
        (folder / "schedstat").write_text(text)


def test_a_thread_ran_the_first_of_three_numbers() -> None:
    assert parse_schedstat("47653020 1200 33\n") == 47_653_020


def test_all_threads_of_all_processes_count(tmp_path: Path) -> None:
    threads(tmp_path, 10, t10="5 0 1\n", t11="7 0 1\n")
    threads(tmp_path, 20, t20="100 0 1\n")
    assert cpu_ns([10, 20], tmp_path) == 112


def test_a_process_that_has_ended_counts_nothing(tmp_path: Path) -> None:
    threads(tmp_path, 10, t10="5 0 1\n")
    assert cpu_ns([10, 30], tmp_path) == 5


def test_our_own_time_grows_with_our_work() -> None:
    before_ns, ends_s = cpu_ns([os.getpid()]), time.process_time() + 0.05
    while time.process_time() < ends_s:
        pass
    assert cpu_ns([os.getpid()]) - before_ns > 40_000_000


def test_nobody_has_no_family_and_no_memory() -> None:
    assert (family(0), resident_mb([])) == ([], 0.0)
    assert os.getpid() in family(os.getpid())


async def test_what_is_started_on_a_core_stays_there_and_we_do_not(tmp_path: Path) -> None:
    ours, core = os.sched_getaffinity(0), max(os.sched_getaffinity(0))
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import os; print(sorted(os.sched_getaffinity(0)))"]
    process = await start(command, core=core, log=log, variables={})
    assert await process.wait() == 0
    assert log.read_text().strip() == f"[{core}]"
    assert os.sched_getaffinity(0) == ours


def test_a_core_is_given_back_even_after_an_error() -> None:
    ours = os.sched_getaffinity(0)
    with pytest.raises(KeyError), on_core(max(ours)):
        raise KeyError
    assert os.sched_getaffinity(0) == ours
