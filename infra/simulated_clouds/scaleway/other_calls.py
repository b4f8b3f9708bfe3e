"""The Instance API's smaller resources: user data of a server, the types on offer, what is left of them, images.

The surprising rule: user data are bytes under a key, not JSON; the key `cloud-init` is what a machine reads when it
starts for the first time, so it has to be there before the power comes on.
"""

from infra.simulated_clouds.scaleway.calls import Call, Reply, paged, paged_map
from infra.simulated_clouds.scaleway.cloud import SimulatedCloud
from infra.simulated_clouds.scaleway.errors import invalid_argument, not_found
from infra.simulated_clouds.scaleway.offers import IMAGES, availability, offers_in, shown_offer
from infra.simulated_clouds.scaleway.power import changeable
from infra.simulated_clouds.scaleway.resources import Server
from infra.simulated_clouds.scaleway.shown import shown_image

MAX_USER_DATA_BYTES = 1 << 17
MAX_USER_DATA_KEYS = 128


def list_server_user_data(cloud: SimulatedCloud, call: Call) -> Reply:
    return Reply(200, {"user_data": sorted(_server(cloud, call).user_data)})


def get_server_user_data(cloud: SimulatedCloud, call: Call) -> Reply:
    server, key = _server(cloud, call), call.ids["key"]
    if key not in server.user_data:
        raise not_found("instance_user_data", key)
    return Reply(200, server.user_data[key])


def set_server_user_data(cloud: SimulatedCloud, call: Call) -> Reply:
    server, key = changeable(cloud, call), call.ids["key"]
    if len(call.raw) > MAX_USER_DATA_BYTES:
        raise invalid_argument(key, "constraint", f"must be at most {MAX_USER_DATA_BYTES} bytes")
    if key not in server.user_data and len(server.user_data) >= MAX_USER_DATA_KEYS:
        raise invalid_argument(key, "constraint", f"a server has at most {MAX_USER_DATA_KEYS} user data")
    server.user_data[key] = call.raw
    return Reply(204)


def delete_server_user_data(cloud: SimulatedCloud, call: Call) -> Reply:
    server, key = changeable(cloud, call), call.ids["key"]
    if server.user_data.pop(key, None) is None:
        raise not_found("instance_user_data", key)
    return Reply(204)


def _server(cloud: SimulatedCloud, call: Call) -> Server:
    return cloud.server(call.account, call.zone, call.ids["server_id"])


def list_servers_types(_cloud: SimulatedCloud, call: Call) -> Reply:
    return paged_map(call, "servers", [(o.commercial_type, shown_offer(o)) for o in offers_in(call.zone)])


def get_server_types_availability(cloud: SimulatedCloud, call: Call) -> Reply:
    def left(commercial_type: str) -> dict[str, str]:
        return {"availability": availability(cloud.stock.get((call.zone, commercial_type)))}

    return paged_map(call, "servers", [(o.commercial_type, left(o.commercial_type)) for o in offers_in(call.zone)])


def list_images(cloud: SimulatedCloud, call: Call) -> Reply:
    found = [image_id for image_id, name in IMAGES.items() if call.query.get("name", "") in name]
    return paged(call, "images", [shown_image(cloud, image_id, call.zone) for image_id in found])


def get_image(cloud: SimulatedCloud, call: Call) -> Reply:
    image_id = call.ids["image_id"]
    if image_id not in IMAGES:
        raise not_found("instance_image", image_id)
    return Reply(200, {"image": shown_image(cloud, image_id, call.zone)})
