"""Secrets that live in files: made by chance when absent, mode 0600, never a default, never in an environment variable.

    secret_file(path, make) ──> the bytes in `path`        two processes that start together agree on one secret
    secret_file(path, None) ──> the same, or a refusal     where a lost secret must be restored, not replaced

The surprising rule: whoever loses the race to create the file throws its own secret away and reads the winner's.
"""

import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class SecretFileError(Exception):
    """A secret file cannot be used; the message names the file and the cure."""


def secret_file(path: Path, make: Callable[[], bytes] | None) -> bytes:
    """The secret in `path`; `make()` is written there first when there is none.

    Args:
        path: of the file.
        make: None where a secret must not be made: a second one would be taken for the platform's own.

    Raises:
        SecretFileError: the file is absent, empty, unreadable, or readable by others.
    """
    if make is not None and not path.exists():
        make_secret_file(path, make())
    return read_secret_file(path)


def read_secret_file(path: Path) -> bytes:
    """Raises SecretFileError: the file is absent, empty, unreadable, or readable by others."""
    try:
        open_to_others = path.stat().st_mode & 0o077
        secret = path.read_bytes()
    except FileNotFoundError as error:
        raise SecretFileError(
            f"{path} is not there; restore it from its backup. Only for a platform without data, start once with "
            "INVENTIV_MAKE_SECRETS=1, which makes the secrets that are missing"
        ) from error
    except OSError as error:
        raise SecretFileError(f"{path} cannot be read ({error.strerror}); make it readable for this user") from error
    if open_to_others:
        raise SecretFileError(f"{path} can be read by others; run `chmod 600` on it")
    if not secret:
        raise SecretFileError(f"{path} is empty; restore it from its backup, or remove it on a platform without data")
    return secret


def make_secret_file(path: Path, secret: bytes) -> None:
    """A hard link is made or not made, never half: readers see no file or a whole secret. The first maker wins."""
    path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid4().hex}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE), "wb") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    try:
        path.hardlink_to(draft)
    except FileExistsError:
        pass  # another process was first; its secret stands
    finally:
        draft.unlink()
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """What is encrypted with a secret must not outlive its file's name when the power fails."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
