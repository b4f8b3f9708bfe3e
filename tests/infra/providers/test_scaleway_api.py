"""What travels between the SDK and Scaleway: bounded, complete, never redirected, and never believed when it is odd."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError
from infra.providers import scaleway_api
from infra.providers.calling import StillBusyError
from infra.providers.scaleway_api import AnswerError, ScalewayAccount, ScalewayApi, translate

SECRET = "11111111-2222-4333-8444-555555555555"
PROJECT = "99999999-2222-4333-8444-555555555555"
Reply = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Peer:
    """Answers every request with `reply`, and remembers what it was sent."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []
        self.reply: Reply = _says(200, {})
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return await self.reply(request)


def _says(status: int, body: Any = None, *, text: str = "", headers: dict[str, str] | None = None) -> Reply:
    async def reply(_request: web.Request) -> web.StreamResponse:
        if body is None:
            return web.Response(status=status, text=text, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    return reply


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", peer.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    peer.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield peer
    await runner.cleanup()


@pytest.fixture
def api(peer: Peer) -> ScalewayApi:
    return ScalewayApi(ScalewayAccount(project_id=PROJECT, secret_key=SECRET, url=peer.url))


async def servers_of(api: ScalewayApi) -> list[Any]:
    return await api.pages(
        "look", "servers", lambda sdk, page: sdk.instance.list_servers(zone="fr-par-2", page=page, per_page=100)
    )


def counted(total: object) -> dict[str, str]:
    return {"X-Total-Count": str(total)}


async def test_an_empty_listing_that_says_so_is_believed(api: ScalewayApi, peer: Peer) -> None:
    peer.reply = _says(200, {"servers": []}, headers=counted(0))
    assert await servers_of(api) == []
    (request,) = peer.requests
    assert request.headers["X-Auth-Token"] == SECRET
    assert request.query["project"] == PROJECT


@pytest.mark.parametrize(
    "reply",
    [
        _says(200, {"servers": []}),
        _says(200, {}),
        _says(200, {"servers": []}, headers=counted(1)),
        _says(200, {"servers": [], "total_count": 3}),
        _says(200, {"servers": []}, headers=counted("many")),
        _says(200, []),
        _says(200, text="<html>maintenance</html>"),
        _says(200, text=""),
        _says(204, text=""),
        _says(302, text="", headers={"Location": "/elsewhere"}),
        _says(404, text="no such page"),
        _says(404, {"message": "gateway: no route"}),
        _says(408, {"type": "timeout", "message": "slow"}),
        _says(500, text="<html>oops</html>"),
        _says(502, text=""),
        _says(503, {"type": "internal", "message": "internal error"}),
    ],
)
async def test_what_is_no_whole_listing_is_none(api: ScalewayApi, peer: Peer, reply: Reply) -> None:
    peer.reply = reply
    with pytest.raises(CloudUnavailableError):
        await servers_of(api)


async def test_the_secret_follows_no_redirect(api: ScalewayApi, peer: Peer) -> None:
    peer.reply = _says(307, text="", headers={"Location": f"{peer.url}/thief"})
    with pytest.raises(CloudUnavailableError):
        await servers_of(api)
    assert len(peer.requests) == 1


async def test_pages_are_asked_for_until_the_total_is_reached(api: ScalewayApi, peer: Peer) -> None:
    async def reply(request: web.Request) -> web.StreamResponse:
        first = (int(request.query["page"]) - 1) * 100
        listed = {f"T{n}": {"gpu": 1, "hourly_price": 1.0} for n in range(first, min(first + 100, 250))}
        return web.json_response({"servers": listed}, headers=counted(250))

    peer.reply = reply
    found = await api.pages(
        "look", "servers", lambda sdk, page: sdk.instance.list_servers_types(zone="fr-par-2", page=page, per_page=100)
    )
    assert [code for code, _ in found] == [f"T{n}" for n in range(250)]
    assert len(peer.requests) == 3


async def test_a_listing_without_end_is_given_up(api: ScalewayApi, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaleway_api, "MOST_PAGES", 3)

    async def reply(request: web.Request) -> web.StreamResponse:
        first = int(request.query["page"]) * 100
        return web.json_response({"servers": {f"T{n}": {} for n in range(first, first + 100)}}, headers=counted(9**9))

    peer.reply = reply
    with pytest.raises(CloudUnavailableError, match="more than 3 pages"):
        await api.pages(
            "look", "servers", lambda sdk, page: sdk.instance.list_servers_types(zone="fr-par-2", page=page)
        )


async def test_an_answer_that_drips_is_given_up(api: ScalewayApi, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaleway_api, "TOTAL_S", 0.2)
    ended = asyncio.Event()

    async def reply(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while not ended.is_set():
                await response.write(b" " * scaleway_api.CHUNK_BYTES)
                await asyncio.sleep(0.05)
        except ConnectionError:
            pass
        return response

    peer.reply = reply
    started = time.monotonic()
    try:
        with pytest.raises(CloudUnavailableError, match="took too long"):
            await servers_of(api)
    finally:
        ended.set()
    assert time.monotonic() - started < 10


async def test_an_answer_without_end_is_given_up(api: ScalewayApi, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaleway_api, "MOST_ANSWER_BYTES", 1000)
    peer.reply = _says(200, text="x" * 200_000)
    with pytest.raises(CloudUnavailableError, match="too long"):
        await servers_of(api)


async def test_the_answer_about_another_server_is_not_believed(peer: Peer) -> None:
    from infra.providers.scaleway import scaleway_cloud

    cloud = scaleway_cloud({"project_id": PROJECT, "secret_key": SECRET}, bootstrap=lambda _: "", url=peer.url)
    peer.reply = _says(200, {"server": None})
    with pytest.raises(CloudUnavailableError):
        await cloud.start_server(f"fr-par-2/{PROJECT}")


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (412, {"type": "out_of_stock", "resource": "L4"}, "out_of_stock", "PROVIDER_OUT_OF_STOCK"),
        (400, {"type": "invalid_request_error", "message": "Out of stock"}, "out_of_stock", "PROVIDER_OUT_OF_STOCK"),
        (403, {"type": "quotas_exceeded", "details": [{"quota": 2}]}, "quota", "PROVIDER_QUOTA_EXCEEDED"),
        (401, {"type": "denied_authentication"}, "auth", "PROVIDER_AUTH_FAILED"),
        (403, {"type": "permissions_denied"}, "auth", "PROVIDER_AUTH_FAILED"),
        (403, {}, "auth", "PROVIDER_AUTH_FAILED"),
        (404, {"type": "unknown_resource"}, "not_found", "PROVIDER_CREATE_FAILED"),
        (404, {"type": "not_found"}, "not_found", "PROVIDER_CREATE_FAILED"),
        (400, {"type": "invalid_arguments", "details": ["?"]}, "permanent", "PROVIDER_CREATE_FAILED"),
    ],
)
def test_a_certain_no_is_a_refusal_of_its_kind(status: int, body: dict[str, Any], kind: str, code: str) -> None:
    meant = translate("create_server", AnswerError(status, body, 0.0))
    assert isinstance(meant, CloudRefusedError)
    assert (meant.kind, meant.code) == (kind, code)
    assert meant.message.startswith(f"Scaleway {status}")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, {"type": "too_many_requests"}, "rate_limited"),
        (503, {"type": "internal"}, "transient"),
        (504, {}, "transient"),
        (404, {}, "transient"),
        (400, {}, "transient"),
        (302, {}, "transient"),
    ],
)
def test_what_is_no_certain_no_is_unavailable(status: int, body: dict[str, Any], kind: str) -> None:
    meant = translate("create_server", AnswerError(status, body, 7.0))
    assert isinstance(meant, CloudUnavailableError)
    assert not isinstance(meant, StillBusyError)
    assert (meant.kind, meant.retry_after_s) == (kind, 7.0)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (409, {"type": "transient_state", "current_state": "stopping"}),
        (412, {"type": "precondition_failed", "precondition": "resource_still_in_use"}),
        (400, {"type": "precondition_failed", "precondition": "resource_still_in_use"}),
        (423, {"type": "locked"}),
    ],
)
def test_a_passing_state_is_not_yet(status: int, body: dict[str, Any]) -> None:
    assert isinstance(translate("delete_server", AnswerError(status, body, 0.0)), StillBusyError)


def test_an_error_that_is_none_of_scaleways_is_left_to_the_caller() -> None:
    assert translate("look", KeyError("servers")) is None
