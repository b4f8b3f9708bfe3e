"""The switch of a simulated server: actions, the states between, and what ends with it.

    stopped ──poweron──> starting ──> running ──poweroff──> stopping ──> stopped
                            └──reboot───┘ ├──stop_in_place──> stopping ──> stopped in place (still paid for)
                                          └──terminate──> stopping ──> gone; block volumes are only detached

A machine gets its address when it runs, and loses a dynamic one when it is off. The surprising rule: between two states
nothing may be asked of a server, not even its end; so no action is ever overtaken by another.
"""

from collections.abc import Callable
from contextlib import suppress

from handlers.cloud_ports import CloudRefusedError
from infra.simulated_clouds.scaleway.calls import Call, Reply, word
from infra.simulated_clouds.scaleway.cloud import SimulatedCloud, new_id
from infra.simulated_clouds.scaleway.errors import invalid_argument, invalid_request, locked, transient_state
from infra.simulated_clouds.scaleway.offers import OFFERS
from infra.simulated_clouds.scaleway.resources import Gone, Ip, Server
from infra.simulated_clouds.scaleway.shown import ALLOWED_ACTIONS, shown_task
from infra.simulated_clouds.scaleway.volumes import detach, drop

Deed = Callable[[SimulatedCloud, Server], None]


def changeable(cloud: SimulatedCloud, call: Call) -> Server:
    """The server that a call means, unless Scaleway's abuse team has locked it."""
    server = cloud.server(call.account, call.zone, call.ids["server_id"])
    if server.state == "locked":
        raise locked("instance_server", server.server_id)
    return server


def list_server_actions(cloud: SimulatedCloud, call: Call) -> Reply:
    server = cloud.server(call.account, call.zone, call.ids["server_id"])
    return Reply(200, {"actions": ALLOWED_ACTIONS.get(server.state, [])})


def server_action(cloud: SimulatedCloud, call: Call) -> Reply:
    """Accepts an action and begins it; the state tells when it is over."""
    server = changeable(cloud, call)
    action = word(call, "action")
    deed = ACTIONS.get(action)
    if deed is None:
        raise invalid_argument("action", "constraint", f"{action or 'nothing'} is no action")
    if server.state in ("starting", "stopping"):
        raise transient_state("instance_server", server.server_id, server.state)
    if action not in ALLOWED_ACTIONS[server.state]:
        raise invalid_request(f"server should be {'stopped' if action == 'poweron' else 'running'}")
    if server.protected and action != "poweron":
        raise invalid_request("server is protected")
    deed(cloud, server)
    server.updated_at = cloud.clock.now
    return Reply(202, {"task": shown_task(cloud, new_id(), server, action)})


def _power_on(cloud: SimulatedCloud, server: Server) -> None:
    cloud.take_slot(server)
    server.state, server.state_detail = "starting", "provisioning node"
    _later(cloud, server, cloud.delays.start_s, _run)


def _reboot(cloud: SimulatedCloud, server: Server) -> None:
    cloud.machines.switch_off(server.server_id)
    server.state, server.state_detail = "starting", "rebooting"
    _later(cloud, server, cloud.delays.start_s, _run)


def _power_off(cloud: SimulatedCloud, server: Server) -> None:
    _stop(cloud, server, _rest)


def _stop_in_place(cloud: SimulatedCloud, server: Server) -> None:
    _stop(cloud, server, _rest_in_place)


def _terminate(cloud: SimulatedCloud, server: Server) -> None:
    _stop(cloud, server, remove)


ACTIONS: dict[str, Deed] = {
    "poweron": _power_on,
    "poweroff": _power_off,
    "stop_in_place": _stop_in_place,
    "terminate": _terminate,
    "reboot": _reboot,
}


def _stop(cloud: SimulatedCloud, server: Server, then: Deed) -> None:
    cloud.machines.switch_off(server.server_id)
    server.state, server.state_detail = "stopping", "stopping"
    _later(cloud, server, cloud.delays.stop_s, then)


def _later(cloud: SimulatedCloud, server: Server, seconds: float, then: Deed) -> None:
    def end() -> None:
        if server.state != "locked":
            server.updated_at = cloud.clock.now
            then(cloud, server)

    cloud.clock.at(cloud.clock.now + seconds, end)


def _run(cloud: SimulatedCloud, server: Server) -> None:
    server.state, server.state_detail = "running", "booted"
    own = [ip for ip in cloud.ips.values() if ip.server_id == server.server_id]
    if server.dynamic_ip_required and not own:
        with suppress(CloudRefusedError):  # no loopback address is left: it runs, unreachable
            own = [_dynamic_ip(cloud, server)]
    if own:
        cloud.machines.switch_on(server, cloud.places[own[0].ip_id], OFFERS[server.commercial_type])


def _dynamic_ip(cloud: SimulatedCloud, server: Server) -> Ip:
    ip_id = new_id()
    address = cloud.new_address(ip_id)
    ip = Ip(ip_id, server.zone, server.project_id, address, True, cloud.clock.now, server.server_id)
    cloud.ips[ip_id] = ip
    return ip


def power_off_from_within(cloud: SimulatedCloud, server_id: str) -> None:
    """What `shutdown -h now` on the machine itself leads to: it keeps its slot, its address and its price."""
    server = cloud.servers.get(server_id)
    if server is not None and server.state == "running":
        cloud.machines.switch_off(server_id)
        server.updated_at = cloud.clock.now
        _rest_in_place(cloud, server)


def _rest_in_place(_cloud: SimulatedCloud, server: Server) -> None:
    server.state, server.state_detail = "stopped in place", ""


def _rest(cloud: SimulatedCloud, server: Server) -> None:
    server.state, server.state_detail = "stopped", ""
    cloud.free_slot(server)
    _leave_ips(cloud, server, reserved_stay=True)


def _leave_ips(cloud: SimulatedCloud, server: Server, *, reserved_stay: bool) -> None:
    for ip in [ip for ip in cloud.ips.values() if ip.server_id == server.server_id]:
        if ip.dynamic:
            cloud.release(ip)
        elif not reserved_stay:
            ip.server_id = ""


def remove(cloud: SimulatedCloud, server: Server) -> None:
    """The server is gone, and its local disks with it; block volumes and reserved addresses are only let go."""
    cloud.machines.discard(server.server_id)
    cloud.free_slot(server)
    _leave_ips(cloud, server, reserved_stay=False)
    last_seen = Gone(server, cloud.clock.now)
    for volume in [cloud.volumes[volume_id] for volume_id in server.volume_ids.values()]:
        detach(cloud, volume, server)
        if volume.kind == "l_ssd":
            drop(cloud, volume)
    del cloud.servers[server.server_id]
    cloud.gone.append(last_seen)
