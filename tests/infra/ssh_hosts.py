"""Hosts on loopback that speak SSH: asyncssh's own server, whose shell is this machine's /bin/sh below a folder.

    async with ssh_host(folder, public_key) as host:      host.trouble = "nonsense"

What a host's trouble is, each new connection or command meets: "down" (connections are cut at once), "denied" (no key
is let in), "nonsense" (the shell says something else), "ill" (each command fails), "cut" (the next command is done, and
the connection is cut before its answer), "cut_claim" (the same for the next one that claims the host).
"""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import asyncssh

from tests.infra.providers.bootstrap.host import PrefixHost

HostTrouble = Literal["", "down", "denied", "nonsense", "ill", "cut", "cut_claim"]
OUR_KEY = asyncssh.generate_private_key("ssh-ed25519")
OUR_PRIVATE_KEY = OUR_KEY.export_private_key().decode()


@dataclass
class SshHost:
    """One sshd; `files` is what it looks like from inside, `commands` what it was asked to run."""

    files: PrefixHost
    key: asyncssh.SSHKey
    lets_in: bytes = OUR_KEY.public_data
    port: int = 0
    trouble: HostTrouble = ""
    serving: set[asyncio.Task[None]] = field(default_factory=set)
    users: list[str] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    open_connections: int = 0
    quiet: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def fingerprint(self) -> str:
        return self.key.get_fingerprint()


@asynccontextmanager
async def ssh_host(
    folder: Path, *, key: asyncssh.SSHKey | None = None, address: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[SshHost]:
    """Listens until the end; what its scripts left running is ended then."""
    host = SshHost(PrefixHost(folder), key or asyncssh.generate_private_key("ssh-ed25519"))
    host.files.prepare()

    class Server(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            host.open_connections += 1
            host.quiet.clear()
            if host.trouble == "down":
                conn.abort()

        def connection_lost(self, exc: Exception | None) -> None:
            host.open_connections -= 1
            if not host.open_connections:
                host.quiet.set()

        def begin_auth(self, username: str) -> bool:
            host.users.append(username)
            return True

        def public_key_auth_supported(self) -> bool:
            return True

        def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
            return host.trouble != "denied" and key.public_data == host.lets_in

    async def serve(process: asyncssh.SSHServerProcess[bytes]) -> None:
        host.commands.append(process.command or "")
        task = asyncio.ensure_future(_serve(host, process))
        host.serving.add(task)
        task.add_done_callback(host.serving.discard)
        await task

    listener = await asyncssh.listen(
        address, port, server_factory=Server, server_host_keys=[host.key], process_factory=serve, encoding=None
    )
    host.port = listener.get_port()
    try:
        yield host
    finally:
        listener.close()
        await listener.wait_closed()
        await _cancelled(host.serving)
        host.files.end()


@contextmanager
def silent_server() -> Iterator[int]:
    """Its port: the kernel accepts connections there, and nobody ever says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


async def _cancelled(tasks: set[asyncio.Task[None]]) -> None:
    for task in list(tasks):
        task.cancel()
    await asyncio.gather(*list(tasks), return_exceptions=True)


async def _serve(host: SshHost, process: "asyncssh.SSHServerProcess[bytes]") -> None:
    if host.trouble == "nonsense":
        process.stdout.write(b"Welcome! Please accept the terms of use.\n")
        process.exit(0)
        return
    if host.trouble == "ill":
        process.stderr.write(b"sh: cannot fork\n")
        process.exit(1)
        return
    script = await process.stdin.read()
    child = await asyncio.create_subprocess_shell(
        process.command or "exit 1",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=host.files.variables,
        start_new_session=True,
    )
    try:
        output, _ = await child.communicate(script)
    finally:
        if child.returncode is None:
            os.killpg(child.pid, signal.SIGKILL)
            await child.wait()
    if host.trouble == "cut" or (host.trouble == "cut_claim" and b"deed=claim" in script):
        host.trouble = ""
        process.channel.get_connection().abort()
        return
    process.stdout.write(output)
    process.exit(child.returncode or 0)
