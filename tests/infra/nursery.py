"""Children made by fork from one warm process, so that a test can kill fifty of them within two seconds.

Nursery(live) ──born("a", "b")──> a child runs live("a", "b") ──> ended() == its exit status, negative for a signal
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

BOUND_S = 60.0
PROGRAM = """
import importlib, os, sys
live = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(2, 1)
        try:
            live(*line.split())
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


class Nursery:
    """One child at a time.

    Args:
        live: a function of a module, given words without blanks.
    """

    def __init__(self, live: Callable[..., Any]) -> None:
        command = [sys.executable, "-c", PROGRAM, live.__module__, live.__name__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def born(self, *words: object) -> int:
        """The child's pid."""
        assert self._process.stdin is not None
        print(*words, file=self._process.stdin, flush=True)
        return int(self._line())

    def ended(self) -> int:
        return int(self._line())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate(timeout=BOUND_S)

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()


def whole_lines(said: Path) -> list[str]:
    """What the killed said to its end; a kill may cut the last line in the middle."""
    return [line for line in said.read_text().splitlines(keepends=True) if line.endswith("\n")]
