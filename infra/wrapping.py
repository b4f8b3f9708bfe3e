"""The keys that wrap what the vault stores: data keys of persons, credentials of organisations.

    key "0"        derived from <secrets>/master_key, as long as that lives
    key <16 hex>   32 bytes of chance in <secrets>/vault_keys/<16 hex>, made by `inventiv vault rotate`

    envelope       "v2" | length of the key id (1 byte) | key id | nonce (12 bytes) | AES-256-GCM, bound to whose it is
                   and what for

The surprising rule: which key wraps from now on stands in Postgres, not in this folder, so that all processes change at
one moment (rotation.py). The folder only has to hold the keys that some row names.
"""

import hmac
import os
import re
from pathlib import Path

from infra.master_key import KEY_BYTES, MasterKey, check_value_of, decrypt, encrypt, require_strong
from infra.secret_files import make_secret_file, read_secret_file
from infra.vault_tables import WRITERS_LOCK
from projections.projection import Connection

FIRST_KEY = "0"
KEYS_FOLDER = "vault_keys"
ID_BYTES = 8
_VERSION = b"v2"
_ID = re.compile(r"[0-9a-f]{16}")


class WrappingKeyMissingError(OSError):
    """A row names a key that this process does not have, or has another one of that name; says what to do."""


class KeyRing:
    """Wraps and unwraps. Keys are read when they are first needed, so one made later needs no restart.

    Args:
        master_key: whose key "0" is.
        secrets_dir: holds KEYS_FOLDER; None where only key "0" can be.
    """

    def __init__(self, master_key: MasterKey, secrets_dir: Path | None = None) -> None:
        self._folder = secrets_dir / KEYS_FOLDER if secrets_dir else None
        self._keys = {FIRST_KEY: master_key.key_for("wrapping")}

    def wrap(self, key_id: str, clear: bytes, *, bound_to: str) -> bytes:
        return frame(key_id, encrypt(self._key(key_id), clear, bound_to=bound_to))

    def unwrap(self, envelope: bytes, *, bound_to: str) -> bytes:
        """Raises WrappingKeyMissingError; cryptography's InvalidTag when the bytes or `bound_to` differ."""
        key_id = key_id_of(envelope)
        return decrypt(self._key(key_id), envelope[len(frame(key_id, b"")) :], bound_to=bound_to)

    def check_value(self, key_id: str) -> bytes:
        """Shows that two processes mean the same key by this id, and shows nothing of the key."""
        return check_value_of(self._key(key_id))

    def make(self) -> str:
        """A new key in a file of its own; its id. Nothing is wrapped with it yet."""
        if self._folder is None:
            raise WrappingKeyMissingError("this process has no folder for vault keys")
        key_id = os.urandom(ID_BYTES).hex()
        make_secret_file(self._folder / key_id, os.urandom(KEY_BYTES))
        return key_id

    def remove(self, key_id: str) -> None:
        """Asking twice is welcome. The caller knows that nothing is wrapped with it."""
        if self._folder is not None and _ID.fullmatch(key_id):
            (self._folder / key_id).unlink(missing_ok=True)
            self._keys.pop(key_id, None)

    def in_files(self) -> list[str]:
        """Ids of the keys in the folder."""
        if self._folder is None or not self._folder.is_dir():
            return []
        return sorted(path.name for path in self._folder.iterdir() if _ID.fullmatch(path.name))

    def _key(self, key_id: str) -> bytes:
        if key_id not in self._keys:
            self._keys[key_id] = self._read(key_id)
        return self._keys[key_id]

    def _read(self, key_id: str) -> bytes:
        path = self._folder / key_id if self._folder is not None and _ID.fullmatch(key_id) else None
        if path is None or not path.exists():
            raise WrappingKeyMissingError(
                f"vault key {key_id!r} is not in {self._folder}; copy its file from where `inventiv vault rotate` ran"
            )
        return require_strong(read_secret_file(path), path.name)


def frame(key_id: str, noise: bytes) -> bytes:
    """An envelope: which key opens it, and what it opens."""
    return _VERSION + bytes([len(key_id)]) + key_id.encode() + noise


def key_id_of(envelope: bytes) -> str:
    """Raises ValueError for what is no envelope."""
    if envelope[:2] != _VERSION or len(envelope) < 3:
        raise ValueError("not an envelope of this vault")
    return envelope[3 : 3 + envelope[2]].decode("ascii")


async def newest_key(connection: Connection, keys: KeyRing) -> str:
    """Id of the key that wraps what this transaction writes; no rotation can pass it by before the commit.

    Raises:
        WrappingKeyMissingError: this process lacks it, or has another under its name.
    """
    await connection.execute("SELECT pg_advisory_xact_lock_shared(%s)", [WRITERS_LOCK])
    cursor = await connection.execute("SELECT id, check_value FROM vault.wrapping_keys WHERE newest")
    row = await cursor.fetchone()
    assert row is not None, "create_vault makes the first one"  # noqa: S101 - the impossible
    key_id, check_value = str(row[0]), bytes(row[1])
    if not hmac.compare_digest(keys.check_value(key_id), check_value):
        raise WrappingKeyMissingError(
            f"vault key {key_id!r} here is another than the one that the vault was wrapped with"
        )
    return key_id
