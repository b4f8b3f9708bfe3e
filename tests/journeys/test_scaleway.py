"""A machine rented at Scaleway, from the credentials to the last deleted volume: over HTTP, a real agent behind it.

The Scaleway is infra/simulated_clouds, a process of its own, a hundred times as fast as the real one.
"""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.infra.simulated_clouds.processes import agents_below
from tests.journeys.platform import HTTP, INVENTIV, MODEL, ROOT, Platform, running, until

pytestmark = pytest.mark.journey

SPEED = "100"
ZONE = "fr-par-2"
TYPE = "L4-1-24G"
LOST = {"kind": "done_then_reset", "operation": "server_action:poweron"}
SWALLOWED = {"kind": "swallowed", "operation": "block:delete_volume", "times": 0}


@dataclass
class Scaleway:
    """What runs at the simulated provider, seen from behind the curtain."""

    card: dict[str, str]

    @property
    def state(self) -> dict[str, Any]:
        return dict(HTTP.get(f"{self.card['api_url']}/_simulation/state").json())

    @property
    def leftovers(self) -> list[str]:
        """All that is still billed."""
        state = self.state
        servers = [f"server {server['name']} {server['state']}" for server in state["servers"]]
        volumes = [f"volume {volume['name']} {volume['state']}" for volume in state["volumes"]]
        return servers + volumes + [f"address {ip['address']}" for ip in state["ips"]]

    def add_fault(self, fault: dict[str, Any]) -> None:
        HTTP.post(f"{self.card['api_url']}/_simulation/faults", json=fault).raise_for_status()

    def clear_faults(self) -> None:
        HTTP.delete(f"{self.card['api_url']}/_simulation/faults").raise_for_status()


@contextmanager
def simulated(folder: Path) -> Iterator[Scaleway]:
    command = [*INVENTIV, "simulate-cloud", "scaleway", "--port", "0", "--speed", SPEED, "--json"]
    with (folder.parent / "scaleway.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--folder", str(folder)], cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        yield Scaleway(json.loads(process.stdout.readline()))
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0
        assert process.stdout is not None
        process.stdout.close()
        assert agents_below(folder) == []


@pytest.fixture(scope="module")
def scaleway() -> Iterator[Scaleway]:
    with tempfile.TemporaryDirectory(prefix="scaleway-") as folder, simulated(Path(folder) / "data") as started:
        yield started


@pytest.fixture(scope="module")
def renting(scaleway: Scaleway) -> Iterator[Platform]:
    """A platform of its own, which reaches the simulated Scaleway and has an account there."""
    url = scaleway.card["api_url"]
    with (
        tempfile.TemporaryDirectory(prefix="inventiv-") as folder,
        running(Path(folder), INVENTIV_SCALEWAY_URL=url) as platform,
    ):
        names = ("project_id", "secret_key", "access_key", "organization_id")
        values = {name: scaleway.card[name] for name in names}
        given = platform.rest("PUT", "/providers/scaleway/credentials", json={"values": values})
        assert given.status_code == 200, given.text
        yield platform


def deployed(platform: Platform) -> str:
    """A ready instance on a rented L4; its id."""
    place = ("--provider", "scaleway", "--zone", ZONE, "--type", TYPE, "--yes")
    return str(platform.json("deploy", MODEL, *place)["instances"][0]["id"])


def instance(platform: Platform, instance_id: str) -> dict[str, Any]:
    return dict(platform.rest("GET", f"/instances/{instance_id}").json())


def status_is(platform: Platform, instance_id: str, status: str) -> bool:
    return bool(instance(platform, instance_id)["status"] == status)


def test_from_the_credentials_to_an_answer_to_the_last_volume(renting: Platform, scaleway: Scaleway) -> None:
    scaleway.add_fault(LOST)
    instance_id = deployed(renting)
    assert hits(scaleway, "done_then_reset") == 1
    (server,) = scaleway.state["servers"]
    assert (server["commercial_type"], server["zone"], server["state"]) == (TYPE, ZONE, "running")
    (volume,) = scaleway.state["volumes"]
    assert volume["size"] > 20 * 10**9, "the boot volume was grown before the power came on"
    assert instance(renting, instance_id)["ip_address"] == scaleway.state["ips"][0]["address"]
    answer = until(lambda: renting.inventiv("chat", MODEL, "hello, rented one").out, "the gateway answers")
    assert "hello, rented one" in answer

    scaleway.add_fault(SWALLOWED)
    assert renting.rest("DELETE", f"/instances/{instance_id}").status_code == 202
    until(lambda: not scaleway.state["servers"], "the server is gone")
    # The control: a provider that says yes and deletes nothing is found out, by the platform and by this test.
    until(lambda: hits(scaleway, "swallowed") >= 2, "the deletion of its volume was tried, and tried again")
    assert [words.split()[0] for words in scaleway.leftovers] == ["volume"]
    assert status_is(renting, instance_id, "terminating")

    scaleway.clear_faults()
    until(lambda: status_is(renting, instance_id, "terminated"), "the instance has ended")
    assert scaleway.leftovers == []


def hits(scaleway: Scaleway, kind: str) -> int:
    """How often a kind of fault has hit."""
    shown = HTTP.get(f"{scaleway.card['api_url']}/_simulation/faults").json()
    return int(shown["hits"].get(kind, 0))
