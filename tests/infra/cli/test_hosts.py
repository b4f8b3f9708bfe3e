"""Hosts from the command line: fingerprints are confirmed, slots are spoken as people do, keys stay unseen."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from infra.cli.output import CommandError, ExitCode
from infra.cli.slots import slots_said, spoken_slots
from tests.infra.cli.conftest import Inventiv
from tests.infra.cli.stub_api import Answer, StubApi

FINGERPRINT = "SHA256:" + "k" * 43
HOST: dict[str, Any] = {
    "id": "h1",
    "name": "rack-1",
    "address": "192.0.2.7",
    "ssh_port": 22,
    "ssh_user": "root",
    "host_key_fingerprint": FINGERPRINT,
    "zone": "default",
    "instance_type": "host:2x48",
    "gpu_count": 2,
    "vram_per_gpu_gb": 48,
    "cpu_count": 0,
    "ram_gb": 0,
    "price_eur_per_hour": 0.9,
    "slots": [{"day": 0, "start_minute": 480, "end_minute": 1080}],
    "open_for_s": 0.0,
    "instance_id": None,
    "enrolled_at": "2026-11-21T12:00:00+00:00",
}
ADD = ("host", "add", "192.0.2.7", "--gpus", "2", "--vram", "48")


@pytest.fixture
def enrollable(stub: StubApi) -> StubApi:
    stub.answer("POST", "/hosts", Answer(201, HOST))
    stub.answer("GET", "/hosts/h1", Answer(200, HOST))
    stub.answer("PUT", "/hosts/h1", Answer(200, HOST))
    return stub


def test_a_host_is_enrolled_with_a_fingerprint_that_was_known(
    enrollable: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--fingerprint", FINGERPRINT, "--price", "0.9", "--slot", "mon 08:00-18:00")
    assert inventiv(*ADD, *arguments) == ExitCode.OK
    [asked] = enrollable.asked_of("POST", "/hosts")
    assert asked.body == {
        "address": "192.0.2.7",
        "ssh_port": 22,
        "name": "host-192-0-2-7",
        "ssh_user": "root",
        "zone": "default",
        "gpu_count": 2,
        "vram_per_gpu_gb": 48,
        "cpu_count": 0,
        "ram_gb": 0,
        "price_eur_per_hour": 0.9,
        "slots": HOST["slots"],
        "host_key_fingerprint": FINGERPRINT,
    }
    shown = capsys.readouterr()
    assert shown.out == "h1\n"
    assert "serves mon 08:00-18:00" in shown.err
    assert "--type host:2x48" in shown.err


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def read_fingerprint(_place: object, *, timeout_s: float) -> str:
        assert timeout_s > 0
        return FINGERPRINT

    monkeypatch.setattr("infra.ssh.read_fingerprint", read_fingerprint)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.usefixtures("found")
@pytest.mark.parametrize(("answer", "code", "asked"), [("y\n", ExitCode.OK, 1), ("\n", ExitCode.FAILED, 0)])
def test_a_fetched_fingerprint_is_shown_and_confirmed(
    enrollable: StubApi,
    inventiv: Inventiv,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: str,
    code: int,
    asked: int,
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    assert inventiv(*ADD) == code
    assert f"192.0.2.7 shows the host key {FINGERPRINT}" in capsys.readouterr().err
    assert len(enrollable.asked_of("POST", "/hosts")) == asked


@pytest.mark.usefixtures("found")
def test_nobody_is_asked_where_nobody_is(enrollable: StubApi, inventiv: Inventiv) -> None:
    assert inventiv(*ADD) == ExitCode.USAGE
    assert inventiv(*ADD, "--yes") == ExitCode.OK
    assert len(enrollable.asked_of("POST", "/hosts")) == 1


def test_a_host_that_does_not_answer_is_told_with_a_cure(
    enrollable: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    assert inventiv("host", "add", "127.0.0.1", "--port", "9", "--gpus", "0", "--vram", "0") == ExitCode.UNREACHABLE
    assert "say --fingerprint" in capsys.readouterr().err
    assert not enrollable.asked_of("POST", "/hosts")


def test_the_list_says_what_runs_where(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/hosts", Answer(200, [HOST, {**HOST, "id": "h2", "instance_id": "i-7", "slots": []}]))
    assert inventiv("host", "ls") == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert "mon 08:00-18:00" in lines[1]
    assert "nothing" in lines[1]
    assert "always" in lines[2]
    assert "i-7" in lines[2]
    assert inventiv("host", "ls", "--json") == ExitCode.OK
    assert len(json.loads(capsys.readouterr().out)["hosts"]) == 2


def test_an_empty_list_says_what_to_do(stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]) -> None:
    stub.answer("GET", "/hosts", Answer(200, []))
    assert inventiv("host", "ls") == ExitCode.OK
    said = capsys.readouterr()
    assert "inventiv host add" in said.out + said.err


def test_a_change_leaves_the_rest_as_it_is(enrollable: StubApi, inventiv: Inventiv) -> None:
    assert inventiv("host", "change", "h1", "--name", "attic", "--always") == ExitCode.OK
    [asked] = enrollable.asked_of("PUT", "/hosts/h1")
    assert (asked.body["name"], asked.body["slots"]) == ("attic", [])
    assert (asked.body["gpu_count"], asked.body["host_key_fingerprint"]) == (2, FINGERPRINT)
    assert inventiv("host", "change", "h1", "--always", "--slot", "mon 08:00-18:00") == ExitCode.USAGE


def test_a_host_is_withdrawn_after_a_yes(stub: StubApi, inventiv: Inventiv) -> None:
    stub.answer("DELETE", "/hosts/h1", Answer(204, None))
    assert inventiv("host", "rm", "h1") == ExitCode.USAGE
    assert inventiv("host", "rm", "h1", "--yes") == ExitCode.OK
    assert len(stub.asked_of("DELETE", "/hosts/h1")) == 1


def test_a_new_key_shows_its_public_half_alone(
    stub: StubApi, inventiv: Inventiv, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.answer("PUT", "/providers/bare_metal/credentials", Answer(200, {}))
    assert inventiv("host", "key", "--new") == ExitCode.OK
    [asked] = stub.asked_of("PUT", "/providers/bare_metal/credentials")
    private = asyncssh.import_private_key(asked.body["values"]["ssh_private_key"])
    shown = capsys.readouterr()
    assert shown.out.strip() == private.export_public_key().decode().strip()
    assert "PRIVATE" not in shown.out + shown.err


def test_a_key_may_come_from_a_file(stub: StubApi, inventiv: Inventiv, tmp_path: Path) -> None:
    stub.answer("PUT", "/providers/bare_metal/credentials", Answer(200, {}))
    file = tmp_path / "key"
    file.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    assert inventiv("host", "key", "--from", str(file)) == ExitCode.OK
    [asked] = stub.asked_of("PUT", "/providers/bare_metal/credentials")
    assert asked.body["values"]["ssh_private_key"] == file.read_text()


@pytest.mark.parametrize("content", [None, "no key"])
def test_a_file_without_a_key_is_named(
    stub: StubApi, inventiv: Inventiv, tmp_path: Path, content: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "key"
    if content is not None:
        file.write_text(content)
    assert inventiv("host", "key", "--from", str(file)) == ExitCode.USAGE
    assert str(file) in capsys.readouterr().err
    assert inventiv("host", "key") == ExitCode.USAGE
    assert not stub.asked_of("PUT", "/providers/bare_metal/credentials")


@pytest.mark.parametrize(
    ("said", "windows"),
    [
        ("mon 08:00-18:00", [(0, 480, 1080)]),
        ("Sat 00:00-24:00", [(5, 0, 1440)]),
        ("mon-tue 20:00-06:00", [(0, 1200, 1440), (1, 0, 360), (1, 1200, 1440), (2, 0, 360)]),
        ("sun 22:00-00:00", [(6, 1320, 1440)]),
        ("sat-mon 10:00-11:00", [(5, 600, 660), (6, 600, 660), (0, 600, 660)]),
    ],
)
def test_slots_are_windows_of_days(said: str, windows: list[tuple[int, int, int]]) -> None:
    found = slots_said([said])
    assert [(w["day"], w["start_minute"], w["end_minute"]) for w in found] == windows
    assert spoken_slots(found).startswith(said[:3].lower())


@pytest.mark.parametrize(
    "said", ["", "mon", "mon 8-18", "mon 08:00-08:00", "xyz 08:00-18:00", "mon 24:00-06:00", "mon 08:61-18:00"]
)
def test_what_is_no_slot_is_refused(said: str) -> None:
    with pytest.raises(CommandError, match="is no slot"):
        slots_said([said])


def test_listing_hosts_imports_no_ssh() -> None:
    code = "import infra.cli.hosts, sys; sys.exit('asyncssh' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
