"""A server's whole life at Scaleway, cut off at each of its calls, before it was done and after: nothing is left.

After the cut another process goes on, which knows nothing but the server's name, zone and id, as the log would.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from handlers.cloud_ports import Absent, CloudUnavailableError, Present, ServerRequest, Volume
from infra.providers import scaleway_creation
from infra.providers.scaleway import ScalewayCloud
from infra.providers.scaleway_api import ScalewayAccount
from infra.simulated_clouds.scaleway.faults import Fault, FaultKind
from infra.simulated_clouds.scaleway.running import SimulatedScaleway, simulated_scaleway

T = TypeVar("T")

TRIES = 60
STEP_S = 5.0
REQUEST = ServerRequest(
    name="inventiv-worker-1-1",
    tags={"platform": "inventiv-agents", "instance": "1", "attempt": "1"},
    zone="fr-par-2",
    instance_type="L4-1-24G",
    agent_environment={"WORKER_AUTH_TOKEN": "wb_secret"},
)


class Life:
    """Repeats each call with a new adapter for as long as it has no answer."""

    def __init__(self, scaleway: SimulatedScaleway) -> None:
        self._scaleway = scaleway
        self._account = ScalewayAccount(
            project_id=scaleway.project_id, secret_key=scaleway.secret_key, url=scaleway.url
        )
        self.most_servers = 0

    def process(self) -> ScalewayCloud:
        return ScalewayCloud(self._account, lambda _request: "#cloud-config\n", ("fr-par-2",))

    async def until_answered(self, act: Callable[[ScalewayCloud], Awaitable[T]]) -> T:
        for _ in range(TRIES):
            try:
                return await act(self.process())
            except CloudUnavailableError:
                self._scaleway.clock.advance(STEP_S)
            finally:
                self.most_servers = max(self.most_servers, len(self._scaleway.cloud.servers))
        raise AssertionError("never answered")

    async def live(self) -> None:
        """Created, resized, started, opened, deleted with its disks: what the handlers do with it."""
        server_id = (await self.until_answered(lambda cloud: cloud.create_server(REQUEST))).provider_instance_id
        (there,) = self._scaleway.cloud.servers.values()
        assert there.user_data["cloud-init"] == b"#cloud-config\n"
        (boot,) = await self.until_answered(lambda cloud: cloud.volumes.list_volumes(server_id))
        await self.until_answered(lambda cloud: cloud.volumes.resize_volume(boot.provider_volume_id, 200))
        await self.until_answered(lambda cloud: cloud.start_server(server_id))
        self._scaleway.clock.advance(60)
        await self.until_answered(lambda cloud: cloud.ports.open_ports(server_id, [22, 8080]))
        assert there.state == "running"
        assert {one.size for one in self._scaleway.cloud.volumes.values()} == {200 * 10**9}
        await self.until_answered(lambda cloud: cloud.delete_server(server_id))
        await self.until_answered(_gone(server_id))
        await self.until_answered(lambda cloud: cloud.volumes.delete_volume(boot.provider_volume_id))
        await self.until_answered(_gone_volume(boot.provider_volume_id))


def _gone(server_id: str) -> Callable[[ScalewayCloud], Awaitable[None]]:
    async def look(cloud: ScalewayCloud) -> None:
        found = await cloud.find_server(provider_instance_id=server_id)
        assert not isinstance(found, Present)
        if found != Absent():
            raise CloudUnavailableError("unknown")

    return look


def _gone_volume(volume_id: str) -> Callable[[ScalewayCloud], Awaitable[None]]:
    async def look(cloud: ScalewayCloud) -> None:
        found = await cloud.volumes.find_volume(volume_id)
        if isinstance(found, Volume) or found != Absent():
            raise CloudUnavailableError("still there, or unknown")

    return look


async def calls_of_a_calm_life() -> int:
    async with simulated_scaleway() as scaleway:
        await Life(scaleway).live()
        return len(scaleway.cloud.calls)


@pytest.mark.parametrize("kind", ["reset", "done_then_reset"])
async def test_a_life_cut_off_at_any_call_leaves_nothing_and_rents_one_server(
    kind: FaultKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaleway_creation, "TRIES", 1)  # a process that died does not try again itself
    for nth in range(1, await calls_of_a_calm_life() + 1):
        async with simulated_scaleway() as scaleway:
            scaleway.faults.add(Fault(kind=kind, nth=nth))
            life = Life(scaleway)
            await life.live()
            assert scaleway.faults.hits == {kind: 1}, f"call {nth} was not reached"
            assert life.most_servers == 1, f"call {nth} rented a second server"
            assert not scaleway.cloud.servers, f"call {nth} left a server"
            assert not scaleway.cloud.volumes, f"call {nth} left a volume"
            assert len([group for group in scaleway.cloud.security_groups.values() if group.tags]) == 1
