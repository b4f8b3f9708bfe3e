"""`inventiv vault` on a real Postgres: documents, exit codes, and a rotation that kill -9 ends and that goes on."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from infra.cli.output import ExitCode
from infra.master_key import read_master_key
from infra.rotation import rotating
from infra.vault import Vault
from infra.vault_tables import create_vault, vault_pool
from infra.wrapping import KeyRing
from tests.infra.cli.conftest import Inventiv

PEOPLE = [f"person-{number}" for number in range(8)]
WAIT_S = 60.0


class Place:
    """A vault in Postgres, and the folder of its secrets."""

    def __init__(self, postgres_url: str, folder: Path) -> None:
        self.postgres_url = postgres_url
        self.secrets_dir = folder / "secrets"
        self.master_key = read_master_key(self.secrets_dir, make=True)

    def seal_all(self) -> list[Any]:
        async def seal() -> list[Any]:
            async with vault_pool(self.postgres_url) as pool:
                await create_vault(pool, self.master_key)
                vault = Vault(pool, self.master_key, KeyRing(self.master_key, self.secrets_dir))
                return [await vault.seal(person, "email", person) for person in PEOPLE]

        return asyncio.run(seal())

    def open_all(self, sealed: list[Any]) -> list[str | None]:
        async def opened() -> list[str | None]:
            async with vault_pool(self.postgres_url) as pool:
                return await Vault(pool, self.master_key, KeyRing(self.master_key, self.secrets_dir)).open_all(sealed)

        return asyncio.run(opened())

    def key_files(self) -> list[str]:
        folder = self.secrets_dir / "vault_keys"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def place(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("INVENTIV_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("INVENTIV_POSTGRES_URL", postgres_url)
    return Place(postgres_url, tmp_path)


def document(capsys: pytest.CaptureFixture[str]) -> Any:
    return json.loads(capsys.readouterr().out)


def test_status_counts_what_each_key_wraps(
    place: Place, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    place.seal_all()
    assert inventiv("vault", "status", "--json") == ExitCode.OK
    (key,) = document(capsys)["keys"]
    assert (key["id"], key["state"], key["file"]) == ("0", "newest", True)
    assert key["rows"] == {"person_keys": len(PEOPLE), "credentials": 0}
    assert inventiv("vault", "status") == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[0].split() == ["KEY", "STATE", "ROWS", "FILE", "SINCE"]


def test_rotating_twice_leaves_one_key_file_and_everything_opens(
    place: Place, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed = place.seal_all()
    assert inventiv("vault", "rotate", "--json") == ExitCode.OK
    first = document(capsys)
    assert (first["rows"], first["removed"]) == (len(PEOPLE), [])
    assert inventiv("vault", "rotate", "--json") == ExitCode.OK
    second = document(capsys)
    assert (second["rows"], second["removed"]) == (len(PEOPLE), [first["key"]])
    assert place.key_files() == [second["key"]]
    assert place.open_all(sealed) == PEOPLE


def test_old_keys_stay_where_that_is_asked_for(
    place: Place, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    place.seal_all()
    assert inventiv("vault", "rotate") == ExitCode.OK
    assert inventiv("vault", "rotate", "--keep-old") == ExitCode.OK
    assert len(place.key_files()) == 2
    assert "into the backup" in capsys.readouterr().err
    assert inventiv("vault", "status") == ExitCode.OK


def test_a_missing_key_file_is_said(place: Place, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    place.seal_all()
    assert inventiv("vault", "rotate") == ExitCode.OK
    (place.secrets_dir / "vault_keys" / place.key_files()[0]).unlink()
    capsys.readouterr()
    assert inventiv("vault", "status") == ExitCode.OK
    assert "not on this machine" in capsys.readouterr().err
    assert inventiv("vault", "rotate", "--json") == ExitCode.NOT_FOUND
    assert document(capsys)["error"] == "vault_key_missing"


def test_without_the_master_key_nothing_is_done_and_none_is_made(
    place: Place, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    place.seal_all()
    (place.secrets_dir / "master_key").unlink()
    assert inventiv("vault", "rotate", "--json") == ExitCode.NOT_ALLOWED
    assert document(capsys)["error"] == "secret_unusable"
    assert not (place.secrets_dir / "master_key").exists()


def test_two_rotations_at_once_are_one_too_many(
    place: Place, inventiv: Inventiv, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = asyncio.Runner()
    holding = rotating(place.postgres_url)
    place.seal_all()
    with holder:
        holder.run(holding.__aenter__())
        environment = {**os.environ, "PATH": os.environ["PATH"]}
        command = [sys.executable, "-m", "infra.cli.main", "vault", "rotate", "--json"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)
        holder.run(holding.__aexit__(None, None, None))
    assert done.returncode == ExitCode.CONFLICT
    assert json.loads(done.stdout)["error"] == "rotation_runs"


def test_a_rotation_killed_in_the_middle_of_its_rows_goes_on(
    place: Place, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    """A row is held by somebody else, so the rotation is certain to be at its rows when it is killed."""
    sealed = place.seal_all()
    with psycopg.connect(place.postgres_url) as holder:
        holder.execute("SELECT 1 FROM vault.person_keys WHERE person_id = %s FOR UPDATE", [PEOPLE[-1]])
        command = [sys.executable, "-m", "infra.cli.main", "vault", "rotate"]
        rotation = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _wait_until_it_waits(place, rotation)
        finally:
            rotation.send_signal(signal.SIGKILL)
            rotation.wait(WAIT_S)
    assert inventiv("vault", "status", "--json") == ExitCode.OK
    keys = {key["state"]: key for key in document(capsys)["keys"]}
    assert keys["older"]["rows"]["person_keys"] == len(PEOPLE), "the batch that was cut off left nothing half"
    assert inventiv("vault", "rotate", "--json") == ExitCode.OK
    done = document(capsys)
    assert (done["key"], done["rows"]) == (keys["newest"]["id"], len(PEOPLE))
    assert place.open_all(sealed) == PEOPLE


def _wait_until_it_waits(place: Place, rotation: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + WAIT_S
    query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%FOR UPDATE%'"
    with psycopg.connect(place.postgres_url, autocommit=True) as looker:
        while looker.execute(query).fetchone() is None:
            assert rotation.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.02)
