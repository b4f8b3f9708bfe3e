"""The files of the local provider: one folder is one server.

    <root>/local-<hash>/     server.json  process.json  bootstrap_token  agent.pyz  agent.log  state/  home/
                             powered_off: its agent's own word that the machine went off
    <root>/locks/            one lock file a server; the kernel frees a lock when its process dies
    <root>/deleted/          the newest KEPT_DELETED folders of deleted servers, for whoever asks why

A server comes into being by one rename of a finished folder, and ends by another: there is no half a server. Its id
derives from its name, so creating it twice meets the same folder. The surprising rule: what cannot be read is not
absent.
"""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Literal
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from handlers.cloud_ports import CloudUnavailableError

ID_PREFIX = "local-"
KEPT_DELETED = 20
LOCK_TIMEOUT_S = 20.0
"""Longer than ending a process may take."""
LOCK_POLL_S = 0.02
PRIVATE_FILE = 0o600
PRIVATE_FOLDER = 0o700


class ServerRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a server; its bootstrap token lies in a file of its own.

    Attributes:
        power: "on" means that its agent shall run, also after this machine was restarted.
        address, agent_port, engine_port: where its agent and its engine listen.
    """

    provider_instance_id: str
    name: str
    tags: dict[str, str]
    zone: str
    instance_type: str
    environment: dict[str, str]
    address: str
    agent_port: int
    engine_port: int
    power: Literal["off", "on"] = "off"


class ProcessIdentity(msgspec.Struct, frozen=True):
    """A process for certain: pids are used again, a pid with its start time is not."""

    pid: int
    started_at: float


class ServerFolder:
    """The paths of one server."""

    def __init__(self, root: Path, server_id: str) -> None:
        self.path = root / server_id
        self.record = self.path / "server.json"
        self.process = self.path / "process.json"
        self.token = self.path / "bootstrap_token"
        self.archive = self.path / "agent.pyz"
        self.log = self.path / "agent.log"
        self.state = self.path / "state"
        self.home = self.path / "home"
        self.powered_off = self.path / "powered_off"


def server_id_of(name: str) -> str:
    return f"{ID_PREFIX}{sha256(name.encode()).hexdigest()[:16]}"


class LocalFiles:
    """Reads and changes the folders under `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, server_id: str) -> ServerFolder:
        return ServerFolder(self.root, server_id)

    def find(self, server_id: str) -> ServerRecord | None:
        """The record; None when there certainly is no such server.

        Raises:
            CloudUnavailableError: the root or the record cannot be read, or is damaged.
        """
        self._check_root()
        folder = self.folder(server_id)
        try:
            if not folder.path.exists():
                return None
            record = msgspec.json.decode(folder.record.read_bytes(), type=ServerRecord)
            return replace(record, power="off") if folder.powered_off.exists() else record
        except FileNotFoundError:
            if not folder.path.exists():  # deleted between the two looks
                return None
            raise CloudUnavailableError(f"{folder.record} is missing in a server's folder") from None
        except (OSError, msgspec.MsgspecError) as error:
            raise CloudUnavailableError(f"{folder.record} cannot be read: {error}") from error

    def ids(self) -> list[str]:
        """Every server, readable or not; raises CloudUnavailableError when the root cannot be listed."""
        self._check_root()
        with _translated(f"list {self.root}"):
            return sorted(entry.name for entry in self.root.iterdir() if entry.name.startswith(ID_PREFIX))

    def all(self) -> list[ServerRecord]:
        """Every server; raises CloudUnavailableError rather than leave one out."""
        return [record for server_id in self.ids() if (record := self.find(server_id)) is not None]

    def readable(self) -> list[ServerRecord]:
        """Every server whose record can be read."""
        found = []
        for server_id in self.ids():
            with contextlib.suppress(CloudUnavailableError):
                found.append(self.find(server_id))
        return [record for record in found if record is not None]

    def create(self, record: ServerRecord, *, token: str, archive: Path) -> None:
        """Makes the whole folder beside its place, then moves it there in one step."""
        draft = ServerFolder(self.root, f".draft-{uuid4().hex}")
        with _translated(f"create {record.name}"):
            for folder in (draft.path, draft.state, draft.home):
                folder.mkdir(mode=PRIVATE_FOLDER, parents=True)
            shutil.copyfile(archive, draft.archive)
            write_private(draft.token, token.encode())
            write_private(draft.record, msgspec.json.encode(record))
            draft.path.rename(self.folder(record.provider_instance_id).path)

    def write(self, record: ServerRecord) -> None:
        folder = self.folder(record.provider_instance_id)
        with _translated(f"write {record.name}"):
            write_private(folder.record, msgspec.json.encode(record))
            if record.power == "on":
                folder.powered_off.unlink(missing_ok=True)

    def renew(self, server_id: str, *, archive: Path) -> None:
        """Empties what the agent wrote and gives it today's program; the agent must have ended."""
        folder = self.folder(server_id)
        with _translated(f"reinstall {server_id}"):
            for path in (folder.state, folder.home):
                shutil.rmtree(path, ignore_errors=True)
                path.mkdir(mode=PRIVATE_FOLDER)
            shutil.copyfile(archive, folder.archive)
            folder.powered_off.unlink(missing_ok=True)

    def remove(self, server_id: str) -> None:
        """Moves the folder out of sight; without its secret."""
        folder = self.folder(server_id)
        deleted = self.root / "deleted"
        with _translated(f"delete {server_id}"):
            deleted.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
            folder.token.unlink(missing_ok=True)
            folder.path.rename(deleted / f"{time.time_ns()}-{server_id}")
            for old in sorted(deleted.iterdir())[:-KEPT_DELETED]:
                shutil.rmtree(old, ignore_errors=True)

    def identity(self, server_id: str) -> ProcessIdentity | None:
        try:
            return msgspec.json.decode(self.folder(server_id).process.read_bytes(), type=ProcessIdentity)
        except (OSError, msgspec.MsgspecError):
            return None  # whoever needs to know then looks among the running processes

    def remember(self, server_id: str, identity: ProcessIdentity) -> None:
        with _translated(f"remember the process of {server_id}"):
            write_private(self.folder(server_id).process, msgspec.json.encode(identity))

    @contextlib.contextmanager
    def locked(self, name: str, *, wait_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
        """Alone with `name`, across processes and threads.

        Raises:
            CloudUnavailableError: another one kept it for longer than wait_s.
        """
        lock = self.try_lock(name)
        deadline = time.monotonic() + wait_s
        while lock is None:
            if time.monotonic() >= deadline:
                raise CloudUnavailableError(f"another process keeps {name} locked")
            time.sleep(LOCK_POLL_S)
            lock = self.try_lock(name)
        try:
            yield
        finally:
            os.close(lock)

    def try_lock(self, name: str) -> int | None:
        """A file descriptor that holds the lock until it is closed, by us or by our death; None when another has it."""
        with _translated(f"lock {name}"):
            folder = self.root / "locks"
            folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)  # never the root: one that is lost must not look empty
            lock = os.open(folder / f"{name}.lock", os.O_CREAT | os.O_RDWR, PRIVATE_FILE)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(lock)
                return None
            return lock

    def _check_root(self) -> None:
        if not self.root.is_dir():
            raise CloudUnavailableError(f"{self.root} is not there; without it nothing is known about local servers")


def write_private(path: Path, content: bytes) -> None:
    """Old or new, never half: also after a crash."""
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_FILE), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


@contextlib.contextmanager
def _translated(operation: str) -> Iterator[None]:
    try:
        yield
    except CloudUnavailableError:
        raise
    except OSError as error:
        raise CloudUnavailableError(f"{operation}: {error}") from error
