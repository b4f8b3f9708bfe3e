"""Which method and path is which operation: the names are those of the SDK's methods.

Where both APIs have an operation of one name, the Block API's begins with "block:".
"""

from dataclasses import dataclass

from infra.simulated_clouds.scaleway import network, other_calls, power, servers, volumes
from infra.simulated_clouds.scaleway.calls import Handler

INSTANCE = "/instance/v1/zones/{zone}"
BLOCK = "/block/v1/zones/{zone}"
SERVER = f"{INSTANCE}/servers/{{server_id}}"
USER_DATA = f"{SERVER}/user_data/{{key}}"
GROUP = f"{INSTANCE}/security_groups/{{group_id}}"


@dataclass(frozen=True)
class Route:
    """`swallowed_status`: what a success looks like that shows nothing of what was done; None where it does."""

    method: str
    path: str
    operation: str
    handler: Handler
    swallowed_status: int | None = None


ROUTES = (
    Route("GET", f"{INSTANCE}/servers", "list_servers", servers.list_servers),
    Route("POST", f"{INSTANCE}/servers", "create_server", servers.create_server),
    Route("GET", SERVER, "get_server", servers.get_server),
    Route("PATCH", SERVER, "update_server", servers.update_server),
    Route("DELETE", SERVER, "delete_server", servers.delete_server, 204),
    Route("GET", f"{SERVER}/action", "list_server_actions", power.list_server_actions),
    Route("POST", f"{SERVER}/action", "server_action", power.server_action, 202),
    Route("POST", f"{SERVER}/attach-volume", "attach_server_volume", volumes.attach_server_volume),
    Route("POST", f"{SERVER}/detach-volume", "detach_server_volume", volumes.detach_server_volume),
    Route("GET", f"{SERVER}/user_data", "list_server_user_data", other_calls.list_server_user_data),
    Route("GET", USER_DATA, "get_server_user_data", other_calls.get_server_user_data),
    Route("PATCH", USER_DATA, "set_server_user_data", other_calls.set_server_user_data, 204),
    Route("DELETE", USER_DATA, "delete_server_user_data", other_calls.delete_server_user_data, 204),
    Route("GET", f"{INSTANCE}/products/servers", "list_servers_types", other_calls.list_servers_types),
    Route(
        "GET",
        f"{INSTANCE}/products/servers/availability",
        "get_server_types_availability",
        other_calls.get_server_types_availability,
    ),
    Route("GET", f"{INSTANCE}/images", "list_images", other_calls.list_images),
    Route("GET", f"{INSTANCE}/images/{{image_id}}", "get_image", other_calls.get_image),
    Route("GET", f"{INSTANCE}/volumes", "list_volumes", volumes.list_local_volumes),
    Route("GET", f"{INSTANCE}/volumes/{{volume_id}}", "get_volume", volumes.get_local_volume),
    Route("DELETE", f"{INSTANCE}/volumes/{{volume_id}}", "delete_volume", volumes.delete_local_volume, 204),
    Route("GET", f"{INSTANCE}/security_groups", "list_security_groups", network.list_security_groups),
    Route("POST", f"{INSTANCE}/security_groups", "create_security_group", network.create_security_group),
    Route("GET", GROUP, "get_security_group", network.get_security_group),
    Route("PATCH", GROUP, "update_security_group", network.update_security_group),
    Route("DELETE", GROUP, "delete_security_group", network.delete_security_group, 204),
    Route("GET", f"{GROUP}/rules", "list_security_group_rules", network.list_security_group_rules),
    Route("POST", f"{GROUP}/rules", "create_security_group_rule", network.create_security_group_rule),
    Route("PUT", f"{GROUP}/rules", "set_security_group_rules", network.set_security_group_rules),
    Route(
        "DELETE", f"{GROUP}/rules/{{rule_id}}", "delete_security_group_rule", network.delete_security_group_rule, 204
    ),
    Route("GET", f"{INSTANCE}/ips", "list_ips", network.list_ips),
    Route("POST", f"{INSTANCE}/ips", "create_ip", network.create_ip),
    Route("GET", f"{INSTANCE}/ips/{{ip_id}}", "get_ip", network.get_ip),
    Route("PATCH", f"{INSTANCE}/ips/{{ip_id}}", "update_ip", network.update_ip),
    Route("DELETE", f"{INSTANCE}/ips/{{ip_id}}", "delete_ip", network.delete_ip, 204),
    Route("GET", f"{BLOCK}/volumes", "block:list_volumes", volumes.list_block_volumes),
    Route("POST", f"{BLOCK}/volumes", "block:create_volume", volumes.create_block_volume),
    Route("GET", f"{BLOCK}/volumes/{{volume_id}}", "block:get_volume", volumes.get_block_volume),
    Route("PATCH", f"{BLOCK}/volumes/{{volume_id}}", "block:update_volume", volumes.update_block_volume),
    Route("DELETE", f"{BLOCK}/volumes/{{volume_id}}", "block:delete_volume", volumes.delete_block_volume, 204),
)
