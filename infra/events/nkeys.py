"""A service's key for NATS: it signs the server's challenge, so no secret travels and the server keeps none.

    seed (a file, mode 0600) ──> Ed25519 key ──> public key "U..." (stands in the server's configuration)
                                             └─> signature of the server's nonce

Both are NATS's own spelling of 32 bytes: a prefix that makes the letters say what it is, a CRC-16, Base32.
"""

import base64
import binascii
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

KEY_BYTES = 32
_SEED = 18 << 3  # "S"
_USER = 20 << 3  # "U"
_CRC_BYTES = 2


class NkeyError(ValueError):
    """A text is no user's seed; the message never holds it."""


class UserKey:
    """The key of one identity.

    Args:
        seed: as in its file, "SU...".

    Raises:
        NkeyError: it is something else.
    """

    def __init__(self, seed: str) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(_decoded(seed))

    @property
    def public(self) -> str:
        """As in the server's configuration, "U..."."""
        return _encoded(bytes([_USER]) + self._key.public_key().public_bytes_raw())

    def sign(self, nonce: str) -> bytes:
        """Base64, as nats-py hands it on."""
        return base64.b64encode(self._key.sign(nonce.encode()))


def read_user_key(path: Path) -> UserKey:
    """The key whose seed is in the file.

    Raises:
        NkeyError: no seed in it; names the file.
        OSError: it cannot be read.
    """
    try:
        return UserKey(path.read_text().strip())
    except (NkeyError, UnicodeDecodeError) as error:
        raise NkeyError(f"{path} holds no NATS user seed (SU...); correct INVENTIV_NATS_NKEY_FILE") from error


def new_seed() -> bytes:
    """A new identity's seed, to be kept in a file."""
    kind = _USER
    prefix = bytes([_SEED | kind >> 5, (kind & 0b11111) << 3])
    return _encoded(prefix + Ed25519PrivateKey.generate().private_bytes_raw()).encode()


def _encoded(content: bytes) -> str:
    checked = content + binascii.crc_hqx(content, 0).to_bytes(_CRC_BYTES, "little")
    return base64.b32encode(checked).decode().rstrip("=")


def _decoded(seed: str) -> bytes:
    try:
        checked = base64.b32decode(seed + "=" * (-len(seed) % 8))
    except (ValueError, binascii.Error):
        raise NkeyError("not Base32") from None
    content, crc = checked[:-_CRC_BYTES], checked[-_CRC_BYTES:]
    if len(content) != 2 + KEY_BYTES or binascii.crc_hqx(content, 0).to_bytes(_CRC_BYTES, "little") != crc:
        raise NkeyError("wrong length or check sum")
    if content[0] & 0b11111000 != _SEED or (content[0] & 0b111) << 5 | content[1] >> 3 != _USER:
        raise NkeyError("not the seed of a user")
    return content[2:]
