"""SSH to a real server of asyncssh's: whom it trusts, what it says when it may not, and that everything is bounded."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncssh
import pytest

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError
from infra.ssh import MAX_OUTPUT_BYTES, Login, Place, read_fingerprint, run_script
from tests.infra.ssh_hosts import OUR_PRIVATE_KEY, SshHost, silent_server, ssh_host

US = Login(user="root", private_key=OUR_PRIVATE_KEY)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[SshHost]:
    async with ssh_host(tmp_path / "host") as host:
        yield host


def at(host: SshHost) -> Place:
    return Place("127.0.0.1", host.port)


async def test_a_script_runs_and_its_end_is_told(host: SshHost) -> None:
    run = await run_script(at(host), US, "echo out; echo err >&2; exit 3", trusts=host.fingerprint.__eq__, timeout_s=10)
    assert run.exit_status == 3
    assert sorted(run.output.split()) == ["err", "out"]
    assert host.users[0] == "root"


async def test_the_script_stands_on_no_command_line(host: SshHost) -> None:
    await run_script(at(host), US, "echo wb_secret", trusts=host.fingerprint.__eq__, timeout_s=10)
    assert host.commands == ["sh -s"]


async def test_another_user_becomes_root_by_sudo(host: SshHost) -> None:
    login = Login(user="ubuntu", private_key=OUR_PRIVATE_KEY)
    await run_script(at(host), login, "true", trusts=host.fingerprint.__eq__, timeout_s=10)
    assert host.users[0] == "ubuntu"
    assert host.commands == ["sudo -n sh -s"]


async def test_a_host_with_another_key_gets_nothing(host: SshHost) -> None:
    with pytest.raises(CloudRefusedError) as refused:
        await run_script(at(host), US, "true", trusts="SHA256:other".__eq__, timeout_s=10)
    assert (refused.value.code, refused.value.kind) == ("SSH_HOST_KEY_CHANGED", "auth")
    assert host.users == []
    assert host.commands == []


async def test_a_host_that_does_not_know_us_says_so(host: SshHost) -> None:
    host.trouble = "denied"
    with pytest.raises(CloudRefusedError) as refused:
        await run_script(at(host), US, "true", trusts=host.fingerprint.__eq__, timeout_s=10)
    assert (refused.value.code, refused.value.kind) == ("SSH_KEY_REFUSED", "auth")
    assert OUR_PRIVATE_KEY not in refused.value.message


LOCKED = asyncssh.generate_private_key("ssh-ed25519").export_private_key("pkcs8-pem", passphrase="secret").decode()


@pytest.mark.parametrize("key", ["", "no key", LOCKED])
async def test_a_key_that_cannot_be_used_is_refused_before_anybody_is_asked(host: SshHost, key: str) -> None:
    with pytest.raises(CloudRefusedError) as refused:
        await run_script(at(host), Login(user="root", private_key=key), "true", trusts=bool, timeout_s=10)
    assert refused.value.code == "SSH_KEY_UNREADABLE"
    assert host.open_connections == 0


async def test_a_host_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(CloudUnavailableError):
        await run_script(Place("127.0.0.1", 9), US, "true", trusts=bool, timeout_s=10)
    with pytest.raises(CloudUnavailableError):
        await read_fingerprint(Place("127.0.0.1", 9))


async def test_a_script_that_lasts_too_long_is_given_up(host: SshHost) -> None:
    with pytest.raises(CloudUnavailableError, match=r"not done within 0\.5 s"):
        await run_script(at(host), US, "sleep 30", trusts=host.fingerprint.__eq__, timeout_s=0.5)


async def test_a_host_that_says_nothing_is_given_up() -> None:
    with silent_server() as port:
        with pytest.raises(CloudUnavailableError):
            await run_script(Place("127.0.0.1", port), US, "true", trusts=bool, timeout_s=0.3)
        with pytest.raises(CloudUnavailableError):
            await read_fingerprint(Place("127.0.0.1", port), timeout_s=0.3)


async def test_a_connection_that_is_cut_leaves_nobody_knowing(host: SshHost) -> None:
    host.trouble = "cut"
    with pytest.raises(CloudUnavailableError):
        await run_script(at(host), US, "true", trusts=host.fingerprint.__eq__, timeout_s=10)


async def test_the_end_of_a_long_output_is_kept(host: SshHost) -> None:
    script = "i=0; while [ $i -lt 20000 ]; do echo line-$i; i=$((i+1)); done"
    run = await run_script(at(host), US, script, trusts=host.fingerprint.__eq__, timeout_s=30)
    assert len(run.output) == MAX_OUTPUT_BYTES
    assert run.output.endswith("line-19999\n")


async def test_a_fingerprint_is_the_key_s_own(host: SshHost) -> None:
    assert await read_fingerprint(at(host)) == host.key.get_fingerprint()


async def test_no_connection_is_left_behind(host: SshHost) -> None:
    for _ in range(3):
        await run_script(at(host), US, "true", trusts=host.fingerprint.__eq__, timeout_s=10)
    await asyncio.wait_for(host.quiet.wait(), timeout=5)
