"""What the audit log's entries are as leaves of a Merkle tree, and the seal: a signed statement of its size and root.

    entry = position (8 bytes, big-endian) || length of subject (2 bytes) || subject || exact payload
    leaf index = position - 1, since the log is contiguous from 1

    seal 1 <──previous── seal 2 <──previous── seal 3        each names the SHA-256 of the one before, and signs that too

What is signed is a text of five lines that a person can write down and check with openssl. Its first three lines are
those of a C2SP tlog-checkpoint: origin, size, root. The surprising rule: a log is named by its own first entry, so a
seal can never be taken for one of another log.
"""

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256

import msgspec

_SPKI_OF_ED25519 = bytes.fromhex("302a300506032b6570032100")
"""RFC 8410: what stands before the 32 raw bytes in a DER public key."""
ORIGIN_PREFIX = "inventiv-agents/audit-log/"


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """One statement about the first `size` entries. Its JSON is what is stored and handed out, byte for byte.

    Attributes:
        origin: which log; see origin_of.
        size: entries that it covers, which are positions 1 to size.
        root: of their Merkle tree; SHA-256 in hex.
        at: when it was made, UTC.
        key_id: which key signed.
        previous: SHA-256 (hex) of the exact bytes of the seal before; "" for the first.
        signature: Ed25519 over `note`, 64 bytes in hex.
    """

    origin: str
    size: int
    root: str
    at: datetime
    key_id: str
    previous: str
    signature: str = ""


class StoredSeal(msgspec.Struct, frozen=True):
    """A seal as it is kept: `number` grows from seal to seal (with gaps), `stored` are its exact bytes."""

    number: int
    seal: Seal
    stored: bytes


class SealKey(msgspec.Struct, frozen=True, kw_only=True):
    """A public key that signs seals: raw Ed25519, 32 bytes in hex; `at` is its first use, UTC."""

    key_id: str
    public_key: str
    at: datetime


def leaf_entry(position: int, subject: str, payload: bytes) -> bytes:
    """The bytes of one audit entry, as they are hashed into the tree."""
    name = subject.encode()
    return position.to_bytes(8, "big") + len(name).to_bytes(2, "big") + name + payload


def origin_of(first_leaf: bytes) -> str:
    """The log's name, from the leaf hash of its first entry (which holds an id drawn by chance)."""
    return ORIGIN_PREFIX + first_leaf.hex()[:16]


def note(seal: Seal) -> bytes:
    """What is signed."""
    root = b64encode(bytes.fromhex(seal.root)).decode()
    at = seal.at.astimezone(UTC).isoformat().replace("+00:00", "Z")  # as msgspec's JSON has it
    return f"{seal.origin}\n{seal.size}\n{root}\ntime {at}\nprevious {seal.previous or '-'}\n".encode()


def seal_hash(stored: bytes) -> str:
    """Of a seal's exact bytes; the next seal carries it."""
    return sha256(stored).hexdigest()


def key_id_of(public_key: bytes) -> str:
    return sha256(public_key).hexdigest()[:16]


def public_pem(public_key: bytes) -> str:
    """The raw key (32 bytes) as openssl reads it."""
    body = b64encode(_SPKI_OF_ED25519 + public_key).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"
