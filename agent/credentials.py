"""What the agent proves itself with, on disk: one file that only its owner may read, replaced as a whole.

The surprising rule: a token is on disk, down to the folder's own entry, before it is first used. The control plane
keeps the earlier one good until then, so a crash at any line leaves a file that holds a good token.
"""

import os
from pathlib import Path

import msgspec


class Credentials(msgspec.Struct, frozen=True):
    """What the registration gave, kept for the life of the instance; the token is renewed now and then."""

    instance_id: str
    worker_id: str
    worker_token: str
    heartbeat_interval_s: float = 0.0


class CredentialStore:
    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self, instance_id: str) -> Credentials | None:
        """None when there is no file, or it is another instance's."""
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=Credentials)
        except (FileNotFoundError, msgspec.MsgspecError):
            return None
        return found if found.instance_id == instance_id else None

    def save(self, credentials: Credentials) -> None:
        """On disk when this returns. Raises OSError when it could not be written."""
        draft = self._path.with_suffix(".new")
        draft.unlink(missing_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(msgspec.json.encode(credentials))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
