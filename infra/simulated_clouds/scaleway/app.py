"""The simulated Scaleway over HTTP: who calls, which operation, what goes wrong, the reply.

    request ──> X-Auth-Token -> account (401) ──> zone (404) ──> fault? ──> handler(cloud, call) ──> reply

The surprising rule: a fault of the kind "late" keeps the whole call and does it at its own moment, like a request that
a proxy gave up on and the backend did not.
"""

import asyncio
import json
from typing import Any

from aiohttp import web

from handlers.cloud_ports import CloudRefusedError
from infra.simulated_clouds.scaleway import errors
from infra.simulated_clouds.scaleway.admin import Answer, add_admin_routes
from infra.simulated_clouds.scaleway.calls import Call, Handler, Reply
from infra.simulated_clouds.scaleway.cloud import Received, SimulatedCloud
from infra.simulated_clouds.scaleway.errors import ApiError
from infra.simulated_clouds.scaleway.faults import Fault, Faults
from infra.simulated_clouds.scaleway.offers import ZONES
from infra.simulated_clouds.scaleway.routes import ROUTES, Route

MAX_BODY_BYTES = 1 << 20
GATEWAY_TIMEOUT = (504, {"type": "internal", "message": "upstream request timeout"})


class ConnectionCut(Exception):  # noqa: N818 - what happens to the connection, not an error of ours
    """The client gets nothing more."""


def scaleway_app(cloud: SimulatedCloud, faults: Faults) -> web.Application:
    app = web.Application(client_max_size=MAX_BODY_BYTES)
    for route in ROUTES:
        app.router.add_route(route.method, route.path, _answering(cloud, faults, route))
    add_admin_routes(app, cloud, faults)
    return app


def _answering(cloud: SimulatedCloud, faults: Faults, route: Route) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            cloud.clock.settle()
            call = await _call(cloud, request, route)
            cloud.calls.append(Received(call.names[-1], call.zone, call.resource_id))
            fault = faults.next(call.names, call.zone, swallowable=route.swallowed_status is not None)
            return _response(await _replied(cloud, route, call, fault))
        except ApiError as refusal:
            return web.json_response(refusal.body, status=refusal.status, headers=refusal.headers)
        except ConnectionCut:
            assert request.transport is not None  # noqa: S101 - it is served right now
            request.transport.abort()
            return web.Response()

    return answer


async def _call(cloud: SimulatedCloud, request: web.Request, route: Route) -> Call:
    account = cloud.accounts.get(request.headers.get("X-Auth-Token", ""))
    if account is None:
        raise errors.denied_authentication()
    ids = dict(request.match_info)
    zone = ids.pop("zone")
    if zone not in ZONES:
        raise errors.not_found("zone", zone)
    query = {name: ",".join(request.query.getall(name)) for name in request.query}
    raw = await request.read()
    is_text = "user_data" in route.path
    return Call(route.operation, account, zone, ids, query, {} if is_text else _json(raw), raw if is_text else b"")


def _json(raw: bytes) -> dict[str, Any]:
    try:
        body = json.loads(raw or b"{}")
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise errors.invalid_argument("body", "format", "must be a JSON object")
    return body


async def _replied(cloud: SimulatedCloud, route: Route, call: Call, fault: Fault | None) -> Reply:
    if fault is None:
        return _done(cloud, route.handler, call)
    _raise_before(call, fault)
    match fault.kind:
        case "hang":
            await asyncio.sleep(fault.after_s)
            raise ConnectionCut
        case "slow":
            await asyncio.sleep(fault.after_s)
        case "late":
            cloud.clock.at(cloud.clock.now + fault.after_s, lambda: _done_silently(cloud, route.handler, call))
            raise ApiError(*GATEWAY_TIMEOUT)
        case "swallowed":
            return _swallowed(cloud, route, call)
        case "nonsense":
            return Reply(200, b"<html><body>We are back in a minute.</body></html>")
        case _:
            pass
    reply = _done(cloud, route.handler, call)
    match fault.kind:
        case "done_then_504":
            raise ApiError(*GATEWAY_TIMEOUT)
        case "done_then_reset":
            raise ConnectionCut
        case "partial_page":
            return _cut(reply, fault.cut)
        case _:
            return reply


def _raise_before(call: Call, fault: Fault) -> None:
    match fault.kind:
        case "status":
            raise ApiError(fault.status, {"type": fault.type, "message": fault.message})
        case "rate_limited":
            raise errors.too_many_requests(fault.retry_after_s)
        case "server_error":
            raise errors.internal()
        case "denied":
            raise errors.permissions_denied("write", call.operation)
        case "out_of_stock":
            raise errors.out_of_stock(str(call.body.get("commercial_type") or call.resource_id))
        case "quota":
            raise errors.quotas_exceeded(call.operation, quota=0, current=0)
        case "reset":
            raise ConnectionCut
        case _:
            return


def _done(cloud: SimulatedCloud, handler: Handler, call: Call) -> Reply:
    try:
        return handler(cloud, call)
    except CloudRefusedError as full:  # no loopback address is left on this machine
        raise errors.internal(500) from full


def _done_silently(cloud: SimulatedCloud, handler: Handler, call: Call) -> None:
    try:
        _done(cloud, handler, call)
    except ApiError:
        return  # nobody waits for this answer any more


def _swallowed(cloud: SimulatedCloud, route: Route, call: Call) -> Reply:
    """Refuses what does not exist, as the real call would; then says yes."""
    assert route.swallowed_status is not None  # noqa: S101 - faults.next saw to it
    if "server_id" in call.ids:
        cloud.server(call.account, call.zone, call.ids["server_id"])
    if route.operation == "block:delete_volume":
        cloud.block_volume(call.account, call.zone, call.ids["volume_id"])
    return Reply(route.swallowed_status, {"task": None} if route.swallowed_status == 202 else None)


def _cut(reply: Reply, count: int) -> Reply:
    """The page lacks its last entries; the total still tells of them."""
    if not isinstance(reply.body, dict):
        return reply
    for key, value in reply.body.items():
        if isinstance(value, list):
            return Reply(reply.status, {**reply.body, key: value[:-count]}, reply.headers)
        if key == "servers" and isinstance(value, dict):  # the catalogue's pages, by type
            return Reply(reply.status, {**reply.body, key: dict(list(value.items())[:-count])}, reply.headers)
    return reply


def _response(reply: Reply) -> web.Response:
    if reply.body is None:
        return web.Response(status=reply.status, headers=reply.headers)
    if isinstance(reply.body, bytes):
        return web.Response(status=reply.status, body=reply.body, content_type="text/plain", headers=reply.headers)
    return web.json_response(reply.body, status=reply.status, headers=reply.headers)
