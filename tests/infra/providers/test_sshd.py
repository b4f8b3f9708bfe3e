"""The provider bare_metal and OpenSSH's own sshd, on loopback below a folder; skipped where there is no sshd."""

import asyncio
import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from domain.host import HostFacts, HostId
from handlers.cloud_ports import Absent, CloudRefusedError, CommandRun, Present
from infra.ssh import Login, Place, read_fingerprint, run_script
from tests.infra.providers.bare_metal_hosts import ZONE, Enrolled, Fleet, wanted
from tests.infra.providers.bootstrap.host import PrefixHost, control_plane, runs, until
from tests.infra.ssh_hosts import OUR_KEY, OUR_PRIVATE_KEY

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
SEPARATION = Path("/run/sshd")
"""Where sshd shuts its unprivileged half in, when it is root's; its service makes the folder at each boot, as we do."""

pytestmark = [
    pytest.mark.skipif(SSHD is None, reason="there is no sshd here (apt package openssh-server)"),
    pytest.mark.skipif(os.geteuid() != 0, reason="the worker's scripts run as root, and we cannot log in as root"),
]
US = Login(user="root", private_key=OUR_PRIVATE_KEY)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[tuple[PrefixHost, Place]]:
    files = PrefixHost(tmp_path / "host")
    files.prepare()
    with socket.create_server(("127.0.0.1", 0)) as free:
        place = Place("127.0.0.1", free.getsockname()[1])
    config = _configuration(tmp_path, files, place.port)
    sshd = _start(config, tmp_path / "sshd.log")
    try:
        for _ in range(250):
            with contextlib.suppress(OSError):
                await read_fingerprint(place)
                break
            await asyncio.sleep(0.02)
        assert sshd.poll() is None, (tmp_path / "sshd.log").read_text()
        yield files, place
    finally:
        sshd.terminate()
        sshd.wait(timeout=10)
        files.end()


def _start(config: Path, log: Path) -> "subprocess.Popen[bytes]":
    SEPARATION.mkdir(mode=0o755, exist_ok=True)
    with log.open("wb") as errors:
        return subprocess.Popen([str(SSHD), "-D", "-e", "-f", str(config)], stderr=errors)


def _configuration(folder: Path, files: PrefixHost, port: int) -> Path:
    key = folder / "host_key"
    key.write_bytes(asyncssh.generate_private_key("ssh-ed25519").export_private_key())
    key.chmod(0o600)
    (folder / "authorized_keys").write_bytes(OUR_KEY.export_public_key())
    config = folder / "sshd_config"
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {key}\nAuthorizedKeysFile {folder}/authorized_keys\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\n"
        f"SetEnv INVENTIV_ROOT={files.root}\n"
    )
    return config


async def test_a_script_runs_at_a_real_sshd(host: tuple[PrefixHost, Place]) -> None:
    files, place = host
    fingerprint = await read_fingerprint(place)
    run = await run_script(place, US, 'echo "$INVENTIV_ROOT"; exit 7', trusts=fingerprint.__eq__, timeout_s=20)
    assert run == CommandRun(exit_status=7, output=f"{files.root}\n")


async def test_a_real_sshd_with_another_key_or_other_users_gets_nothing(host: tuple[PrefixHost, Place]) -> None:
    _, place = host
    with pytest.raises(CloudRefusedError) as changed:
        await run_script(place, US, "true", trusts="SHA256:other".__eq__, timeout_s=20)
    assert changed.value.code == "SSH_HOST_KEY_CHANGED"
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    with pytest.raises(CloudRefusedError) as refused:
        await run_script(place, Login(user="root", private_key=stranger), "true", trusts=lambda _: True, timeout_s=20)
    assert refused.value.code == "SSH_KEY_REFUSED"


async def test_a_host_is_taken_serves_and_is_given_back(host: tuple[PrefixHost, Place]) -> None:
    files, place = host
    facts = HostFacts(
        name="real", zone=ZONE, host_key_fingerprint=await read_fingerprint(place), gpu_count=1, vram_per_gpu_gb=24
    )
    fleet = Fleet([Enrolled(HostId("h-1"), place.address, place.port, facts)], {})
    cloud = fleet.new_cloud()
    with control_plane() as plane:
        server = await cloud.create_server(wanted(url=plane.url))
        assert server.provider_instance_id.startswith("h-1/")
        await cloud.start_server(server.provider_instance_id)
        await asyncio.to_thread(until, lambda: ("done", True) in plane.phases, "the installation's end")
        await asyncio.to_thread(until, files.starts, "an agent")
        found = await cloud.find_server(name=server.name)
        assert isinstance(found, Present)
        assert found.server.ip_address == "127.0.0.1"
        agent = files.starts()[0]
        assert runs(agent), "it outlives the connection that began it"
        await cloud.delete_server(server.provider_instance_id)
        assert not runs(agent)
        assert await cloud.find_server(provider_instance_id=server.provider_instance_id) == Absent()
