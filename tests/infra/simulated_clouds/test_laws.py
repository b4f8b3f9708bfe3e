"""What holds of the simulated Scaleway after any sequence of calls: nothing is lost, doubled, or billed in secret."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from infra.providers.loopback import Place
from infra.simulated_clouds.scaleway.calls import Call
from infra.simulated_clouds.scaleway.clock import Clock
from infra.simulated_clouds.scaleway.cloud import SimulatedCloud
from infra.simulated_clouds.scaleway.errors import ApiError
from infra.simulated_clouds.scaleway.offers import GB, GPU_IMAGE, Offer
from infra.simulated_clouds.scaleway.resources import Server
from infra.simulated_clouds.scaleway.routes import ROUTES
from infra.simulated_clouds.scaleway.running import new_account

ZONE, TYPE, STOCK = "fr-par-2", "L4-1-24G", 2
ACCOUNT = new_account()
HANDLERS = {route.operation: route.handler for route in ROUTES}
FOR_EVER_S = 10_000.0


class Switches:
    """Machines that only remember whether they are on."""

    def __init__(self) -> None:
        self.on: set[str] = set()

    def switch_on(self, server: Server, place: Place, offer: Offer) -> None:
        self.on.add(server.server_id)

    def switch_off(self, server_id: str) -> None:
        self.on.discard(server_id)

    def discard(self, server_id: str) -> None:
        self.on.discard(server_id)

    def powered_off(self) -> Sequence[str]:
        return ()


class World:
    """One account's calls, by number instead of by id."""

    def __init__(self) -> None:
        self.switches = Switches()
        self.cloud = SimulatedCloud(Clock(), self.switches)
        self.cloud.add_account(ACCOUNT)
        self.cloud.stock[(ZONE, TYPE)] = STOCK

    def call(self, operation: str, ids: dict[str, str] | None = None, **body: Any) -> Any:
        return HANDLERS[operation](self.cloud, Call(operation, ACCOUNT, ZONE, ids or {}, {}, body)).body

    def create(self, _n: int) -> None:
        self.call("create_server", commercial_type=TYPE, image=GPU_IMAGE, name="worker")

    def create_volume(self, _n: int) -> None:
        self.call("block:create_volume", from_empty={"size": 10 * GB})

    def act(self, action: str) -> Callable[[int], None]:
        return lambda n: self.call("server_action", self.server(n), action=action)

    def delete(self, n: int) -> None:
        self.call("delete_server", self.server(n))

    def delete_volume(self, n: int) -> None:
        self.call("block:delete_volume", self.volume(n))

    def attach(self, n: int) -> None:
        self.call("attach_server_volume", self.server(n), volume_id=self.volume(n)["volume_id"])

    def detach(self, n: int) -> None:
        self.call("detach_server_volume", self.server(n), volume_id=self.volume(n)["volume_id"])

    def grow(self, n: int) -> None:
        self.call("block:update_volume", self.volume(n), size=(20 + n) * GB)

    def wait(self, n: int) -> None:
        self.cloud.clock.advance(n)

    def server(self, n: int) -> dict[str, str]:
        return {"server_id": _pick(list(self.cloud.servers), n)}

    def volume(self, n: int) -> dict[str, str]:
        return {"volume_id": _pick(list(self.cloud.volumes), n)}

    def step(self, name: str, n: int) -> None:
        """A call that may be refused, but by a refusal of Scaleway's alone."""
        deed = self.act(name) if name in ACTIONS else getattr(self, name)
        with suppress(ApiError):
            deed(n)


ACTIONS = ("poweron", "poweroff", "terminate", "reboot", "stop_in_place")
NAMES = (*ACTIONS, "create", "create_volume", "delete", "delete_volume", "attach", "detach", "grow", "wait")
STEPS = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(0, 25)), max_size=60)


def _pick(ids: list[str], n: int) -> str:
    return ids[n % len(ids)] if ids else "none"


@given(STEPS)
def test_no_sequence_of_calls_breaks_the_books(steps: list[tuple[str, int]]) -> None:
    world = World()
    for name, n in steps:
        world.step(name, n)
        cloud = world.cloud
        held = sum(server.holds_slot for server in cloud.servers.values())
        assert cloud.stock[(ZONE, TYPE)] + held == STOCK
        assert world.switches.on == {s.server_id for s in cloud.servers.values() if s.state == "running"}
        assert set(cloud.places) == set(cloud.ips)
        assert {ip.server_id for ip in cloud.ips.values()} <= set(cloud.servers)
        slots = [volume_id for server in cloud.servers.values() for volume_id in server.volume_ids.values()]
        assert len(slots) == len(set(slots))
        assert set(slots) <= set(cloud.volumes)
        assert all(server.holds_slot for server in cloud.servers.values() if server.state in ("starting", "running"))


@given(STEPS)
def test_whatever_happened_before_everything_can_be_deleted(steps: list[tuple[str, int]]) -> None:
    world = World()
    for name, n in steps:
        world.step(name, n)
    world.wait(int(FOR_EVER_S))
    for server in list(world.cloud.servers.values()):
        if server.state != "stopped":
            world.call("server_action", {"server_id": server.server_id}, action="poweroff")
    world.wait(int(FOR_EVER_S))
    for server_id in list(world.cloud.servers):
        world.call("delete_server", {"server_id": server_id})
    world.wait(int(FOR_EVER_S))
    for volume_id in list(world.cloud.volumes):
        world.call("block:delete_volume", {"volume_id": volume_id})
    world.wait(int(FOR_EVER_S))
    left = (world.cloud.servers, world.cloud.volumes, world.cloud.ips, world.switches.on)
    assert left == ({}, {}, {}, set())
    assert world.cloud.stock[(ZONE, TYPE)] == STOCK
