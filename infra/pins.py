"""Writes `constraint-dependencies` into pyproject.toml: every package of a fresh resolution, by name and version.

A lock file would record where each file came from; names and versions alone are enough for uv to resolve the same set.
Run through `just pins` after a dependency changed, then look at the difference before committing it.
"""

import re
import subprocess
import sys
from pathlib import Path

PYPROJECT = Path("pyproject.toml")
RESOLVE_TIMEOUT_S = 300
_BLOCK = re.compile(r"^constraint-dependencies = \[\n(?:.*\n)*?\]\n", re.MULTILINE)


def resolved() -> list[str]:
    """`name==version` of everything that the project and its groups need, on every platform, markers kept."""
    command = [
        "uv",
        "pip",
        "compile",
        "pyproject.toml",
        "--universal",
        "--all-extras",
        "--group",
        "dev",
        "--group",
        "qa",
    ]
    command += ["--no-header", "--no-annotate", "--no-emit-index-url", "--upgrade", "--quiet"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=RESOLVE_TIMEOUT_S)  # noqa: S603 - fixed words
    return [line.strip() for line in done.stdout.splitlines() if "==" in line]


def with_pins(text: str, pins: list[str]) -> str:
    lines = "".join(f'    "{pin.replace(chr(34), chr(39))}",\n' for pin in pins)
    return _BLOCK.sub(lambda _: f"constraint-dependencies = [\n{lines}]\n", text)


def main() -> int:
    text = PYPROJECT.read_text(encoding="utf-8")
    if not _BLOCK.search(text):
        print("pyproject.toml has no constraint-dependencies block to write into", file=sys.stderr)
        return 1
    PYPROJECT.write_text(_BLOCK.sub("constraint-dependencies = [\n]\n", text), encoding="utf-8")
    try:
        pins = resolved()
    except (OSError, subprocess.SubprocessError):
        PYPROJECT.write_text(text, encoding="utf-8")
        raise
    PYPROJECT.write_text(with_pins(text, pins), encoding="utf-8")
    print(f"{len(pins)} packages pinned")
    return 0


if __name__ == "__main__":
    sys.exit(main())
