"""How a server comes into being at Scaleway, in several calls of which each may be the last one.

    look by name ─> our firewall ─> POST "<name>-unfinished" ─> older twin? ─> user data ─> tags on its disk ─> "<name>"

Its bootstrap cannot be sent along with its creation. So a server bears its name only when it is complete: one that was
cut off half-way is not found under it, an attempt that is tried again completes it, and one that is abandoned leaves
it to the sweep, which knows it by its signed tags. The surprising rule: once the server was asked for, nothing is a
refusal any more, not even "too many requests": a refusal would say that there is no server.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import structlog

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError, Server, ServerRequest
from infra.providers.calling import StillBusyError
from infra.providers.scaleway_api import ScalewayApi, Sdk
from infra.providers.scaleway_places import image_of, joined_id, tags_to
from infra.providers.scaleway_ports import ScalewayPorts
from infra.providers.scaleway_servers import ScalewayServers, age, shown
from infra.providers.scaleway_volumes import ScalewayVolumes

T = TypeVar("T")

Bootstrap = Callable[[ServerRequest], str]
"""Makes a server's user data; the same request gives the same text."""

OPERATION = "create_server"
USER_DATA_KEY = "cloud-init"
UNFINISHED = "-unfinished"
CREATE_S = 20.0
"""For the whole creation; the handlers count on it when they conclude that a server was not made."""
LOOK_S = 8.0
"""Of CREATE_S: later than this no server is asked for any more, so that none comes into being long after."""
TRIES = 3
"""Of each step that completes a server: a hiccup shall not cost a whole attempt."""
RETRY_PAUSE_S = 0.3

_log = structlog.get_logger(__name__)


class ScalewayCreation:
    """Makes servers of one account.

    Args:
        delete: deletes a server of ours, as ScalewayCloud.delete_server.
    """

    def __init__(
        self,
        api: ScalewayApi,
        parts: tuple[ScalewayServers, ScalewayPorts, ScalewayVolumes],
        bootstrap: Bootstrap,
        delete: Callable[[str], Awaitable[None]],
    ) -> None:
        self._api = api
        self._servers, self._ports, self._volumes = parts
        self._bootstrap = bootstrap
        self._delete = delete
        self._losers: dict[str, tuple[str, ...]] = {}

    async def create(self, request: ServerRequest) -> Server:
        """Switched off. Of two that were created at the same time under one name, the older one stays."""
        try:
            async with asyncio.timeout(CREATE_S):
                return await self._create(request)
        except TimeoutError:
            raise CloudUnavailableError(f"scaleway: {request.name} was not complete after {CREATE_S:g} s") from None

    async def _create(self, request: ServerRequest) -> Server:
        bootstrap = self._bootstrap(request).encode()  # one that cannot be written is refused before there is a server
        begun = asyncio.get_running_loop().time()
        await _insist(lambda: self._discard(request.name))
        found: Any = await self._named(request)
        if found is None:
            group_id = await self._ports.own_group(OPERATION, request.zone)
            if asyncio.get_running_loop().time() - begun > LOOK_S:
                raise CloudUnavailableError("scaleway: it took too long to look whether the server exists")
            made = await self._api.call(OPERATION, lambda sdk: sdk.instance.create_server(**_wish(request, group_id)))
            found = await _insist(lambda: self._the_oldest(made.server, request))
            await _insist(lambda: self._discard(request.name))
        if found.name != request.name:
            await self._complete(found, request, bootstrap)
            found.name = request.name
        return shown(found)

    async def _complete(self, server: Any, request: ServerRequest, bootstrap: bytes) -> None:
        """Its name comes last, for that is the sign."""

        def give_bootstrap(sdk: Sdk) -> None:
            sdk.instance.set_server_user_data(server.id, USER_DATA_KEY, bootstrap, zone=request.zone)

        def give_name(sdk: Sdk) -> None:
            sdk.instance._update_server(server_id=server.id, zone=request.zone, name=request.name)  # noqa: SLF001 - the SDK marks the call as its own, though it has no other

        await _insist(lambda: self._api.call(OPERATION, give_bootstrap))
        try:
            await _insist(lambda: self._volumes.tag_boot_volume(OPERATION, server))
        except StillBusyError:  # a boot volume is made for some seconds; start and delete insist on its tags
            _log.debug("volumes_not_tagged_yet", server=server.id)
        await _insist(lambda: self._api.call(OPERATION, give_name))

    async def _named(self, request: ServerRequest) -> Any | None:
        """The oldest of ours with this name, complete or not."""
        names = (request.name, request.name + UNFINISHED)
        listed = await self._servers.listed(OPERATION, request.zone, request.name)
        return next((server for server in listed if server.name in names), None)

    async def _the_oldest(self, made: Any, request: ServerRequest) -> Any:
        """Two handlers may have created at the same time; each sees both now, and both mean the same one."""
        oldest = await self._named(request)
        if oldest is None or age(made) <= age(oldest):  # a listing may lag
            return made
        volumes = tuple(joined_id(request.zone, volume.id) for volume in made.volumes.values())
        self._losers[request.name] = (joined_id(request.zone, made.id), *volumes)
        return oldest

    async def _discard(self, name: str) -> None:
        """Deletes what this very adapter made too much under a name, and told nobody of.

        Raises:
            StillBusyError: not yet gone; the creation is not over before it is. If this process dies, the sweep finds
                the server or, when that is gone, its volumes by their tags.
        """
        loser = self._losers.get(name)
        if loser is None:
            return
        server_id, *volume_ids = loser
        await self._delete(server_id)
        for volume_id in volume_ids:
            await self._volumes.delete_volume(volume_id)
        self._losers.pop(name, None)


async def _insist(act: Callable[[], Awaitable[T]]) -> T:
    """Raises StillBusyError, or CloudUnavailableError of kind transient: the server exists, whatever the answer was."""
    for tried in range(1, TRIES + 1):
        try:
            return await act()
        except StillBusyError:
            raise
        except (CloudRefusedError, CloudUnavailableError) as trouble:
            if tried == TRIES:
                words = trouble.message if isinstance(trouble, CloudRefusedError) else str(trouble)
                raise CloudUnavailableError(f"The server was made, and could not be completed: {words}") from trouble
            await asyncio.sleep(RETRY_PAUSE_S)
    raise AssertionError("the last try returns or raises")


def _wish(request: ServerRequest, group_id: str) -> dict[str, Any]:
    """SPEC 4.2 steps 3 and 4. There is no `volumes` key: Scaleway then makes a block volume to boot from itself."""
    return {
        "zone": request.zone,
        "name": request.name + UNFINISHED,
        "commercial_type": request.instance_type,
        "image": request.image or image_of(request.instance_type),
        "tags": tags_to(request.tags),
        "dynamic_ip_required": True,
        "boot_type": "local",
        "security_group": group_id,
    }
