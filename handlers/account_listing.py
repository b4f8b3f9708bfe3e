"""What a provider lists for an account, and how our records stand to each thing that carries our signature.

    servers ──> wanted | stray | unrecorded            a stray's volumes ──> strays with it, tagged or not
    volumes ──> likewise, when attached to nothing     a stray volume that is not listed ──> asked for by its id

The surprising rule: a volume need not carry our tags. One whose server was cut off half-made is known by that server
alone, so the volume that a stray server boots from is looked up before it is deleted, and remembered until it is
certainly gone. What else hangs on it without our tags was attached by somebody, and stays theirs.
"""

from collections.abc import Awaitable, Collection, Sequence
from typing import TypeVar

import msgspec

from domain.instance import INSTANCE
from domain.provider_account import ProviderAccount, key_of
from domain.provider_account_commands import Signed
from handlers.cloud_ports import Absent, Account, Cloud, CloudRefusedError, Server, Unknown, Volume, Volumes
from handlers.ports import Doors
from handlers.provider_words import Trouble, trouble_of
from handlers.server_tags import Owner, owner_of
from handlers.strays import Standing, concerns, standing_of

T = TypeVar("T")


class CallFailedError(Exception):
    """A call of the provider, by its name, brought nothing."""

    def __init__(self, call: str, trouble: Trouble) -> None:
        super().__init__(call, trouble)
        self.call = call
        self.trouble = trouble


async def asked(call: str, asking: Awaitable[T]) -> T:
    """The provider's answer. Raises CallFailedError."""
    try:
        return await asking
    except (CloudRefusedError, OSError) as fault:
        raise CallFailedError(call, trouble_of(fault)) from fault


class Listing(msgspec.Struct, frozen=True):
    """What the provider has; `volumes` None: it has none, or did not list them."""

    servers: Sequence[Server]
    volumes: Sequence[Volume] | None


class Judged(msgspec.Struct, frozen=True):
    """`found` None: a volume that was seen as a stray, and of which nothing can be learned now."""

    signed: Signed
    owner: Owner
    standing: Standing
    found: Server | Volume | None


class Judge:
    """Judges one listing of one account; `before`: what was known of the account.

    Attributes:
        failed: calls that brought nothing; each concerns one thing alone, and the others are judged all the same.
        held: stray servers, by "server/<id>", whose volumes could not be learned: they stay until they are.
    """

    def __init__(self, account: Account, doors: Doors, before: ProviderAccount) -> None:
        self._account = account
        self._doors = doors
        self._before = before
        self.failed: list[CallFailedError] = []
        self.held: set[str] = set()

    async def judge(self, cloud: Cloud, listing: Listing, owned: Collection[str]) -> list[Judged]:
        """What is ours, as it stands. `owned`: servers that the records have; those are not looked at any closer."""
        judged: dict[str, Judged] = {}
        for server in listing.servers:
            owner = self._owner(server)
            if owner is not None:
                is_owned = server.provider_instance_id in owned
                standing: Standing = "wanted" if is_owned else await self._standing(server, owner)
                self._add(judged, server, owner, standing)
                for volume in await self._attached(cloud, server) if standing == "stray" else ():
                    self._add(judged, volume, owner, await self._standing(volume, owner))
        for volume in listing.volumes or ():
            owner = self._owner(volume)
            if owner is not None:
                standing = "wanted" if volume.attached_to else await self._standing(volume, owner)
                self._add(judged, volume, owner, standing)
        if listing.volumes is not None:
            await self._find_the_unlisted(cloud, judged)
        return list(judged.values())

    async def is_stray(self, one: Judged) -> bool:
        """By the record as it is at this moment."""
        return one.found is not None and await self._standing(one.found, one.owner) == "stray"

    def _owner(self, found: Server | Volume) -> Owner | None:
        owner = owner_of(found.tags, self._doors.signer)
        return owner if owner is not None and concerns(self._account, owner) else None

    async def _standing(self, found: Server | Volume, owner: Owner) -> Standing:
        record = (await self._doors.load(INSTANCE, owner.organization, owner.instance_id)).state
        return standing_of(self._account, found, owner, record)

    def _add(self, judged: dict[str, Judged], found: Server | Volume, owner: Owner, standing: Standing) -> None:
        signed = _signed(found, owner)
        judged.setdefault(key_of(signed), Judged(signed, owner, standing, found))

    async def _attached(self, cloud: Cloud, server: Server) -> Sequence[Volume]:
        """A stray's volumes, as long as it has them for certain: when its deletion began they are on record."""
        key = f"server/{server.provider_instance_id}"
        known = self._before.strays.get(key)
        if cloud.volumes is None or (known is not None and known.delete_intended_at is not None):
            return ()
        try:
            attached = await asked("list_volumes", cloud.volumes.list_volumes(server.provider_instance_id))
        except CallFailedError as failed:
            self.failed.append(failed)
            self.held.add(key)
            return ()
        return [volume for volume in attached if volume.is_boot or self._owner(volume) is not None]

    async def _find_the_unlisted(self, cloud: Cloud, judged: dict[str, Judged]) -> None:
        """Stray volumes of before that carry no tag, so that no list will ever tell that they are gone."""
        assert cloud.volumes is not None, "its volumes were listed"  # noqa: S101 - the impossible
        for key, stray in self._before.strays.items():
            if stray.resource == "server" or key in judged:
                continue
            found = await self._find_volume(cloud.volumes, stray.provider_resource_id)
            signed = Signed(**{field: getattr(stray, field) for field in Signed.__struct_fields__})
            owner = Owner(stray.organization_id, stray.instance_id, stray.attempt)
            if isinstance(found, Unknown):
                judged[key] = Judged(signed, owner, "stray", None)
            elif not isinstance(found, Absent):
                judged[key] = Judged(signed, owner, await self._standing(found, owner), found)

    async def _find_volume(self, volumes: Volumes, provider_volume_id: str) -> Volume | Absent | Unknown:
        try:
            return await asked("find_volume", volumes.find_volume(provider_volume_id))
        except CallFailedError as failed:
            self.failed.append(failed)
            return Unknown(failed.trouble.message)


def _signed(found: Server | Volume, owner: Owner) -> Signed:
    is_server = isinstance(found, Server)
    return Signed(
        resource="server" if is_server else "volume",
        provider_resource_id=found.provider_instance_id if isinstance(found, Server) else found.provider_volume_id,
        organization_id=owner.organization,
        instance_id=owner.instance_id,
        attempt=owner.attempt,
    )
