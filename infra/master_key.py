"""The root of all secrets: 32 bytes in a file, split by purpose so that no derived key serves two.

    <secrets_dir>/master_key ──HKDF──┬─ wrapping: key "0" of wrapping.py           ├─ sign_in: signatures of tokens
                                     ├─ digest: equality of names without reading  ├─ kept_replies: seals of replies
                                     ├─ bootstrap: one-time tokens of agents       ├─ fingerprint: shows no secret
                                     ├─ server_tags: which servers are ours        ├─ one_time: tokens in mails
                                     └─ upstream_keys: the one that a gateway has too (upstream_keys.py)

A further purpose changes none of the other keys.
"""

import hmac
import os
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from infra.secret_files import SecretFileError, secret_file

KEY_BYTES = 32
NONCE_BYTES = 12
MASTER_KEY_FILE = "master_key"

_PURPOSES = (
    "wrapping",
    "digest",
    "bootstrap",
    "one_time",
    "server_tags",
    "sign_in",
    "kept_replies",
    "fingerprint",
    "upstream_keys",
)


class MasterKey:
    """Hands out derived keys only; the secret itself is not kept."""

    def __init__(self, secret: bytes) -> None:
        secret = require_strong(secret, MASTER_KEY_FILE)
        self._keys = {purpose: _derive(secret, purpose) for purpose in _PURPOSES}

    def key_for(self, purpose: str) -> bytes:
        return self._keys[purpose]

    def mac(self, purpose: str, *parts: str) -> bytes:
        """32 bytes; each part goes in behind its length, so that ("ab", "c") and ("a", "bc") differ."""
        message = b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)
        return hmac.digest(self._keys[purpose], message, "sha256")


def _derive(secret: bytes, purpose: str) -> bytes:
    hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"inventiv-vault/{purpose}".encode())
    return hkdf.derive(secret)


def read_master_key(secrets_dir: Path, *, make: bool = False) -> MasterKey:
    """The key in `<secrets_dir>/master_key`.

    Args:
        secrets_dir: holds it.
        make: when absent, by chance. Only a platform without data may: what was sealed before stays closed.

    Raises:
        SecretFileError: absent, unreadable, open to others, weak, or of the wrong size.
    """
    return MasterKey(secret_file(secrets_dir / MASTER_KEY_FILE, (lambda: os.urandom(KEY_BYTES)) if make else None))


def require_strong(secret: bytes, name: str) -> bytes:
    """The secret of the file `name`, unless nobody can have drawn it by chance.

    Raises:
        SecretFileError: of another size, or one byte repeated.
    """
    if len(secret) != KEY_BYTES:
        raise SecretFileError(
            f"the secret {name} must be {KEY_BYTES} bytes, not {len(secret)}; restore its file from the backup"
        )
    if len(set(secret)) == 1:
        raise SecretFileError(f"the secret {name} is one byte repeated, which anybody can guess; restore its file")
    return secret


def check_value_of(key: bytes) -> bytes:
    """Shows whether two processes have the same key, and nothing else of it."""
    return hmac.digest(key, b"inventiv-vault/check", "sha256")


def encrypt(key: bytes, clear: bytes, *, bound_to: str) -> bytes:
    """AES-256-GCM with a random nonce in front; it opens only with the same `bound_to`."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, clear, bound_to.encode())


def decrypt(key: bytes, sealed: bytes, *, bound_to: str) -> bytes:
    """Raises cryptography's InvalidTag when the key, the bytes or `bound_to` differ."""
    return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], bound_to.encode())
