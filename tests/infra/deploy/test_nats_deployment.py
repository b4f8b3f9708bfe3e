"""The committed configuration, run as it is: three nodes with TLS between all of them, a key for each service."""

import asyncio
import datetime as dt
import ipaddress
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from infra.deploy import nats_keys, nats_permissions
from infra.embedded.child import READY_TIMEOUT_S, EmbeddedServerError, wait_until
from infra.embedded.nats import _binary
from infra.embedded.nats_cluster import NodePorts, free_node_ports
from infra.embedded.owned import OwnedServer
from infra.environment import NatsLogin
from infra.events.connection import connect_reader, connect_writer, disconnect
from infra.events.jetstream import JetStreamLog
from infra.events.port import LogUnavailableError
from infra.events.replicas import replica_findings
from infra.events.streams import verify_server
from infra.processes.roles import answers
from tests.infra.events.envelopes import append_of

ROOT = Path(__file__).parent.parent.parent.parent
COMMITTED = ROOT / "infra" / "deploy" / "nats"
HOST = "127.0.0.1"
START_ATTEMPTS = 3
MIGRATE_TIMEOUT_S = 60


class Node(OwnedServer):
    """A nats-server on the committed file, told by its environment who it is."""

    user: str | None = None
    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path, number: int, ports: list[NodePorts]) -> None:
        own = ports[number]
        self.name = f"inventiv-{number + 1}"
        self.log_path = folder / f"{self.name}.log"
        self.own = own
        self._folder = folder
        routes = {f"NATS_ROUTE_{at}": f"tls://{HOST}:{port.route}" for at, port in enumerate(ports, start=1)}
        self._variables = {
            "NATS_NAME": self.name,
            "NATS_LISTEN": f"{HOST}:{own.client}",
            "NATS_MONITOR": f"{HOST}:{own.monitor}",
            "NATS_CLUSTER": f"{HOST}:{own.route}",
            "NATS_STORE": str(folder / self.name),
            "NATS_CERT": str(folder / "node.pem"),
            "NATS_KEY": str(folder / "node.key"),
            "NATS_CA": str(folder / "ca.pem"),
            **routes,
        }

    async def prepare(self) -> None:
        """Nothing: files are made once for all."""

    def command(self) -> list[str]:
        return [str(_binary()), "-c", str(self._folder / "nats-server.conf")]

    def environment(self) -> dict[str, str]:
        return self._variables

    async def wait_ready(self, timeout_s: float = READY_TIMEOUT_S) -> None:
        async def healthy() -> bool:
            return await answers(HOST, self.own.monitor, "/healthz")

        await wait_until(healthy, self.name, timeout_s)


class Deployment:
    def __init__(self, folder: Path, nodes: list[Node]) -> None:
        self.folder = folder
        self.nodes = nodes
        self.url = ",".join(f"tls://{HOST}:{node.own.client}" for node in nodes)
        self.monitor_url = ",".join(f"http://{HOST}:{node.own.monitor}" for node in nodes)

    def login(self, identity: str) -> NatsLogin:
        return NatsLogin(nkey_file=self.folder / f"{identity}.nk", ca_file=self.folder / "ca.pem")

    def migrate(self) -> subprocess.CompletedProcess[str]:
        """As the README says it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("INVENTIV_")}
        variables = {
            "INVENTIV_NATS_URL": self.url,
            "INVENTIV_NATS_MONITOR_URL": self.monitor_url,
            "INVENTIV_NATS_NKEY_FILE": str(self.folder / "migration.nk"),
            "INVENTIV_NATS_CA_FILE": str(self.folder / "ca.pem"),
        }
        command = [sys.executable, "-m", "infra.cli.main", "migrate", "--replicas", "3"]
        return subprocess.run(
            command,
            env={**kept, **variables},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=MIGRATE_TIMEOUT_S,
            check=False,
        )


def write_certificates(folder: Path) -> None:
    """An authority and one certificate for all nodes, which live on one address here."""
    now = dt.datetime.now(dt.UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    ca_key, node_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def begun(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        made = x509.CertificateBuilder().subject_name(subject).issuer_name(name).public_key(key.public_key())
        made = made.serial_number(x509.random_serial_number()).not_valid_before(now - dt.timedelta(hours=1))
        return made.not_valid_after(now + dt.timedelta(days=1))

    ca = begun(name, ca_key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    authority = ca.add_extension(usage, critical=True).sign(ca_key, hashes.SHA256())
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))])
    node_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "node")])
    node = begun(node_name, node_key).add_extension(address, critical=False).sign(ca_key, hashes.SHA256())
    (folder / "ca.pem").write_bytes(authority.public_bytes(serialization.Encoding.PEM))
    (folder / "node.pem").write_bytes(node.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    key = node_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "node.key").write_bytes(key)


async def running(folder: Path) -> Deployment:
    """Another test run may take a port between our look and the server's bind."""
    for attempt in range(1, START_ATTEMPTS + 1):
        ports = list(free_node_ports(10_000 + secrets.randbelow(15_000)))
        nodes = [Node(folder, number, ports) for number in range(len(ports))]
        results = await asyncio.gather(*(node.start() for node in nodes), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        if not failures:
            return Deployment(folder, nodes)
        await asyncio.gather(*(node.stop() for node in nodes))
        if attempt == START_ATTEMPTS or not isinstance(failures[0], EmbeddedServerError):
            raise failures[0]
    raise AssertionError("unreachable")


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    for name in ("nats-server.conf", "permissions.conf"):
        (tmp_path / name).write_text((COMMITTED / name).read_text())
    nats_keys.make_keys(tmp_path)
    write_certificates(tmp_path)
    deployed = await running(tmp_path)
    yield deployed
    await asyncio.gather(*(node.stop() for node in deployed.nodes))


async def test_the_committed_cluster_runs_is_migrated_and_holds_each_service_to_its_rights(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrated = await asyncio.to_thread(deployment.migrate)
    assert migrated.returncode == 0, migrated
    web = await connect_writer(deployment.url, "web", deployment.login("web"))
    await verify_server(web, deployment.monitor_url, replicas=3)
    position = await JetStreamLog(web).append([append_of("evt.acme.instance.1", "one", expected=0)])
    assert position == 1
    assert await replica_findings(deployment.monitor_url) == []

    gateway = await connect_writer(deployment.url, "gateway", deployment.login("gateway"))
    refused = JetStreamLog(gateway, reply_timeout_s=0.5)
    with pytest.raises(LogUnavailableError, match="permissions violation"):
        await refused.append([append_of("evt.acme.instance.2", "two", expected=0)])
    for connection in (web, gateway):
        await disconnect(connection)

    monkeypatch.setattr("infra.events.connection.CONNECT_BUDGET_S", 1.0)
    with pytest.raises(LogUnavailableError):  # a key, but nobody to vouch for the servers
        await connect_reader(deployment.url, "web", NatsLogin(nkey_file=deployment.folder / "web.nk"))
    with pytest.raises(LogUnavailableError):  # the authority's certificate, but no key
        await connect_reader(deployment.url, "web", NatsLogin(ca_file=deployment.folder / "ca.pem"))


def test_the_committed_permissions_are_those_of_the_code() -> None:
    assert nats_permissions.TARGET.read_text() == nats_permissions.permissions_file()


def test_keys_are_made_once_and_only_public_ones_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert nats_keys.main([str(tmp_path)]) == 0
    first = capsys.readouterr().out
    assert nats_keys.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == first
    for seed in tmp_path.glob("*.nk"):
        assert seed.stat().st_mode & 0o077 == 0
        assert seed.read_text() not in first
    (tmp_path / "web.nk").chmod(0o644)
    assert nats_keys.main([str(tmp_path)]) == 1
    assert nats_keys.main([]) == 2
