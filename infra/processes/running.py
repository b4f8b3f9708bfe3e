"""What `inventiv up` runs now, written down for other commands on the same data folder: run/platform.json.

Light to import: every command of the CLI reads it. The surprising rule: the file of a killed `up` stays behind, so what
it names counts only when a process with that pid *and* that start time lives.
"""

import os
from pathlib import Path
from typing import Literal

import msgspec
import psutil

START_TIME_TOLERANCE_S = 0.5
"""A start time is computed from the machine's boot time, which moves a little when its clock is set."""

ChildState = Literal["starting", "running", "restarting", "finishing", "stopped"]


class ChildView(msgspec.Struct, frozen=True, kw_only=True):
    """A child of `inventiv up`.

    Attributes:
        pid: None while none runs.
        created_at: the process's start in seconds since the epoch; with the pid it names one process for ever.
        restarts: how often it was started again since `inventiv up`.
    """

    pid: int | None
    created_at: float | None
    state: ChildState
    restarts: int


class Roll(msgspec.Struct, frozen=True, kw_only=True):
    """The latest change of the gateway for a new process.

    Attributes:
        number: counts up from 1 since `inventiv up`.
        reason: why it failed, and the old process serves on.
    """

    number: int = 0
    state: Literal["none", "starting", "done", "failed"] = "none"
    reason: str = ""


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    """A running `inventiv up`. Its URLs hold passwords: the file is private, and `status` shows them without.

    Attributes:
        pid, created_at: the supervisor.
        roles: web, gateway, handlers, projections, tunnel.
        servers: nats (of a cluster nats-1, nats-2 ...), postgres.
        finishing: processes that were replaced and have not ended yet, by name and pid.
        gateway_roll: None from an `up` that cannot replace its gateway.
        nats_admin_url: may create streams; for commands that repair.
        nats_replicas: copies that each stream must have.
    """

    pid: int
    created_at: float
    state: Literal["starting", "running", "stopping"]
    data_dir: str
    secrets_dir: str
    api_url: str
    gateway_url: str
    nats_url: str
    nats_admin_url: str = ""
    nats_monitor_url: str
    nats_replicas: int = 1
    postgres_url: str
    admin_username: str
    admin_password_file: str
    roles: dict[str, ChildView] = {}
    servers: dict[str, ChildView] = {}
    finishing: dict[str, ChildView] = {}
    gateway_roll: Roll | None = None


def read_platform(data_dir: Path) -> Platform | None:
    """What runs on the folder now; None when nothing does."""
    platform = last_platform(data_dir)
    return platform if platform is not None and is_alive(platform.pid, platform.created_at) else None


def last_platform(data_dir: Path) -> Platform | None:
    """What the last `up` wrote and did not take back, whether it lives or not."""
    try:
        return msgspec.json.decode(_path(data_dir).read_bytes(), type=Platform)
    except (OSError, msgspec.DecodeError):
        return None


def write_platform(platform: Platform) -> None:
    write_private(_path(Path(platform.data_dir)), msgspec.json.encode(platform))


def remove_platform(data_dir: Path) -> None:
    _path(data_dir).unlink(missing_ok=True)


def is_alive(pid: int | None, created_at: float | None) -> bool:
    """Whether exactly this process lives: a number alone may be somebody else's by now."""
    if pid is None or created_at is None:
        return False
    try:
        process = psutil.Process(pid)
        same = abs(float(process.create_time()) - created_at) < START_TIME_TOLERANCE_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def write_private(path: Path, content: bytes) -> None:
    """Whole or not at all, for its owner's eyes alone."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    draft.replace(path)


def _path(data_dir: Path) -> Path:
    return data_dir / "run" / "platform.json"
