"""Our bootstrap by SSH on a server that does not install itself: see handlers.cloud_ports.Shell.

    rented server: its host key is looked at, pinned, and from then on demanded (host_keys.py)
    enrolled host: its owner said the fingerprint, and the user

The key that lets us in is the organisation's credential `ssh_private_key` of that provider; `ssh_user` may say who logs
in, root when it does not. The surprising rule: even the first script goes only to a key that was pinned before it.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from domain.host import PROVIDER as BARE_METAL
from domain.ids import OrganizationId
from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError, CommandRun
from handlers.person_ports import OpenCredentials
from infra.ssh import Login, Place, Trusts, read_fingerprint, run_script
from projections.hosts import HostView, list_hosts
from projections.projection import Read

DEFAULT_USER = "root"

HostsOf = Callable[[OrganizationId], Awaitable[Sequence[HostView]]]
"""Those that are enrolled now. Raises OSError."""


class Pins(Protocol):
    """What SshShell needs of infra.host_keys.HostKeys; raises OSError."""

    async def find(self, organization: OrganizationId, provider: str, address: str) -> str: ...

    async def pin(self, organization: OrganizationId, provider: str, address: str, fingerprint: str) -> bool: ...


def hosts_in(read: Read) -> HostsOf:
    """Asks the read model."""

    async def hosts_of(organization: OrganizationId) -> Sequence[HostView]:
        async with read("hosts") as connection:
            return await list_hosts(connection, organization)

    return hosts_of


class SshShell:
    """Implements Shell.

    Args:
        credentials: of an organisation at a provider.
        pins: host keys that were seen.
        hosts: an organisation's own.
        port: where rented servers' sshd listens.
    """

    def __init__(self, credentials: OpenCredentials, pins: Pins, hosts: HostsOf, port: int = 22) -> None:
        self._credentials = credentials
        self._pins = pins
        self._hosts = hosts
        self._port = port

    async def run(
        self, organization: OrganizationId, provider: str, ip_address: str, script: str, *, timeout_s: float
    ) -> CommandRun:
        try:
            credentials = await self._credentials(organization, provider)
            if not credentials.get("ssh_private_key"):
                message = f"The organisation gave no ssh_private_key for {provider}."
                raise CloudRefusedError("MISSING_PROVIDER_CREDENTIALS", message, "auth")
            if provider == BARE_METAL:
                place, user, trusts = await self._enrolled(organization, ip_address)
            else:
                place, user = Place(ip_address, self._port), credentials.get("ssh_user") or DEFAULT_USER
                trusts = await self._pinned(organization, provider, place)
        except CloudUnavailableError:
            raise
        except OSError as error:
            raise CloudUnavailableError(f"SSH to {ip_address} could not be prepared: {error}") from error
        login = Login(user=user, private_key=credentials["ssh_private_key"])
        return await run_script(place, login, script, trusts=trusts, timeout_s=timeout_s)

    async def _enrolled(self, organization: OrganizationId, address: str) -> tuple[Place, str, Trusts]:
        host = next((host for host in await self._hosts(organization) if host.address == address), None)
        if host is None:
            raise CloudRefusedError("HOST_NOT_ENROLLED", f"No host is enrolled at {address}.", "not_found")
        return Place(address, host.ssh_port), host.facts.ssh_user, host.facts.host_key_fingerprint.__eq__

    async def _pinned(self, organization: OrganizationId, provider: str, place: Place) -> Trusts:
        pinned = await self._pins.find(organization, provider, place.address)
        shown = pinned or await read_fingerprint(place)
        if await self._pins.pin(organization, provider, place.address, shown):
            return shown.__eq__
        message = f"{place.address} shows another host key than the one that was pinned; nothing was sent to it"
        raise CloudRefusedError("SSH_HOST_KEY_CHANGED", message, "auth")
