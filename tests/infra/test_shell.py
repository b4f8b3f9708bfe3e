"""Scripts on servers: host keys are pinned before the first one, and enrolled hosts show what their owner said."""

from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import asyncssh
import pytest
from msgspec.structs import replace

from domain.host import host_id_of
from domain.ids import OrganizationId
from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError
from infra.host_keys import HostKeys
from infra.master_key import read_master_key
from infra.shell import SshShell
from infra.vault_tables import create_vault, vault_pool
from projections.hosts import HostView
from tests.examples import ACME, GLOBEX, HOST_FACTS
from tests.given import NOON
from tests.infra.ssh_hosts import OUR_PRIVATE_KEY, SshHost, ssh_host

LOOPBACK = "127.0.0.1"


@pytest.fixture
async def pins(postgres_url: str, tmp_path: Path) -> AsyncIterator[HostKeys]:
    async with vault_pool(postgres_url) as pool:
        await create_vault(pool, read_master_key(tmp_path / "secrets", make=True))
        async with pool.connection() as connection:
            await connection.execute("TRUNCATE vault.host_keys")
        yield HostKeys(pool)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[SshHost]:
    async with ssh_host(tmp_path / "host") as host:
        yield host


def shell_to(host: SshHost, pins: HostKeys, *, enrolled: Sequence[HostView] = (), **credentials: str) -> SshShell:
    async def open_credentials(_organization: str, _provider: str, /) -> Mapping[str, str]:
        return {"ssh_private_key": OUR_PRIVATE_KEY, **credentials}

    async def hosts(_organization: OrganizationId, /) -> Sequence[HostView]:
        return enrolled

    return SshShell(open_credentials, pins, hosts, port=host.port)


async def test_a_host_key_is_pinned_at_its_first_use(host: SshHost, pins: HostKeys) -> None:
    shell = shell_to(host, pins)
    run = await shell.run(ACME, "scaleway", LOOPBACK, "echo hello", timeout_s=10)
    assert (run.exit_status, run.output) == (0, "hello\n")
    assert await pins.find(ACME, "scaleway", LOOPBACK) == host.fingerprint
    assert await pins.find(GLOBEX, "scaleway", LOOPBACK) == ""


async def test_another_key_at_a_pinned_address_gets_no_script(pins: HostKeys, tmp_path: Path) -> None:
    async with ssh_host(tmp_path / "first") as first:
        await shell_to(first, pins).run(ACME, "scaleway", LOOPBACK, "true", timeout_s=10)
    async with ssh_host(tmp_path / "second", port=first.port) as second:
        with pytest.raises(CloudRefusedError) as refused:
            await shell_to(second, pins).run(ACME, "scaleway", LOOPBACK, "true", timeout_s=10)
        assert (refused.value.code, refused.value.kind) == ("SSH_HOST_KEY_CHANGED", "auth")
        assert second.commands == []
        assert await pins.pin(ACME, "scaleway", LOOPBACK, second.fingerprint) is False


async def test_a_pin_that_was_long_unused_is_forgotten(pins: HostKeys) -> None:
    await pins.pin(ACME, "scaleway", LOOPBACK, "SHA256:old")
    async with pins._pool.connection() as connection:
        await connection.execute("UPDATE vault.host_keys SET used_at = now() - interval '3 hours'")
    assert await pins.find(ACME, "scaleway", LOOPBACK) == ""
    assert await pins.pin(ACME, "scaleway", LOOPBACK, "SHA256:new") is True
    assert await pins.find(ACME, "scaleway", LOOPBACK) == "SHA256:new"


async def test_of_two_that_pin_at_once_one_key_wins(pins: HostKeys) -> None:
    won = [await pins.pin(ACME, "aws", LOOPBACK, key) for key in ("SHA256:a", "SHA256:b", "SHA256:a")]
    assert won == [True, False, True]


async def test_the_organisation_says_who_logs_in(host: SshHost, pins: HostKeys) -> None:
    await shell_to(host, pins, ssh_user="ubuntu").run(ACME, "aws", LOOPBACK, "true", timeout_s=10)
    assert host.users == ["ubuntu"]


async def test_without_a_key_nobody_is_asked(host: SshHost, pins: HostKeys) -> None:
    with pytest.raises(CloudRefusedError) as refused:
        await shell_to(host, pins, ssh_private_key="").run(ACME, "aws", LOOPBACK, "true", timeout_s=10)
    assert refused.value.code == "MISSING_PROVIDER_CREDENTIALS"


async def test_a_vault_that_is_away_leaves_nobody_knowing(host: SshHost, pins: HostKeys) -> None:
    async def away(_organization: str, _provider: str, /) -> Mapping[str, str]:
        raise ConnectionError("the vault is away")

    async def hosts(_organization: OrganizationId, /) -> Sequence[HostView]:
        return ()

    with pytest.raises(CloudUnavailableError):
        await SshShell(away, pins, hosts, port=host.port).run(ACME, "aws", LOOPBACK, "true", timeout_s=10)


async def test_an_enrolled_host_must_show_the_key_that_its_owner_confirmed(host: SshHost, pins: HostKeys) -> None:
    enrolled = HostView(
        id=host_id_of(ACME, LOOPBACK, host.port),
        organization_id=ACME,
        address=LOOPBACK,
        ssh_port=host.port,
        facts=replace(HOST_FACTS, host_key_fingerprint=host.fingerprint, ssh_user="keeper"),
        enrolled_at=NOON,
    )
    await shell_to(host, pins, enrolled=[enrolled]).run(ACME, "bare_metal", LOOPBACK, "true", timeout_s=10)
    assert host.users == ["keeper"]
    other = replace(enrolled, facts=replace(enrolled.facts, host_key_fingerprint="SHA256:" + "x" * 43))
    with pytest.raises(CloudRefusedError) as refused:
        await shell_to(host, pins, enrolled=[other]).run(ACME, "bare_metal", LOOPBACK, "true", timeout_s=10)
    assert refused.value.code == "SSH_HOST_KEY_CHANGED"
    with pytest.raises(CloudRefusedError) as unknown:
        await shell_to(host, pins).run(ACME, "bare_metal", LOOPBACK, "true", timeout_s=10)
    assert unknown.value.code == "HOST_NOT_ENROLLED"


def test_fingerprints_look_the_way_owners_know_them() -> None:
    """As ssh-keygen -l shows them."""
    assert asyncssh.generate_private_key("ssh-ed25519").get_fingerprint().startswith("SHA256:")
