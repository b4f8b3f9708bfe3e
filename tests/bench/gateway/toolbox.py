"""The two programs in C, and other people's gateways, made ready in `.bench` at the top of the checkout.

    engine.c, load.c ──cc, or zig's from its wheel──> .bench/engine, .bench/load
    vllm-router, LiteLLM ──> a virtual environment each           nginx ──> the installed one, or the package unpacked

What is there is used again; what cannot be had says why. Versions are pinned, so that figures of two days compare. The
folder ignores itself in git.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import Sequence
from importlib.metadata import distributions
from pathlib import Path

Command = Sequence[object]
"""Its words; each as str() says it."""

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FOLDER = ROOT / ".bench"
PROGRAMS = ("engine", "load")
WHEELS = {
    "vllm-router": ("vllm-router==0.1.17",),
    "litellm": ("litellm[proxy]==1.106.2", "httptools", "uvloop"),
}
"""httptools beside LiteLLM: uvicorn parses in Python without it, which would be an unfair comparison."""
ZIG = ("ziglang==0.17.0",)
PREPARE_S = 600.0
TAIL_CHARS = 400


class MissingError(RuntimeError):
    """A program cannot be had here; the message says why and what would help."""


async def build_programs() -> None:
    """Compiles engine.c and load.c, unless that is done already.

    Raises:
        MissingError: no C compiler, none from the package index either, or it refused the sources.
    """
    make_folder()
    for name in PROGRAMS:
        source, program = HERE / f"{name}.c", FOLDER / name
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            draft = program.with_suffix(".new")
            await _run([*await _compiler(), "-O2", "-o", draft, source], f"compiling {source.name}")
            draft.replace(program)


async def _compiler() -> Command:
    for name in ("cc", "gcc", "clang"):
        if found := shutil.which(name):
            return [found]
    try:
        return [await _virtual_environment("zig", ZIG) / "python", "-m", "ziglang", "cc"]
    except MissingError as error:
        raise MissingError(f"no C compiler: install one (cc, gcc or clang); the substitute failed, {error}") from error


def is_prepared(contender: str) -> bool:
    """Whether it can be started without downloading anything."""
    if contender in WHEELS:
        return (FOLDER / contender / "bin" / contender).exists()
    return shutil.which("nginx") is not None or _unpacked_nginx().exists()


async def wheel_program(contender: str) -> Path:
    """The command of one of WHEELS.

    Raises:
        MissingError: its package cannot be installed.
    """
    return await _virtual_environment(contender, WHEELS[contender]) / contender


async def python_like_ours(interpreter: Path) -> Path:
    """A virtual environment's python of another interpreter, with the very distributions that we run on.

    Raises:
        MissingError: they cannot be installed there.
    """
    ours = {d.metadata["Name"]: d.version for d in distributions() if not d.read_text("direct_url.json")}
    packages = tuple(f"{name}=={version}" for name, version in sorted(ours.items()))
    return await _virtual_environment("python", packages, interpreter) / "python"


async def nginx_program() -> Path:
    """The installed one, or the distribution's package unpacked beside us, which needs no root.

    Raises:
        MissingError: neither.
    """
    if found := shutil.which("nginx"):
        return Path(found)
    program = _unpacked_nginx()
    if program.exists():
        return program
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        raise MissingError("nginx is not installed, and this is no Debian from whose packages it could be taken")
    folder = make_folder() / "nginx"
    with tempfile.TemporaryDirectory(prefix="inventiv-bench-") as place:
        await _run(["apt-get", "download", "nginx"], "apt-get download nginx (is `apt-get update` needed?)", place)
        for package in _packages(place):
            await _run(["dpkg", "-x", package, folder], "unpacking nginx")
    if not program.exists():
        raise MissingError("the nginx package holds no nginx")
    return program


def _packages(folder: str) -> Sequence[Path]:
    return tuple(Path(folder).glob("nginx_*.deb"))


def make_folder() -> Path:
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    return FOLDER


def _unpacked_nginx() -> Path:
    return FOLDER / "nginx" / "usr" / "sbin" / "nginx"


async def _virtual_environment(name: str, packages: Sequence[str], interpreter: str | Path = sys.executable) -> Path:
    """The `bin` of one that holds these packages; made whole or not at all."""
    folder = make_folder() / name
    finished = folder / "finished"
    wanted = "\n".join((str(interpreter), *packages))
    if not finished.exists() or finished.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        uv, python = shutil.which("uv"), folder / "bin" / "python"
        make = [uv, "venv", "-q", "--python", interpreter, folder] if uv else [interpreter, "-m", "venv", folder]
        pip = [uv, "pip", "install", "-q", "--python", python] if uv else [python, "-m", "pip", "install", "-q"]
        await _run(make, f"making a virtual environment for {name}")
        await _run([*pip, *packages], f"installing {', '.join(packages)}")
        finished.write_text(wanted)
    return folder / "bin"


async def _run(command: Command, doing: str, folder: str = "/") -> None:
    """Away from the checkout, whose pyproject would bind what is installed to our own versions.

    Raises:
        MissingError: it failed, or took longer than PREPARE_S.
    """
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    process = await asyncio.create_subprocess_exec(
        *map(str, command), cwd=folder, env=environment, stdout=PIPE, stderr=STDOUT
    )
    try:
        async with asyncio.timeout(PREPARE_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise MissingError(f"{doing}: not done within {PREPARE_S:.0f} s") from None
    if process.returncode:
        tail = output.decode(errors="replace").strip()[-TAIL_CHARS:]
        raise MissingError(f"{doing}: {tail or process.returncode}")
