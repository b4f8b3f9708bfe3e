"""Speaks SSH to one host: its key is checked first, then one script runs there, bounded in time and output.

    address, login, trusts(fingerprint) ──> connected: its key accepted, ours too ──> sh -s < script ──> CommandRun

Nothing of this machine's own SSH takes part: no ~/.ssh/config, no known_hosts, no agent, no default keys. The
surprising rule: the script goes through standard input, so it stands on no command line, where other users of the host
could read it; and the last line of each of ours starts it, so a connection that is cut runs nothing.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError, CommandRun

if TYPE_CHECKING:  # asyncssh takes 0.4 s to import, which most processes never need
    from asyncssh import SSHClientConnection, SSHClientProcess, SSHKey

DEFAULT_PORT = 22
CONNECT_TIMEOUT_S = 15.0
KEEPALIVE_S = 15
MISSED_KEEPALIVES = 3
MAX_OUTPUT_BYTES = 64_000
"""The end of what a script prints is kept."""
_CHUNK_BYTES = 16_384
_READS_SCRIPT = "sh -s"


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are on a host; `private_key` as OpenSSH or PEM text."""

    user: str
    private_key: str


class Place(msgspec.Struct, frozen=True):
    """Where a host's sshd listens."""

    address: str
    port: int = DEFAULT_PORT


Trusts = Callable[[str], bool]
"""Whether a host key of this fingerprint ("SHA256:...") is the host's own."""


async def run_script(place: Place, login: Login, script: str, *, trusts: Trusts, timeout_s: float) -> CommandRun:
    """Runs `script` as root on a host: directly, or through `sudo -n` for another user.

    Raises:
        CloudRefusedError: the host shows another key than the trusted one, or does not let us in (kind "auth").
        CloudUnavailableError: not reached, cut off or too slow; the script may have run.
    """
    try:
        async with asyncio.timeout(timeout_s), _connected(place, login, trusts) as connection:
            command = _READS_SCRIPT if login.user == "root" else f"sudo -n {_READS_SCRIPT}"
            return await _run(connection, command, script)
    except TimeoutError as error:
        raise CloudUnavailableError(f"SSH to {place.address}: not done within {timeout_s:g} s") from error


async def read_fingerprint(place: Place, *, timeout_s: float = CONNECT_TIMEOUT_S) -> str:
    """Of the key that the host shows now, "SHA256:..."; nothing proves yet that it is the host's own.

    Raises:
        CloudUnavailableError: the host was not reached, or speaks no SSH.
    """
    import asyncssh  # noqa: PLC0415 - see above

    try:
        async with asyncio.timeout(timeout_s):
            key = await asyncssh.get_server_host_key(place.address, place.port, config=None)
    except (OSError, asyncssh.Error) as error:
        raise CloudUnavailableError(f"SSH to {place.address}: {_words(error)}") from error
    if key is None:
        raise CloudUnavailableError(f"SSH to {place.address}: the host shows no key")
    return key.get_fingerprint()


@asynccontextmanager
async def _connected(place: Place, login: Login, trusts: Trusts) -> "AsyncIterator[SSHClientConnection]":
    import asyncssh  # noqa: PLC0415 - see above

    class _Client(asyncssh.SSHClient):
        """asyncssh asks its client object; this is the one question that we answer ourselves."""

        def validate_host_public_key(self, host: str, addr: str, port: int, key: "SSHKey") -> bool:  # noqa: ARG002 - its signature
            return trusts(key.get_fingerprint())

    try:
        key = asyncssh.import_private_key(login.private_key)
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        message = "ssh_private_key is no private key, or is locked by a passphrase"
        raise CloudRefusedError("SSH_KEY_UNREADABLE", message, "auth") from error
    try:
        connection = await asyncssh.connect(
            place.address,
            place.port,
            client_factory=_Client,
            username=login.user,
            client_keys=[key],
            known_hosts=lambda _host, _address, _port: ([], [], []),  # so that _Client is asked
            config=None,
            agent_path=None,
            gss_host=None,
            x509_trusted_certs=None,
            preferred_auth="publickey",
            connect_timeout=CONNECT_TIMEOUT_S,
            login_timeout=CONNECT_TIMEOUT_S,
            keepalive_interval=KEEPALIVE_S,
            keepalive_count_max=MISSED_KEEPALIVES,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        message = f"{place.address} shows another host key than the one that is trusted; nothing was sent to it"
        raise CloudRefusedError("SSH_HOST_KEY_CHANGED", message, "auth") from error
    except asyncssh.PermissionDenied as error:
        message = f"{place.address} does not let {login.user} in with the organisation's ssh_private_key"
        raise CloudRefusedError("SSH_KEY_REFUSED", message, "auth") from error
    except (OSError, asyncssh.Error) as error:
        raise CloudUnavailableError(f"SSH to {place.address}: {_words(error)}") from error
    try:
        yield connection
    except (OSError, asyncssh.Error) as error:
        raise CloudUnavailableError(f"SSH to {place.address} was cut off: {_words(error)}") from error
    finally:
        connection.abort()


async def _run(connection: "SSHClientConnection", command: str, script: str) -> CommandRun:
    import asyncssh  # noqa: PLC0415 - see above

    process: SSHClientProcess[bytes] = await connection.create_process(command, stderr=asyncssh.STDOUT, encoding=None)
    reading = asyncio.ensure_future(_tail(process))
    try:
        process.stdin.write(script.encode())
        process.stdin.write_eof()
        output = await reading
        ended = await process.wait()
    except BrokenPipeError as error:
        raise ConnectionError("the host took no script") from error
    finally:
        reading.cancel()
    status = ended.exit_status
    if status is None or status < 0:
        raise ConnectionError("the script did not end by itself")
    return CommandRun(exit_status=status, output=output.decode(errors="replace"))


async def _tail(process: "SSHClientProcess[bytes]") -> bytes:
    """The last MAX_OUTPUT_BYTES of what it prints; all is read, so that the script is never held up."""
    kept: deque[bytes] = deque()
    size = 0
    while chunk := await process.stdout.read(_CHUNK_BYTES):
        kept.append(chunk)
        size += len(chunk)
        while size - len(kept[0]) >= MAX_OUTPUT_BYTES:
            size -= len(kept.popleft())
    return b"".join(kept)[-MAX_OUTPUT_BYTES:]


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
