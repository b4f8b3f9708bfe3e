"""The key that signs the audit log's seals: an Ed25519 seed in `<secrets_dir>/audit_signing_key`.

Only the role `handlers` needs the file; everyone else verifies with the public key. A new file is a new key: what the
old one signed stays valid, and both public keys are handed out.
"""

import os
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from msgspec.structs import replace

from domain.seal import Seal, key_id_of, note
from infra.master_key import require_strong
from infra.secret_files import SecretFileError, secret_file

SEED_BYTES = 32
SIGNING_KEY_FILE = "audit_signing_key"


class SigningKey:
    """Signs; does not show its seed.

    Attributes:
        public_key: 32 raw bytes.
        key_id: first 16 hex digits of its SHA-256.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise SecretFileError(f"{SIGNING_KEY_FILE} must be {SEED_BYTES} bytes; restore it from its backup")
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public_key = self._key.public_key().public_bytes_raw()
        self.key_id = key_id_of(self.public_key)

    def signed(self, seal: Seal) -> Seal:
        named = replace(seal, key_id=self.key_id)
        return replace(named, signature=self._key.sign(note(named)).hex())


def read_signing_key(secrets_dir: Path, *, make: bool = False) -> SigningKey:
    """The key in the secrets folder; `make`: by chance when absent.

    Raises:
        SecretFileError: absent, unreadable, open to others, weak, or of the wrong size.
    """
    seed = secret_file(secrets_dir / SIGNING_KEY_FILE, (lambda: os.urandom(SEED_BYTES)) if make else None)
    return SigningKey(require_strong(seed, SIGNING_KEY_FILE))


def is_signed(seal: Seal, public_key: bytes) -> bool:
    """Whether the seal's signature is this key's, over exactly what it says."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(bytes.fromhex(seal.signature), note(seal))
    except (InvalidSignature, ValueError):
        return False
    return True
