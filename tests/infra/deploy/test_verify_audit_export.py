"""The stand-alone verifier: alone, with the public key alone, and against the same changes as our own check."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from domain.seal import public_pem
from infra.audit.export import export_audit_log
from infra.deploy import verify_audit_export as verifier
from tests.infra.audit.sealed import Notary, sealed_log

SCRIPT = Path(verifier.__file__).read_bytes()
COUNT = 300
SIZES = (1, 120, 290)

RFC_8032 = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
]  # fmt: skip
"""Public key, message and signature of tests 1 and 2 in section 7.1."""

Lines = list[str]


async def exported(postgres_url: str) -> tuple[Lines, Notary]:
    out = BytesIO()
    async with sealed_log(postgres_url, count=COUNT, sizes=SIZES) as (connection, notary):
        await export_audit_log(connection, notary.every(), [], out)
    return out.getvalue().decode().splitlines(keepends=True), notary


def verified(lines: Lines, notary: Notary, known: Lines | None = None) -> dict[str, Any]:
    return verifier.verify(lines, [notary.key.public_key], known or [])


def test_it_is_short_and_imports_nothing_of_ours() -> None:
    text = SCRIPT.decode()
    assert text.count("\n") <= 200
    imported = {
        alias.name.partition(".")[0] if isinstance(node, ast.Import) else (node.module or "").partition(".")[0]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert imported <= sys.stdlib_module_names


@pytest.mark.parametrize(("public_key", "message", "signature"), RFC_8032)
def test_the_standards_signatures_are_valid(public_key: str, message: str, signature: str) -> None:
    key, said, signed = bytes.fromhex(public_key), bytes.fromhex(message), bytes.fromhex(signature)
    assert verifier.is_signed(key, said, signed)
    assert not verifier.is_signed(key, said + b"x", signed)


def test_it_agrees_with_the_library_on_signatures_and_on_their_forgeries() -> None:
    for length in range(20):
        key, said = Ed25519PrivateKey.from_private_bytes(os.urandom(32)), os.urandom(length)
        public_key, signed = key.public_key().public_bytes_raw(), key.sign(said)
        assert verifier.is_signed(public_key, said, signed)
        for place in (0, 31, 32, 63):
            forged = bytearray(signed)
            forged[place] ^= 1 << (length % 8)
            assert not verifier.is_signed(public_key, said, bytes(forged))
        assert not verifier.is_signed(os.urandom(32), said, signed)
        assert not verifier.is_signed(public_key, said, signed[:-1])


def test_a_signature_has_one_spelling() -> None:
    """s + L is the same number to the group, and another text to a chain of hashes."""
    public_key, message, signature = (bytes.fromhex(part) for part in RFC_8032[1])
    s = int.from_bytes(signature[32:], "little") + verifier.L
    assert not verifier.is_signed(public_key, message, signature[:32] + s.to_bytes(32, "little"))


async def test_a_sound_export_is_found_sound(postgres_url: str) -> None:
    lines, notary = await exported(postgres_url)
    newest = notary.seals[-1].seal
    assert verified(lines, notary, [seal.stored.decode() for seal in notary.seals]) == {
        "entries": COUNT, "checkpoints": 3, "sealed_entries": 290, "newest_at": "2026-11-21T12:02:00Z",
        "root": newest.root,
    }  # fmt: skip


def numbered(lines: Lines, position: int) -> int:
    return next(n for n, line in enumerate(lines) if line.startswith(f'{{"position":{position},'))


def with_entry(position: int, change: Callable[[dict[str, Any]], object]) -> Callable[[Lines], object]:
    def apply(lines: Lines) -> None:
        place = numbered(lines, position)
        entry = json.loads(lines[place])
        change(entry)
        lines[place] = json.dumps(entry) + "\n"

    return apply


def with_seal(number: int, **changes: object) -> Callable[[Lines], object]:
    def apply(lines: Lines) -> None:
        place = [n for n, line in enumerate(lines) if line.startswith('{"seal"')][number]
        seal = {**json.loads(json.loads(lines[place])["seal"]), **changes}
        lines[place] = json.dumps({"seal": json.dumps(seal, separators=(",", ":"))}) + "\n"

    return apply


def swap(lines: Lines) -> None:
    lines[5], lines[6] = lines[6], lines[5]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (with_entry(7, lambda e: e.update(subject="evt.x.y.z")), "entry 7 does not follow"),
        (with_entry(7, lambda e: e.update(payload="e30=")), "after entry 7: KeyError"),
        (with_entry(7, lambda e: e.update(payload="%")), "cannot be read after entry 6"),
        (with_entry(7, lambda e: e.update(position=8)), "entry 7 is missing: 8"),
        (lambda lines: lines.pop(numbered(lines, 7)), "entry 7 is missing"),
        (lambda lines: lines.insert(4, lines[4]), "missing"),
        (swap, "missing"),
        (lambda lines: lines.pop(0), "no export of the form"),
        (lambda lines: lines.append("{"), "cannot be read"),
        (with_seal(1, at="2026-11-21T12:00:00Z"), "valid signature"),
        (with_seal(1, signature="00" * 64), "valid signature"),
        (with_seal(1, key_id="0" * 16), "none of the keys given"),
        (with_seal(1, previous=""), "does not follow the seal"),
        (with_seal(1, root="00" * 32), "entries 2 to 120 are not as sealed"),
        (with_seal(1, origin="another"), "entries 2 to 120 are not as sealed"),
        (with_seal(1, size=119), "stands behind entry 120"),
        (lambda lines: lines.pop(numbered(lines, 120) + 1), "does not follow the seal"),
    ],
)
async def test_a_changed_export_is_found_out(postgres_url: str, change: Callable[[Lines], object], says: str) -> None:
    lines, notary = await exported(postgres_url)
    verified(lines, notary)
    change(lines)
    with pytest.raises(verifier.WrongError, match=says):
        verified(lines, notary)


async def test_a_history_signed_anew_lacks_the_seals_that_were_kept(postgres_url: str) -> None:
    """Whoever holds the signing key can make another history; the seals that an auditor kept tell."""
    lines, notary = await exported(postgres_url)
    kept = [seal.stored.decode() for seal in notary.seals]
    shorter = lines[: numbered(lines, 200)]
    assert verified(shorter, notary, kept[:2])["sealed_entries"] == 120
    with pytest.raises(verifier.WrongError, match="1 of the known seals"):
        verified(shorter, notary, kept)


async def test_it_runs_alone_with_bare_python(postgres_url: str, tmp_path: Path) -> None:
    """Copied somewhere else, isolated from the environment and from site packages; exit code 0, then 1."""
    lines, notary = await exported(postgres_url)
    script = tmp_path / "verify.py"
    script.write_bytes(SCRIPT)
    (tmp_path / "key.pem").write_text(public_pem(notary.key.public_key))
    (tmp_path / "kept.jsonl").write_bytes(b"\n".join(seal.stored for seal in notary.seals))
    (tmp_path / "log.jsonl").write_text("".join(lines))
    words = [sys.executable, "-I", "-S", str(script), "log.jsonl", "--public-key", "key.pem", "--known", "kept.jsonl"]

    def ran() -> subprocess.CompletedProcess[str]:
        return subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False)

    sound = ran()
    assert (sound.returncode, json.loads(sound.stdout)["ok"]) == (0, True), sound.stderr
    del lines[50]
    (tmp_path / "log.jsonl").write_text("".join(lines))
    wrong = ran()
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("WRONG: entry 49 is missing")
