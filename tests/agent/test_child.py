"""No way leads to a stray engine: whoever dies, and however."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest

from agent.child import Child, end_left_over, own_command
from agent.event_log import RotatingFile
from tests.agent.stand_in import ROOT, eventually

SLEEPER = (sys.executable, "-c", "import time; print('awake', flush=True); time.sleep(60)")
STUBBORN = (
    sys.executable,
    "-c",
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('awake', flush=True); time.sleep(60)",
)
START_AND_LEAVE = """\
import subprocess, sys
sleeper = [sys.executable, '-c', 'import time; time.sleep(60)']
print(subprocess.Popen(sleeper, start_new_session='alone' in sys.argv).pid, flush=True)
"""
WITH_GRANDCHILD = (sys.executable, "-c", START_AND_LEAVE)


@pytest.fixture
async def child(tmp_path: Path) -> AsyncIterator[Child]:
    log = RotatingFile(tmp_path / "engine.log")
    child = Child(pid_file=tmp_path / "engine.pid", log=log)
    yield child
    await child.stop(0)
    log.close()


def output(folder: Path) -> str:
    return (folder / "engine.log").read_text()


def alive(pid: int) -> bool:
    """A zombie is dead: only its parent has not looked yet."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def test_its_output_is_kept_and_its_end_is_noticed(child: Child, tmp_path: Path) -> None:
    await child.start((sys.executable, "-c", "print('said'); raise SystemExit(3)"), os.environ)
    assert await child.wait() == 3
    assert not child.running
    assert output(tmp_path) == "said\n"


async def test_stopping_asks_politely_first(child: Child, tmp_path: Path) -> None:
    await child.start(SLEEPER, os.environ)
    await eventually(lambda: "awake" in output(tmp_path))
    await child.stop(10)
    assert await child.wait() == -signal.SIGTERM
    assert not (tmp_path / "engine.pid").exists()


async def test_who_does_not_listen_is_killed(child: Child, tmp_path: Path) -> None:
    await child.start(STUBBORN, os.environ)
    await eventually(lambda: "awake" in output(tmp_path))
    await child.stop(0.05)
    assert await child.wait() == -signal.SIGKILL


async def test_what_an_ended_child_left_in_its_group_is_ended(child: Child, tmp_path: Path) -> None:
    await child.start(WITH_GRANDCHILD, os.environ)
    await child.wait()
    await eventually(lambda: bool(output(tmp_path)))
    await eventually(lambda: not alive(int(output(tmp_path))))


async def test_a_left_over_of_a_former_agent_is_ended_before_the_start(child: Child, tmp_path: Path) -> None:
    former = await asyncio.create_subprocess_exec(*WITH_GRANDCHILD, "alone", stdout=asyncio.subprocess.PIPE)
    assert former.stdout is not None
    left_over = int(await former.stdout.readline())
    started_at = psutil.Process(left_over).create_time()
    (tmp_path / "engine.pid").write_text(f'{{"pid":{left_over},"started_at":{started_at}}}')
    await child.start(SLEEPER, os.environ)
    assert not alive(left_over)
    assert child.running
    await former.wait()


@pytest.mark.parametrize("content", [b"", b"{", b'{"pid":1,"started_at":0}', b'{"pid":999999999,"started_at":0}'])
def test_a_pid_file_that_names_nobody_of_ours_is_not_believed(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "engine.pid").write_bytes(content)
    assert not end_left_over(tmp_path / "engine.pid")


async def test_a_reused_pid_is_not_killed(child: Child, tmp_path: Path) -> None:
    pid = await child.start(SLEEPER, os.environ)
    other = tmp_path / "other.pid"
    other.write_text(f'{{"pid":{pid},"started_at":1000}}')
    assert not end_left_over(other)
    assert child.running


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
async def test_a_command_run_by_exec_dies_with_its_parent(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys, time\n"
        "child = subprocess.Popen([*sys.argv[1:5], 'exec', str(os.getpid()), *sys.argv[5:]])\n"
        "print(child.pid, flush=True); time.sleep(60)\n"
    )
    marker = tmp_path / "awake"
    sleeper = (sys.executable, "-c", f"import pathlib, time; pathlib.Path({str(marker)!r}).touch(); time.sleep(60)")
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, *own_command(), *sleeper, stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    await eventually(marker.exists)
    parent.kill()
    await parent.wait()
    await eventually(lambda: not alive(pid))


async def test_a_command_whose_parent_is_gone_already_does_not_start() -> None:
    process = await asyncio.create_subprocess_exec(*own_command("exec", "1234567", sys.executable, "-c", ""))
    assert await process.wait() == 1
