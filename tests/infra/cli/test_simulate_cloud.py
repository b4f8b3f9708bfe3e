"""`inventiv simulate-cloud scaleway`, as a person starts it: its card, its end, and what a second start finds."""

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from infra.cli.output import ExitCode

ROOT = Path(__file__).parent.parent.parent.parent
COMMAND = [sys.executable, "-m", "infra.cli.main", "simulate-cloud", "scaleway"]
END_S = 30


@contextmanager
def started(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [*COMMAND, "--port", "0", "--folder", str(folder), *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(END_S) == ExitCode.OK


def card_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    return dict(json.loads(process.stdout.readline()))


def test_it_serves_and_keeps_its_account_for_the_next_time(tmp_path: Path) -> None:
    cards = []
    for _ in range(2):
        with started(tmp_path / "scaleway", "--json") as process:
            card = card_of(process)
            servers = f"{card['api_url']}/instance/v1/zones/fr-par-2/servers"
            headers = {"X-Auth-Token": card["secret_key"]}
            assert httpx.get(servers, headers=headers, trust_env=False).json() == {"servers": []}
            assert httpx.get(servers, trust_env=False).status_code == 401
            cards.append(card)
    names = ("access_key", "secret_key", "project_id", "organization_id")
    assert [cards[0][name] for name in names] == [cards[1][name] for name in names]
    assert (tmp_path / "scaleway" / "account.json").stat().st_mode & 0o077 == 0


def test_a_person_is_told_what_to_do_next(tmp_path: Path) -> None:
    with started(tmp_path / "scaleway") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("api_url ")
        said = process.stderr.readline() + process.stderr.readline()
    assert "Ctrl-C" in said
    assert "INVENTIV_SCALEWAY_URL=http://127.0.0.1:" in said


def test_a_taken_port_is_said_with_a_cure(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as neighbour:
        port = str(neighbour.getsockname()[1])
        command = [*COMMAND, "--port", port, "--folder", str(tmp_path / "scaleway"), "--json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=END_S, check=False)
    assert done.returncode == ExitCode.CONFLICT
    assert json.loads(done.stdout)["error"] == "cannot_serve"
    assert "--port" in done.stderr
