import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from infra.embedded import child
from infra.embedded.child import EmbeddedServerError, spawn, stop, wait_until

PYTHON = sys.executable


async def test_a_child_lives_in_a_session_of_its_own(tmp_path: Path) -> None:
    process = await spawn([PYTHON, "-c", "import time; time.sleep(60)"], env={}, log_path=tmp_path / "log")
    assert os.getsid(process.pid) != os.getsid(0)
    await stop(process)
    assert process.returncode == -signal.SIGTERM


async def test_a_child_gets_the_given_environment_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SECRET", "of the parent")
    program = "import os; print(sorted(os.environ.items()))"
    process = await spawn([PYTHON, "-I", "-c", program], env={"LC_ALL": "C"}, log_path=tmp_path / "log")
    assert await process.wait() == 0
    assert (tmp_path / "log").read_text().strip() == "[('LC_ALL', 'C')]"


async def test_a_child_that_ignores_the_polite_signal_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    )
    process = await spawn([PYTHON, "-c", program], env={}, log_path=tmp_path / "log")

    async def is_deaf() -> bool:
        return "deaf" in (tmp_path / "log").read_text()

    await wait_until(is_deaf, "the child", 10)
    assert await stop(process, grace_s=0.2) == -signal.SIGKILL
    assert await stop(process) == -signal.SIGKILL, "stopping twice is welcome"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_a_child_dies_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    parent_program = textwrap.dedent(f"""
        import asyncio, sys
        from pathlib import Path
        from infra.embedded.child import spawn

        async def main():
            sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
            child = await spawn(sleeper, env={{}}, log_path=Path({str(tmp_path / "log")!r}))
            print(child.pid, flush=True)
            await asyncio.sleep(60)

        asyncio.run(main())
    """)
    parent = subprocess.Popen([PYTHON, "-c", parent_program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        orphan = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait(10)
    _, alive = psutil.wait_procs([orphan], timeout=10)
    assert not alive or orphan.status() == psutil.STATUS_ZOMBIE


async def test_spawning_from_another_thread_is_refused(tmp_path: Path) -> None:
    def spawn_here() -> None:
        asyncio.run(spawn([PYTHON, "-c", ""], env={}, log_path=tmp_path / "log"))

    with pytest.raises(EmbeddedServerError, match="main thread"):
        await asyncio.to_thread(spawn_here)


async def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="cannot start no-such-program"):
        await spawn(["no-such-program"], env={}, log_path=tmp_path / "log")


async def test_an_unknown_account_is_named(tmp_path: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="'nobody-of-that-name'"):
        await spawn([PYTHON, "-c", ""], env={}, log_path=tmp_path / "log", user="nobody-of-that-name")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another account")
async def test_root_can_hand_a_child_to_another_account(tmp_path: Path) -> None:
    process = await spawn(["/usr/bin/id", "-un"], env={}, log_path=tmp_path / "log", user="nobody")
    assert await process.wait() == 0
    assert (tmp_path / "log").read_text().strip() == "nobody"


async def test_a_log_beyond_its_limit_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LOG_ROTATE_BYTES", 10)
    log_path = tmp_path / "log"
    log_path.write_text("longer than ten bytes")
    process = await spawn([PYTHON, "-c", "print('new')"], env={}, log_path=log_path)
    await process.wait()
    assert log_path.read_text() == "new\n"
    assert (tmp_path / "log.1").read_text() == "longer than ten bytes"
