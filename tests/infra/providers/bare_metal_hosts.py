"""Enrolled hosts for tests of the provider bare_metal: two of one kind, each an SSH server of its own."""

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from domain.host import HostFacts, HostId, Slot
from handlers.cloud_ports import ServerRequest
from infra.providers.bare_metal import BareMetalCloud
from tests.infra.providers.bootstrap.host import CHECKSUM
from tests.infra.ssh_hosts import OUR_PRIVATE_KEY, SshHost, ssh_host

ZONE = "rack"
MONDAY_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
CLOSED = (Slot(day=5, start_minute=0, end_minute=60),)


@dataclass(frozen=True)
class Enrolled:
    """As projections/hosts.py shows a host."""

    id: HostId
    address: str
    ssh_port: int
    facts: HostFacts


@dataclass
class Fleet:
    """The organisation's hosts; `machines` are what stands behind them, by the host's id."""

    hosts: list[Enrolled]
    machines: dict[str, SshHost]

    async def listed(self) -> Sequence[Enrolled]:
        return self.hosts

    def new_cloud(self) -> BareMetalCloud:
        return BareMetalCloud(
            self.listed, private_key=OUR_PRIVATE_KEY, agent_sha256=CHECKSUM, clock=lambda: MONDAY_NOON
        )

    def change(self, host_id: str, **facts: object) -> None:
        self.hosts = [
            replace(host, facts=msgspec.structs.replace(host.facts, **facts)) if host.id == host_id else host
            for host in self.hosts
        ]

    def change_all(self, **facts: object) -> None:
        for host in self.hosts:
            self.change(host.id, **facts)


@asynccontextmanager
async def fleet(folder: Path, count: int = 2) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        machines = [await stack.enter_async_context(ssh_host(folder / f"host-{n}")) for n in range(count)]
        hosts = [
            Enrolled(
                id=HostId(f"0192aaaa-0000-7000-8000-00000000b{number:03}"),
                address="127.0.0.1",
                ssh_port=machine.port,
                facts=HostFacts(
                    name=f"host-{number}",
                    zone=ZONE,
                    host_key_fingerprint=machine.fingerprint,
                    gpu_count=1,
                    vram_per_gpu_gb=24,
                    cpu_count=8,
                    ram_gb=64,
                    price_eur_micros_per_hour=900_000,
                ),
            )
            for number, machine in enumerate(machines)
        ]
        yield Fleet(hosts, {host.id: machine for host, machine in zip(hosts, machines, strict=True)})


def wanted(name: str = "inventiv-worker-1-1", url: str = "http://127.0.0.1:9", **environment: str) -> ServerRequest:
    """A request of an instance called as its server; `url` of a control plane, by default one where nobody is."""
    return ServerRequest(
        name=name,
        tags={"platform": "inventiv-agents", "instance": name},
        zone=ZONE,
        instance_type="host:1x24",
        agent_environment={
            "CONTROL_PLANE_URL": url,
            "INSTANCE_ID": name,
            "MODEL_ID": "mock-echo-model",
            "WORKER_AUTH_TOKEN": f"wb_{name}",
            "WORKER_ENGINE": "simulated",
            **environment,
        },
    )
