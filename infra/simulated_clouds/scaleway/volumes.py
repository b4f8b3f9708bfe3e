"""Volumes: the Block API's (`sbs_volume`), the Instance API's (`l_ssd`), and which of them a new server gets.

    creating ──2 s──> available <──> in_use         resize: resizing ──3 s──> as before        delete: deleting ──> gone

The surprising rule: a block volume does not exist for the Instance API's own volume calls (404 there), and a server
created without a word about volumes gets a boot volume of 20 GB that carries none of the server's tags.
"""

from typing import Any

from infra.simulated_clouds.scaleway.calls import Call, Reply, paged, tags_in, word
from infra.simulated_clouds.scaleway.cloud import SimulatedCloud, new_id
from infra.simulated_clouds.scaleway.errors import (
    invalid_argument,
    invalid_request,
    missing_arguments,
    not_found,
    still_in_use,
    transient_state,
)
from infra.simulated_clouds.scaleway.offers import BOOT_VOLUME_BYTES, GB, IMAGES, Offer
from infra.simulated_clouds.scaleway.resources import Server, Volume, VolumeKind
from infra.simulated_clouds.scaleway.shown import shown_block_volume, shown_local_volume, shown_server

MIN_BLOCK_BYTES = 5 * GB
MAX_BLOCK_BYTES = 10_000 * GB
MAX_VOLUMES = 16
KINDS: dict[str, VolumeKind] = {"sbs_volume": "sbs_volume", "l_ssd": "l_ssd"}


def volumes_of_new_server(cloud: SimulatedCloud, call: Call, server: Server, offer: Offer) -> dict[str, Volume]:
    """By slot; made, or found and free. Nothing is made when one of them is refused."""
    wanted = call.body.get("volumes")
    if wanted is None:
        wanted = {"0": {"volume_type": "sbs_volume" if offer.diskless else "l_ssd", "size": BOOT_VOLUME_BYTES}}
    if not isinstance(wanted, dict) or len(wanted) > MAX_VOLUMES:
        raise invalid_argument("volumes", "format", f"must be a map of at most {MAX_VOLUMES} volumes")
    local_bytes = sum(_bytes(template) for template in wanted.values() if template.get("volume_type") == "l_ssd")
    most = offer.local_gb * GB
    has_local = any(template.get("volume_type") == "l_ssd" for template in wanted.values())
    if local_bytes > most or (has_local and offer.diskless):
        help_message = f"the total size of local volumes of a {offer.commercial_type} must be at most {most} B"
        raise invalid_argument("volumes", "constraint", help_message)
    found = {slot: _wanted_volume(cloud, call, server, slot, template) for slot, template in wanted.items()}
    for volume in found.values():
        cloud.volumes.setdefault(volume.volume_id, volume)
    return found


def _wanted_volume(cloud: SimulatedCloud, call: Call, server: Server, slot: str, template: dict[str, Any]) -> Volume:
    if template.get("id"):
        volume = cloud.block_volume(call.account, call.zone, str(template["id"]))
        if volume.server_id:
            raise still_in_use("volume is already attached to a server", status=400)
        return volume
    kind = KINDS.get(str(template.get("volume_type")))
    if kind is None:
        raise invalid_argument(f"volumes.{slot}.volume_type", "constraint", "must be sbs_volume or l_ssd")
    name = str(template.get("name") or IMAGES.get(server.image_id, "volume"))
    return _made(cloud, server.zone, server.project_id, name, kind, _bytes(template) or BOOT_VOLUME_BYTES)


def _bytes(template: dict[str, Any]) -> int:
    size = template.get("size") or 0
    if not isinstance(size, int):
        raise invalid_argument("volumes.size", "format", "must be a number of bytes")
    return size


def _made(cloud: SimulatedCloud, zone: str, project_id: str, name: str, kind: VolumeKind, size: int) -> Volume:
    now = cloud.clock.now
    volume = Volume(new_id(), zone, project_id, name, kind, size, now, now)
    cloud.clock.at(now + cloud.delays.volume_s, lambda: _settled(volume, "creating"))
    return volume


def _settled(volume: Volume, before: str) -> None:
    if volume.state == before:
        volume.state = "in_use" if volume.server_id else "available"


def attach(cloud: SimulatedCloud, volume: Volume, server: Server, slot: str) -> None:
    volume.server_id, volume.reference_id, volume.attached_at = server.server_id, new_id(), cloud.clock.now
    volume.updated_at = cloud.clock.now
    server.volume_ids[slot] = volume.volume_id
    _settled(volume, "available")


def detach(cloud: SimulatedCloud, volume: Volume, server: Server) -> None:
    """The server is rid of it at once; the Block API sees it in use a moment longer."""
    server.volume_ids = {slot: found for slot, found in server.volume_ids.items() if found != volume.volume_id}
    reference = volume.reference_id

    def let_go() -> None:
        if volume.reference_id == reference:
            volume.server_id = volume.reference_id = ""
            volume.updated_at = volume.last_detached_at = cloud.clock.now
            _settled(volume, "in_use")

    cloud.clock.at(cloud.clock.now + cloud.delays.detach_s, let_go)


def drop(cloud: SimulatedCloud, volume: Volume) -> None:
    cloud.volumes.pop(volume.volume_id, None)


def list_block_volumes(cloud: SimulatedCloud, call: Call) -> Reply:
    """Oldest first. A name matches as a part, and one matching tag is enough."""
    wanted, ids = _repeated(call, "tags"), _repeated(call, "volume_ids")
    found = [
        volume
        for volume in cloud.volumes.values()
        if (volume.kind, volume.zone, volume.project_id) == ("sbs_volume", call.zone, call.account.project_id)
        and call.query.get("name", "") in volume.name
        and call.query.get("product_resource_id", volume.server_id) == volume.server_id
        and call.query.get("project_id", volume.project_id) == volume.project_id
        and (not wanted or wanted & set(volume.tags))
        and (not ids or volume.volume_id in ids)
    ]
    found.sort(key=lambda volume: volume.created_at)
    return paged(call, "volumes", [shown_block_volume(cloud, v) for v in found], count_in_body=True)


def _repeated(call: Call, name: str) -> set[str]:
    return {value for value in call.query.get(name, "").split(",") if value}


def get_block_volume(cloud: SimulatedCloud, call: Call) -> Reply:
    return Reply(200, shown_block_volume(cloud, _block(cloud, call)))


def create_block_volume(cloud: SimulatedCloud, call: Call) -> Reply:
    project_id = cloud.own_project(call.account, call.body.get("project_id"), "block_volume")
    empty = call.body.get("from_empty")
    if not isinstance(empty, dict):
        raise missing_arguments("from_empty")
    size = _block_size(empty.get("size"))
    volume = _made(cloud, call.zone, project_id, word(call, "name") or f"vol-{new_id()[:8]}", "sbs_volume", size)
    volume.tags = tags_in(call.body)
    volume.perf_iops = _perf_iops(call.body.get("perf_iops"), volume.perf_iops)
    cloud.volumes[volume.volume_id] = volume
    return Reply(200, shown_block_volume(cloud, volume))


def update_block_volume(cloud: SimulatedCloud, call: Call) -> Reply:
    """Renames, tags, grows. It never shrinks, and nothing else happens while it grows."""
    volume = _block(cloud, call)
    if volume.state not in ("available", "in_use"):
        raise transient_state("volume", volume.volume_id, volume.state)
    size = volume.size if call.body.get("size") is None else _block_size(call.body["size"])
    if size < volume.size:
        raise invalid_argument("size", "constraint", "a volume can only grow")
    volume.perf_iops = _perf_iops(call.body.get("perf_iops"), volume.perf_iops)
    volume.name = word(call, "name") or volume.name
    volume.tags = tags_in(call.body) if call.body.get("tags") is not None else volume.tags
    volume.updated_at = cloud.clock.now
    if size > volume.size:
        volume.size, volume.state = size, "resizing"
        cloud.clock.at(cloud.clock.now + cloud.delays.resize_s, lambda: _settled(volume, "resizing"))
    return Reply(200, shown_block_volume(cloud, volume))


def delete_block_volume(cloud: SimulatedCloud, call: Call) -> Reply:
    volume = _block(cloud, call)
    if volume.server_id:
        raise still_in_use("volume is attached to a server")
    if volume.state != "available":
        raise transient_state("volume", volume.volume_id, volume.state)
    volume.state = "deleting"
    cloud.clock.at(cloud.clock.now + cloud.delays.delete_volume_s, lambda: drop(cloud, volume))
    return Reply(204)


def _block(cloud: SimulatedCloud, call: Call) -> Volume:
    return cloud.block_volume(call.account, call.zone, call.ids["volume_id"])


def _block_size(size: object) -> int:
    if not isinstance(size, int) or not MIN_BLOCK_BYTES <= size <= MAX_BLOCK_BYTES:
        raise invalid_argument("size", "constraint", f"must be from {MIN_BLOCK_BYTES} to {MAX_BLOCK_BYTES} bytes")
    return size


def _perf_iops(wanted: object, present: int) -> int:
    if wanted is None:
        return present
    if wanted not in (5_000, 15_000):
        raise invalid_argument("perf_iops", "constraint", "must be 5000 or 15000")
    return int(str(wanted))


def list_local_volumes(cloud: SimulatedCloud, call: Call) -> Reply:
    found = [
        volume
        for volume in cloud.volumes.values()
        if (volume.kind, volume.zone, volume.project_id) == ("l_ssd", call.zone, call.account.project_id)
        and call.query.get("name", "") in volume.name
        and call.wanted_tags() <= set(volume.tags)
    ]
    return paged(call, "volumes", [shown_local_volume(cloud, volume) for volume in found])


def get_local_volume(cloud: SimulatedCloud, call: Call) -> Reply:
    volume = cloud.local_volume(call.account, call.zone, call.ids["volume_id"])
    return Reply(200, {"volume": shown_local_volume(cloud, volume)})


def delete_local_volume(cloud: SimulatedCloud, call: Call) -> Reply:
    volume = cloud.local_volume(call.account, call.zone, call.ids["volume_id"])
    if volume.server_id:
        raise still_in_use("a server is attached to this volume", status=400)
    drop(cloud, volume)
    return Reply(204)


def attach_server_volume(cloud: SimulatedCloud, call: Call) -> Reply:
    """Into the next free slot."""
    server = cloud.server(call.account, call.zone, call.ids["server_id"])
    volume_id = word(call, "volume_id")
    volume = cloud.volumes.get(volume_id)
    if volume is None or (volume.zone, volume.project_id) != (call.zone, call.account.project_id):
        raise not_found("volume", volume_id)
    if volume.server_id:
        raise still_in_use("volume is already attached to a server", status=400)
    free = [slot for slot in map(str, range(MAX_VOLUMES)) if slot not in server.volume_ids]
    if not free:
        raise invalid_request(f"a server has at most {MAX_VOLUMES} volumes")
    attach(cloud, volume, server, free[0])
    return Reply(200, {"server": shown_server(cloud, server)})


def detach_server_volume(cloud: SimulatedCloud, call: Call) -> Reply:
    server = cloud.server(call.account, call.zone, call.ids["server_id"])
    volume_id = word(call, "volume_id")
    if volume_id not in server.volume_ids.values():
        raise not_found("volume", volume_id)
    detach(cloud, cloud.volumes[volume_id], server)
    return Reply(200, {"server": shown_server(cloud, server)})
