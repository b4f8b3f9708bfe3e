"""A mail server on loopback that does what a test wants: takes mails, refuses, hangs, or drops the line.

async with smtp_server(Manners(rcpt="550 no such user")) as server: ... server.port, server.taken
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

HANG = "hang"
DROP = "drop"


@dataclass
class Manners:
    """What it answers at each step; HANG for nothing at all, DROP to close the line."""

    greeting: str = "220 mail.test"
    ehlo: str = "250-mail.test\r\n250 AUTH PLAIN LOGIN"
    auth: str = "235 ok"
    mail: str = "250 ok"
    rcpt: str = "250 ok"
    data: str = "354 go on"
    body: str = "250 taken"
    quit: str = "221 bye"


@dataclass
class Server:
    port: int = 0
    taken: list[bytes] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    connections: int = 0


@asynccontextmanager
async def smtp_server(manners: Manners, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """With `tls` it speaks nothing else, from the first byte."""
    server, tasks = Server(), set[asyncio.Task[None]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _talk(manners, server, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the client went, or the test is over
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _talk(manners: Manners, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _answer(manners.greeting, writer)
    while line := (await reader.readline()).decode().strip():
        server.said.append(line)
        verb = line.split()[0].split(":")[0].lower()
        await _answer(getattr(manners, {"helo": "ehlo"}.get(verb, verb), "250 ok"), writer)
        if verb == "data" and manners.data.startswith("354"):
            mail = await reader.readuntil(b"\r\n.\r\n")
            if manners.body.startswith("250") or manners.body == DROP:
                server.taken.append(mail)
            await _answer(manners.body, writer)
        if verb == "quit":
            return


async def _answer(words: str, writer: asyncio.StreamWriter) -> None:
    if words == HANG:
        await asyncio.Event().wait()
    if words == DROP:
        raise ConnectionResetError
    writer.write(f"{words}\r\n".encode())
    await writer.drain()


def own_certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A context for a server on 127.0.0.1, and the file of its certificate, which nobody but itself has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.test")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, SHA256())
    )
    path, key_path = folder / "mail.pem", folder / "mail.key"
    path.write_bytes(certificate.public_bytes(Encoding.PEM))
    key_path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, key_path)
    return context, path
