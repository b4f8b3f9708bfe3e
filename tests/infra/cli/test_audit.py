"""`inventiv audit`: exports and verification at real stores, and the commands that fetch, against a stub of the API."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.merkle import leaf_hash
from domain.seal import Seal, SealKey, leaf_entry, note, public_pem
from infra.audit.reading import TABLES
from infra.audit.seals import SealStore
from infra.audit.signing_key import SigningKey
from infra.deploy.verify_audit_export import read_key
from infra.embedded.nats import EmbeddedNats
from infra.events.connection import connect_writer, disconnect
from infra.postgres import connect, search_path
from tests.given import NOON
from tests.infra.audit.sealed import Notary, entries_of, store
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

COUNT = 40
SIZES = (15, 30)


@pytest.fixture
def notary(nats_server: EmbeddedNats, postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Notary:
    """A sealed log at stores that the environment names; `key.pem` and `kept.jsonl` beside."""
    monkeypatch.setenv("INVENTIV_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("INVENTIV_NATS_URL", nats_server.url)
    monkeypatch.setenv("INVENTIV_POSTGRES_URL", postgres_url)
    monkeypatch.chdir(tmp_path)
    made = asyncio.run(_sealed(nats_server.url, postgres_url))
    Path("key.pem").write_text(public_pem(made.key.public_key))
    Path("kept.jsonl").write_bytes(b"\n".join(seal.stored for seal in made.seals))
    return made


async def _sealed(nats_url: str, postgres_url: str) -> Notary:
    notary, nc = Notary(), await connect_writer(nats_url, "test")
    seals = SealStore(nc)
    async with await connect(postgres_url, "test", search_path=search_path(TABLES)) as connection:
        await store(connection, entries_of(COUNT))
        await seals.announce(SealKey(key_id=notary.key.key_id, public_key=notary.key.public_key.hex(), at=NOON))
        for size in SIZES:
            after = await seals.latest()
            assert await seals.append((await notary.seal(connection, size)).seal, after=after)
    await disconnect(nc)
    return notary


def change(postgres_url: str, statement: str) -> None:
    async def change() -> None:
        async with await connect(postgres_url, "test", search_path=search_path(TABLES)) as connection:
            await connection.execute(statement.encode())

    asyncio.run(change())


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_the_stores_are_verified(notary: Notary, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    assert inventiv("audit", "verify", "--public-key", "key.pem", "--json") == 0
    newest = notary.seals[-1].seal
    assert document(capsys) == {
        "ok": True, "entries": COUNT, "checkpoints": 2, "sealed_entries": 30, "newest_at": "2026-11-21T12:01:00Z",
        "root": newest.root, "key_pinned": True,
    }  # fmt: skip
    assert inventiv("audit", "verify") == 0
    assert "the keys that the log itself names" in capsys.readouterr().err


def test_the_first_wrong_position_is_named(
    notary: Notary, postgres_url: str, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    change(postgres_url, "UPDATE audit_log SET actor = 'user:mallory' WHERE position = 12")
    assert inventiv("audit", "verify", "--json") == 1
    wrong = document(capsys)
    assert (wrong["ok"], wrong["position"]) == (False, 12)
    assert "actor" in wrong["finding"]
    assert inventiv("audit", "verify") == 1
    assert "position 12" in capsys.readouterr().err


def test_another_key_is_not_trusted(notary: Notary, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    Path("other.pem").write_text(public_pem(SigningKey(os.urandom(32)).public_key))
    assert inventiv("audit", "verify", "--public-key", "other.pem", "--json") == 1
    assert "not trusted" in document(capsys)["finding"]


def test_an_export_is_verified_by_the_key_alone(
    notary: Notary, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert inventiv("audit", "export", "log.jsonl", "--json") == 0
    assert document(capsys) == {"file": "log.jsonl", "entries": COUNT, "checkpoints": 2, "sealed_entries": 30}
    assert Path("log.jsonl").stat().st_mode & 0o777 == 0o600
    for variable in ("INVENTIV_NATS_URL", "INVENTIV_POSTGRES_URL"):
        monkeypatch.setenv(variable, "nowhere")
    words = ("audit", "verify", "log.jsonl", "--public-key", "key.pem", "--known", "kept.jsonl", "--json")
    assert inventiv(*words) == 0
    found = document(capsys)
    assert (found["ok"], found["entries"], found["sealed_entries"], found["key_pinned"]) == (True, COUNT, 30, True)
    assert inventiv("audit", "verify", "log.jsonl") == 0
    capsys.readouterr()
    text = Path("log.jsonl").read_text()
    Path("log.jsonl").write_text(text.replace('"position":9,', '"position":10,'))
    assert inventiv(*words) == 1
    assert "entry 9 is missing" in document(capsys)["finding"]
    Path("log.jsonl").write_text("no export\n")
    assert inventiv("audit", "verify", "log.jsonl", "--json") == 1


def test_wrong_use_says_what_to_do(notary: Notary, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").touch()
    for words, code, said in (
        (("verify", "nowhere.jsonl"), 3, "no file nowhere.jsonl"),
        (("verify", "--known", "kept.jsonl"), 2, "name its file"),
        (("verify", "--public-key", "nowhere.pem"), 3, "no file nowhere.pem"),
        (("verify", "--public-key", "kept.jsonl"), 2, "audit key"),
        (("export", "taken"), 5, "exists already"),
        (("export", "no/such/folder"), 3, "no folder"),
    ):
        assert inventiv("audit", *words) == code, words
        assert said in capsys.readouterr().err


def test_a_postgres_without_an_audit_log_says_so(
    nats_server: EmbeddedNats,
    postgres_url: str,
    tmp_path: Path,
    inventiv: Inventiv,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("INVENTIV_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("INVENTIV_NATS_URL", nats_server.url)
    monkeypatch.setenv("INVENTIV_POSTGRES_URL", postgres_url)
    assert inventiv("audit", "verify") == 3
    assert "no audit log" in capsys.readouterr().err


KEY = SigningKey(b"k" * 32)
SHOWN_KEY = {"key_id": KEY.key_id, "public_key": KEY.public_key.hex(), "pem": public_pem(KEY.public_key), "at": "x"}


def served_proof(stub: StubApi) -> dict[str, Any]:
    """Entry 1 of a log of one entry; returns the entry as it is served."""
    subject, payload = "evt.acme.api_key.k", b"{}"
    root = leaf_hash(leaf_entry(1, subject, payload)).hex()
    seal = KEY.signed(Seal(origin="o", size=1, root=root, at=NOON, key_id="", previous=""))
    stored = msgspec.json.encode(seal).decode()
    shown = {**msgspec.to_builtins(seal), "number": 1, "note": note(seal).decode(), "stored": stored}
    entry = {"position": 1, "subject": subject, "payload": payload.hex(), "leaf_hash": root}
    stub.answer("GET", "/audit/entries/1", Answer(200, entry))
    stub.answer("GET", "/audit/checkpoints/latest", Answer(200, shown))
    stub.answer("GET", "/audit/checkpoints", Answer(200, {"checkpoints": [shown], "next": None}))
    stub.answer("GET", "/audit/proofs/inclusion", Answer(200, {"position": 1, "size": 1, "root": root, "hashes": []}))
    stub.answer("GET", "/audit/key", Answer(200, [SHOWN_KEY]))
    return entry


def test_a_proof_is_checked_here(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    entry = served_proof(stub)
    assert inventiv("audit", "proof", "1", "--json") == 0
    assert document(capsys)["ok"]
    assert inventiv("audit", "proof", "1") == 0
    assert "Entry 1 is in the log of 1 entries" in capsys.readouterr().err
    stub.answer("GET", "/audit/entries/1", Answer(200, {**entry, "payload": b"{ }".hex()}))
    assert inventiv("audit", "proof", "1") == 1
    assert "not under the checkpoint's root" in capsys.readouterr().err


def test_a_proof_is_worth_what_its_key_is(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    served_proof(stub)
    for name, key, code in (("own", KEY, 0), ("other", SigningKey(os.urandom(32)), 1)):
        (tmp_path / name).write_text(public_pem(key.public_key))
        assert inventiv("audit", "proof", "1", "--public-key", str(tmp_path / name), "--json") == code
        assert document(capsys)["ok"] is (code == 0)


def test_keys_and_checkpoints_can_be_kept_in_files(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    served_proof(stub)
    assert inventiv("audit", "key") == 0
    (tmp_path / "key.pem").write_text(capsys.readouterr().out)
    assert read_key(tmp_path / "key.pem") == KEY.public_key
    assert inventiv("audit", "checkpoints", "--stored") == 0
    assert json.loads(capsys.readouterr().out)["key_id"] == KEY.key_id
    assert inventiv("audit", "checkpoints", "--json") == 0
    assert len(document(capsys)["checkpoints"]) == 1
    assert inventiv("audit", "checkpoints") == 0
    assert KEY.key_id in capsys.readouterr().out
    assert inventiv("audit", "key", "0" * 16) == 3


def test_before_the_first_checkpoint_it_says_when_it_comes(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("GET", "/audit/key", Answer(200, []))
    stub.answer("GET", "/audit/checkpoints", Answer(200, {"checkpoints": [], "next": None}))
    assert inventiv("audit", "key") == 3
    assert "within seconds" in capsys.readouterr().err
    assert inventiv("audit", "checkpoints") == 0
    assert "within seconds" in capsys.readouterr().err
