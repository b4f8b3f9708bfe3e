"""A machine of one's own: a key made, the host enrolled, a model on it, an answer from it, and the host free again.

The host is an SSH server in a thread of this process, whose shell is real and whose files lie below a folder.
"""

import asyncio
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import pytest

from infra.cli.output import ExitCode
from tests.infra.ssh_hosts import SshHost, ssh_host
from tests.journeys.platform import MODEL, Platform, running, until

pytestmark = pytest.mark.journey

ADDRESS = "127.77.0.7"
TYPE = "host:1x24"


@contextmanager
def a_machine(folder: Path) -> Iterator[SshHost]:
    """An owner's machine, and what its owner wrote on it: its engine is to listen on its own address alone."""
    started: Future[SshHost] = Future()
    over: Future[asyncio.Event] = Future()

    async def serve() -> None:
        event = asyncio.Event()
        over.set_result(event)
        async with ssh_host(folder, address=ADDRESS) as host:
            host.files.prepare(WORKER_BIND_IP=ADDRESS)
            started.set_result(host)
            await event.wait()

    def run() -> None:
        loop.run_until_complete(serve())

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield started.result(timeout=30)
    finally:
        loop.call_soon_threadsafe(over.result().set)
        thread.join(timeout=30)
        loop.close()


@pytest.fixture(scope="module")
def lending() -> Iterator[Platform]:
    """A platform of its own, on which hosts may be enrolled at loopback addresses."""
    with (
        tempfile.TemporaryDirectory(prefix="inventiv-") as folder,
        running(Path(folder), INVENTIV_HOST_ALLOW="127.0.0.0/8") as started,
    ):
        yield started


@pytest.fixture
def machine() -> Iterator[SshHost]:
    with tempfile.TemporaryDirectory(prefix="machine-") as folder, a_machine(Path(folder)) as host:
        yield host


def test_a_host_of_one_s_own_serves_a_model_and_is_free_again(lending: Platform, machine: SshHost) -> None:
    shown = lending.json("host", "key", "--new")
    machine.lets_in = asyncssh.import_public_key(shown["public_key"]).public_data
    enrolled = lending.json(
        "host", "add", ADDRESS, "--port", str(machine.port), "--gpus", "1", "--vram", "24", "--price", "0.5", "--yes"
    )
    assert enrolled["host_key_fingerprint"] == machine.fingerprint
    assert enrolled["instance_type"] == TYPE

    where = ("--provider", "bare_metal", "--zone", "default", "--type", TYPE)
    deployed = lending.json("deploy", MODEL, *where, "--engine", "simulated", "--yes", timeout_s=120)
    [instance] = deployed["instances"]
    assert (instance["status"], instance["ip_address"]) == ("ready", ADDRESS)
    answer = lending.inventiv("chat", MODEL, "hello host")
    assert (answer.code, "hello host" in answer.out) == (0, True), answer
    assert lending.json("host", "show", enrolled["id"])["instance_id"] == instance["id"]
    assert lending.inventiv("host", "rm", enrolled["id"], "--yes").code == ExitCode.CONFLICT
    phases = [event["data"]["phase"] for event in lending.events() if event["type"] == "BootstrapPhaseDone"]
    assert phases[:2] == ["start", "mount_data_volume"], "the worker said how its installation went"

    lending.json("deployment", "stop", deployed["deployment_id"])
    until(lambda: lending.json("host", "show", enrolled["id"])["instance_id"] is None, "nothing runs on it")
    held = machine.files.root / "var/lib/inventiv-host/held"
    assert not held.exists()
    assert not (machine.files.base / "agent.pyz").exists()
    assert lending.inventiv("host", "rm", enrolled["id"], "--yes").code == 0
    assert lending.json("host", "ls")["hosts"] == []
