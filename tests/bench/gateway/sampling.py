"""`python sampling.py OUT`: our gateway, telling afterwards in which of its Python functions the time went.

    every tick of CPU time: SIGPROF ──> the running stack is counted ──> at the end OUT: own time, time with callees

Run by `just bench-gateway --profile`. A sample lands on the next line of Python, so time within C (a parser, a system
call) is its caller's. Costs some per cent itself: look at shares, never at absolute times.
"""

import atexit
import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

INTERVAL_S = 0.001
"""The kernel rounds it up to its tick, 4 ms on most machines."""
FIRST_S = 1.0
"""CPU time of the start, which is not looked at."""
SHOWN = 60

Place = tuple[str, int, str]
"""(file, first line, function)"""

_own: Counter[Place] = Counter()
_with_callees: Counter[Place] = Counter()


def main() -> None:
    out = Path(sys.argv[1])
    sys.path.pop(0)  # this folder; the gateway has modules of the same names
    sys.argv = ["inventiv", "serve", "gateway"]
    from infra.cli.main import main as inventiv  # found on the path as it is now

    atexit.register(lambda: out.write_text(report(_own, _with_callees)))
    signal.signal(signal.SIGPROF, _take)
    signal.setitimer(signal.ITIMER_PROF, FIRST_S, INTERVAL_S)
    inventiv()


def _take(_number: int, frame: FrameType | None) -> None:
    if frame is None:
        return
    _own[_place(frame)] += 1
    seen = set()
    while frame is not None:
        seen.add(_place(frame))
        frame = frame.f_back
    _with_callees.update(seen)


def _place(frame: FrameType) -> Place:
    code = frame.f_code
    return code.co_filename, code.co_firstlineno, code.co_name


def report(own: Counter[Place], with_callees: Counter[Place]) -> str:
    """Both lists, the greatest first, as shares of all samples."""
    total = max(1, sum(own.values()))
    lines = [f"{total} samples"]
    for title, counts in (("own time", own), ("with callees", with_callees)):
        lines += ["", title]
        for (file, line, name), count in counts.most_common(SHOWN):
            lines.append(f"{100 * count / total:6.2f} %  {'/'.join(Path(file).parts[-3:])}:{line} {name}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
