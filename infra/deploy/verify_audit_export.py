"""Checks an export of the audit log with the public key alone: bare Python 3.11, no packages, none of our code.

    entry ──> leaf hash ──> Merkle tree (RFC 6962) ──> root ──> the seals that name it, signed with Ed25519 (RFC 8032)

An export is JSON lines: a head; each entry as {"position", "subject", "payload" (base64)}; each seal as {"seal": its
exact text}, behind the last entry that it covers. The surprising rule: a key found in an export proves nothing, since
whoever rewrites a log can sign it anew. Bring the public key, and seals that you kept, from where they were safe.

    inventiv audit key > key.pem        inventiv audit checkpoints --stored > kept.jsonl
    inventiv audit export log.jsonl     python verify_audit_export.py log.jsonl --public-key key.pem --known kept.jsonl
"""

import argparse
import json
import sys
from base64 import b64decode, b64encode
from collections.abc import Iterable
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any

FORMAT = "inventiv-audit-export/1"
P = 2**255 - 19  # Ed25519, RFC 8032 5.1
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int, int, int]  # X, Y, Z, T with x = X/Z, y = Y/Z, x * y = T/Z
ZERO: Point = (0, 1, 1, 0)


class WrongError(Exception):
    """What does not hold, and where."""


def add(a: Point, b: Point) -> Point:
    minus, plus = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    t, z = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    e, f, g, h = plus - minus, z - t, z + t, plus + minus
    return e * f % P, g * h % P, f * g % P, e * h % P


def point(encoded: bytes) -> Point | None:
    """The point that 32 bytes stand for: y, and the lowest bit of x."""
    number = int.from_bytes(encoded, "little")
    y, sign = number & (2**255 - 1), number >> 255
    x_squared = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(x_squared, (P + 3) // 8, P)
    if (x * x - x_squared) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if y >= P or (x * x - x_squared) % P or (x == 0 and sign):
        return None
    x = P - x if x & 1 != sign else x
    return x, y, 1, x * y % P


def encoded(a: Point) -> bytes:
    inverse = pow(a[2], -1, P)
    x, y = a[0] * inverse % P, a[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def is_signed(public_key: bytes, message: bytes, signature: bytes) -> bool:
    """Whether s * B = R + k * A, asked as R = s * B + k * -A."""
    a, s = point(public_key), int.from_bytes(signature[32:], "little")
    if a is None or len(signature) != 64 or len(public_key) != 32 or s >= L:
        return False
    k = int.from_bytes(sha512(signature[:32] + public_key + message).digest(), "little") % L
    minus_a: Point = (P - a[0], a[1], 1, P - a[3])
    addends = {(1, 0): BASE, (0, 1): minus_a, (1, 1): add(BASE, minus_a)}
    total = ZERO
    for bit in range(252, -1, -1):
        total = add(total, total)
        if addend := addends.get((s >> bit & 1, k >> bit & 1)):
            total = add(total, addend)
    return encoded(total) == signature[:32]


_base = point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
assert _base is not None  # noqa: S101 - a constant of the standard
BASE: Point = _base


class Tree:
    """The hashes of complete subtrees, one of each size at most; their fold is the root."""

    def __init__(self) -> None:
        self.size, self.peaks = 0, list[bytes]()

    def append(self, leaf: bytes) -> None:
        odd = self.size
        while odd & 1:
            leaf, odd = sha256(b"\1" + self.peaks.pop() + leaf).digest(), odd >> 1
        self.peaks.append(leaf)
        self.size += 1

    def root(self) -> bytes:
        folded = self.peaks[-1]
        for left in self.peaks[-2::-1]:
            folded = sha256(b"\1" + left + folded).digest()
        return folded


class Check:
    """One pass over an export.

    Args:
        keys: trusted public keys, raw.
        known: exact texts of seals kept from earlier; each must be in the export.
    """

    def __init__(self, keys: Iterable[bytes], known: Iterable[str] = ()) -> None:
        self.keys = {sha256(key).hexdigest()[:16]: key for key in keys}
        self.missing = set(known)
        self.tree, self.seals, self.origin, self.previous = Tree(), 0, "", ""
        self.heads: dict[str, tuple[int, str]] = {}
        self.sealed: dict[str, Any] = {"size": 0, "at": None, "root": None}

    def entry(self, position: int, subject: str, payload: bytes) -> None:
        if position != self.tree.size + 1:
            raise WrongError(f"entry {self.tree.size + 1} is missing: {position} comes next")
        name = subject.encode()
        number = position.to_bytes(8, "big") + len(name).to_bytes(2, "big")
        leaf = sha256(b"\0" + number + name + payload).digest()
        self.tree.append(leaf)
        self.origin = self.origin or f"inventiv-agents/audit-log/{leaf.hex()[:16]}"
        envelope = json.loads(payload)
        version, before = self.heads.get(subject, (0, ""))
        if envelope["version"] != version + 1 or envelope["previous"] != before:
            raise WrongError(f"entry {position} does not follow version {version} of {subject}, or that was changed")
        self.heads[subject] = (version + 1, sha256(payload).hexdigest())

    def seal(self, text: str) -> None:
        seal = json.loads(text)
        size, where = int(seal["size"]), f"the seal over {seal['size']} entries"
        if size != self.tree.size or size <= self.sealed["size"]:
            raise WrongError(f"{where} stands behind entry {self.tree.size}")
        if seal["root"] != self.tree.root().hex() or seal["origin"] != self.origin:
            raise WrongError(f"{where} has another root: entries {self.sealed['size'] + 1} to {size} are not as sealed")
        if seal["previous"] != self.previous:
            raise WrongError(f"{where} does not follow the seal before it")
        if (key := self.keys.get(seal["key_id"])) is None:
            raise WrongError(f"{where} is signed by key {seal['key_id']}, which is none of the keys given")
        root, previous = b64encode(self.tree.root()).decode(), self.previous or "-"
        note = f"{seal['origin']}\n{size}\n{root}\ntime {seal['at']}\nprevious {previous}\n".encode()
        if not is_signed(key, note, bytes.fromhex(seal["signature"])):
            raise WrongError(f"{where} does not have a valid signature")
        self.sealed, self.previous = seal, sha256(text.encode()).hexdigest()
        self.seals += 1
        self.missing.discard(text)

    def end(self) -> dict[str, Any]:
        """What was found to hold."""
        if self.missing:
            raise WrongError(f"{len(self.missing)} of the known seals are missing: this is another history")
        newest = {"sealed_entries": self.sealed["size"], "newest_at": self.sealed["at"], "root": self.sealed["root"]}
        return {"entries": self.tree.size, "checkpoints": self.seals, **newest}


def verify(lines: Iterable[str], keys: Iterable[bytes], known: Iterable[str] = ()) -> dict[str, Any]:
    """Raises WrongError at the first line that does not hold."""
    check = Check(keys, known)
    for number, line in enumerate(lines, start=1):
        try:
            item = json.loads(line)
            if number == 1 and item.get("format") != FORMAT:
                raise WrongError(f"this is no export of the form {FORMAT}")
            if "position" in item:
                check.entry(item["position"], item["subject"], b64decode(item["payload"], validate=True))
            elif "seal" in item:
                check.seal(item["seal"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise WrongError(f"line {number} cannot be read after entry {check.tree.size}: {error!r}") from error
    return check.end()


def read_key(path: Path) -> bytes:
    """The raw public key of a PEM file (its last 32 bytes), or of one in hex."""
    lines = path.read_text(encoding="utf-8").split("\n")
    body = "".join(line.strip() for line in lines if not line.startswith("-----"))
    return b64decode(body)[-32:] if "-----BEGIN" in lines[0] else bytes.fromhex(body)


def main() -> int:
    parser = argparse.ArgumentParser(description="Checks an export of the audit log with the public key alone.")
    parser.add_argument("export", type=Path)
    parser.add_argument("--public-key", type=Path, action="append", required=True, help="PEM; again for a second key.")
    parser.add_argument("--known", type=Path, help="Seals kept from earlier, one a line; each must be in the export.")
    given = parser.parse_args()
    known = given.known.read_text(encoding="utf-8").splitlines() if given.known else []
    try:
        with given.export.open(encoding="utf-8") as lines:
            found = verify(lines, map(read_key, given.public_key), filter(None, known))
    except WrongError as wrong:
        print(f"WRONG: {wrong}", file=sys.stderr)
        return 1
    print(json.dumps({"ok": True, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
