"""What whoever runs the simulated Scaleway may do to it over HTTP, without a key: `/_simulation/...`.

    GET state        POST clock {"advance_s"}        POST stock {"zone", "commercial_type", "count"}
    GET, POST, DELETE faults                         see faults.Fault for what one is made of

It listens on loopback alone, and nothing here tells a secret.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from typing import Any

import msgspec
from aiohttp import web

from infra.simulated_clouds.scaleway.cloud import SimulatedCloud
from infra.simulated_clouds.scaleway.faults import Fault, Faults

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Advance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Simulated seconds."""

    advance_s: float


class Stock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Servers of a type that are left in a zone."""

    zone: str
    commercial_type: str
    count: int


def add_admin_routes(app: web.Application, cloud: SimulatedCloud, faults: Faults) -> None:
    app.router.add_get("/_simulation/state", _shown_state(cloud))
    app.router.add_post("/_simulation/clock", _advance(cloud))
    app.router.add_post("/_simulation/stock", _stock(cloud))
    app.router.add_get("/_simulation/faults", _shown_faults(faults))
    app.router.add_post("/_simulation/faults", _add_fault(faults))
    app.router.add_delete("/_simulation/faults", _clear_faults(faults))


def _shown_state(cloud: SimulatedCloud) -> Answer:
    """Everything that exists, for whoever looks behind the curtain; the contents of user data stay out of it."""

    async def answer(_request: web.Request) -> web.Response:
        cloud.clock.settle()
        servers = [{**asdict(s), "user_data": sorted(s.user_data)} for s in cloud.servers.values()]
        state: Mapping[str, Any] = {
            "now_s": cloud.clock.now,
            "servers": servers,
            "volumes": [asdict(volume) for volume in cloud.volumes.values()],
            "ips": [asdict(ip) for ip in cloud.ips.values()],
            "calls": len(cloud.calls),
        }
        return web.json_response(state)

    return answer


def _advance(cloud: SimulatedCloud) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        try:
            wish = msgspec.json.decode(await request.read(), type=Advance)
        except msgspec.MsgspecError as wrong:
            return _wrong(wrong)
        cloud.clock.advance(wish.advance_s)
        return web.json_response({"now_s": cloud.clock.now})

    return answer


def _stock(cloud: SimulatedCloud) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        try:
            wish = msgspec.json.decode(await request.read(), type=Stock)
        except msgspec.MsgspecError as wrong:
            return _wrong(wrong)
        cloud.stock[(wish.zone, wish.commercial_type)] = wish.count
        return web.Response(status=204)

    return answer


def _shown_faults(faults: Faults) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        return web.json_response({"faults": msgspec.to_builtins(faults.all()), "hits": faults.hits})

    return answer


def _add_fault(faults: Faults) -> Answer:
    async def answer(request: web.Request) -> web.Response:
        try:
            faults.add(msgspec.json.decode(await request.read(), type=Fault))
        except (msgspec.MsgspecError, ValueError) as wrong:
            return _wrong(wrong)
        return web.Response(status=201)

    return answer


def _clear_faults(faults: Faults) -> Answer:
    async def answer(_request: web.Request) -> web.Response:
        faults.clear()
        return web.Response(status=204)

    return answer


def _wrong(reason: Exception) -> web.Response:
    return web.json_response({"message": str(reason)}, status=400)
