"""What the suite needs of a provider's double: the simulated provider behind an adapter, and the hands to trouble it.

    CLOUDS[name](folder) ──> Double: new_cloud() · pass_time() · troubles · plant_stranger() · opened_ports() ...

What a double cannot do is left out, and the cases that need it are skipped, visibly. The surprising rule: a case never
sleeps; it asks the double to let time pass, which a virtual clock does at once.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from domain.ids import InstanceId, OrganizationId
from handlers.cloud_ports import (
    Absent,
    Cloud,
    CloudRefusedError,
    CloudUnavailableError,
    Present,
    Server,
    ServerRequest,
)
from handlers.server_tags import Owner, server_name, tags_of

T = TypeVar("T")

Trouble = Literal[
    "unreachable",  # no answer to any call
    "denied",  # the credentials are refused, on every call
    "rate_limited",  # too many requests, on every call
    "server_error",  # the provider is ill, on every call
    "nonsense",  # every answer comes from somebody else: a proxy's page, a 404 that is not the provider's
    "partial_page",  # every listing lacks something, though it says how much there is
    "lost_answer",  # the next creation of a server is done, and its answer is lost
    "out_of_stock",  # no server can be had
    "quota",  # the account may not have one more
]
UNCLEAR: tuple[Trouble, ...] = ("unreachable", "denied", "rate_limited", "server_error", "nonsense")
"""Under each of these nobody knows what exists."""

TRIES = 60
"""Looks at a thing that is still on its way; the double lets time pass between two of them."""


class CannotProduceError(Exception):
    """The double has no such ability: the case is skipped."""


@dataclass(frozen=True, kw_only=True)
class Double:
    """One simulated account.

    Attributes:
        new_cloud: a further adapter on the same account, as another process would have.
        zone, instance_type: where a server can be had.
        no_server_id, no_volume_id: well-formed ids that were never given to anything.
        pass_time: lets the provider get on with what it is doing, by some seconds of its own time.
        troubles: each makes the provider misbehave until `heal`; those it cannot produce are missing.
        plant_stranger: a server of somebody else's in the same account, under this name and without a tag.
        opened_ports: TCP ports that are open from everywhere for a server.
        other_image: that a server may boot, and would not by itself; no_image: that never was.
        booted_image: which one a server boots.
        secrets: no message may contain them.
    """

    new_cloud: Callable[[], Cloud]
    zone: str
    instance_type: str
    no_server_id: str
    no_volume_id: str = ""
    pass_time: Callable[[], Awaitable[None]]
    troubles: Mapping[Trouble, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    heal: Callable[[], Awaitable[None]]
    plant_stranger: Callable[[str], Awaitable[None]] | None = None
    opened_ports: Callable[[str], Awaitable[set[int]]] | None = None
    other_image: str = ""
    no_image: str = ""
    booted_image: Callable[[str], Awaitable[str]] | None = None
    secrets: tuple[str, ...] = ()

    async def trouble(self, name: Trouble) -> None:
        if name not in self.troubles:
            raise CannotProduceError(f"this double cannot produce {name}")
        await self.troubles[name]()


class FixedSigner:
    """A key of the suite's own; its signatures are as long as real ones."""

    def sign(self, text: str) -> str:
        return text.encode().hex()[:64].ljust(64, "0")


def wanted(double: Double, instance: str = "0190d3f0-0000-7000-8000-000000000001", attempt: int = 1) -> ServerRequest:
    """A request as the handlers make it."""
    owner = Owner(OrganizationId("acme"), InstanceId(instance), attempt)
    return ServerRequest(
        name=server_name(instance, attempt),
        tags=tags_of(owner, FixedSigner()),
        zone=double.zone,
        instance_type=double.instance_type,
        agent_environment={
            "CONTROL_PLANE_URL": "http://127.0.0.1:8003",
            "INSTANCE_ID": instance,
            "MODEL_ID": "mock-echo-model",
            "WORKER_AUTH_TOKEN": "wb_bootstrap",
            "WORKER_ENGINE": "simulated",
        },
    )


async def eventually(double: Double, act: Callable[[], Awaitable[T]]) -> T:
    """Repeats a call for as long as its provider has no answer, as the handlers do."""
    for _ in range(TRIES):
        try:
            return await act()
        except CloudUnavailableError:
            await double.pass_time()
    return await act()


async def refusal_of(act: Callable[[], Awaitable[object]]) -> CloudRefusedError:
    """What a call is refused with; everything else is a failure."""
    try:
        answer = await act()
    except CloudRefusedError as refused:
        return refused
    raise AssertionError(f"it was not refused: {answer!r}")


async def trouble_of(act: Callable[[], Awaitable[object]]) -> CloudUnavailableError:
    """Why a call has no answer; everything else is a failure."""
    try:
        answer = await act()
    except CloudUnavailableError as unavailable:
        return unavailable
    raise AssertionError(f"an answer was believed: {answer!r}")


async def until(double: Double, holds: Callable[[], Awaitable[bool]], what: str) -> None:
    for _ in range(TRIES):
        if await holds():
            return
        await double.pass_time()
    raise AssertionError(f"it never came true that {what}")


async def made(double: Double, cloud: Cloud, request: ServerRequest | None = None) -> Server:
    """A server that was created, and shows wherever one looks."""
    wish = request or wanted(double)
    server = await eventually(double, lambda: cloud.create_server(wish))
    await until(double, lambda: _is_listed(cloud, server), "a created server is listed")
    return server


async def running(double: Double, cloud: Cloud, request: ServerRequest | None = None) -> Server:
    """A server that was created and started, and has its address."""
    server = await made(double, cloud, request)
    await eventually(double, lambda: cloud.start_server(server.provider_instance_id))
    await until(double, lambda: _runs(cloud, server), "a started server runs and has an address")
    return server


async def deleted(double: Double, cloud: Cloud, provider_instance_id: str) -> None:
    """Deletes a server and waits until it is gone for certain."""
    await eventually(double, lambda: cloud.delete_server(provider_instance_id))
    await until(double, lambda: _is_gone(cloud, provider_instance_id), "a deleted server is absent")


async def _is_listed(cloud: Cloud, server: Server) -> bool:
    return server.provider_instance_id in {one.provider_instance_id for one in await cloud.list_servers()}


async def _runs(cloud: Cloud, server: Server) -> bool:
    found = await cloud.find_server(provider_instance_id=server.provider_instance_id)
    return isinstance(found, Present) and found.server.running and bool(found.server.ip_address)


async def _is_gone(cloud: Cloud, provider_instance_id: str) -> bool:
    listed = {one.provider_instance_id for one in await cloud.list_servers()}
    found = await cloud.find_server(provider_instance_id=provider_instance_id)
    return found == Absent() and provider_instance_id not in listed
