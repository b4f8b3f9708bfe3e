"""AWS EC2 as a Cloud: GPU servers of one account, in the regions that it chose.

    create: look by name ──> image, subnet, firewall ──> RunInstances(ClientToken = hash of the name, tags, user data)
    ids "<region>/<i-...>"   zones are availability zones   tags on the server and on its disks from their first moment

A server that powers itself off is terminated with its boot disk, so a dead-man switch really ends the bill. The
surprising rule: EC2 is eventually consistent. A new server may be missing for a while from every look but that by its
token; whoever finds nothing waits for `traits.list_lag_s`, or creates again, which creates once.
"""

import gzip
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from handlers.cloud_ports import (
    Absent,
    CloudRefusedError,
    CloudTraits,
    CloudUnavailableError,
    Existence,
    Present,
    Server,
    ServerRequest,
    Unknown,
)
from handlers.server_tags import PLATFORM_TAG
from infra.providers.aws_calls import AwsAccount, AwsCalls, aws_account
from infra.providers.aws_images import Image, ImageChoice, Images
from infra.providers.aws_network import AwsNetwork, Place
from infra.providers.aws_offers import AwsOffers
from infra.providers.aws_shapes import (
    ALIVE_STATES,
    PLATFORM_KEY,
    aws_tags,
    gib_of,
    is_alive,
    region_of,
    server_of,
    split_id,
)
from infra.providers.aws_volumes import VOLUME_TYPE, AwsVolumes, client_token
from infra.providers.calling import StillBusyError

LIST_LAG_S = 30.0
"""EC2 calls itself eventually consistent and names no bound; seconds are usual, half a minute is a cautious guess."""
MAX_USER_DATA_BYTES = 16_384
"""EC2's, before base64."""
MAX_LIVES = 5
"""Servers that may follow one another under one name."""
USED_UP = "IdempotentInstanceTerminated"
REPLACING = ("pending", "in-progress")
"""States of a boot disk's replacement that goes on."""
Bootstrap = Callable[[ServerRequest], str]
"""Makes a server's user data; the same request gives the same text."""


class AwsCloud:
    """Implements handlers.cloud_ports.Cloud for one account.

    Args:
        account: its keys and choices.
        bootstrap: what a new server runs at its first boot.
        images: which image it boots.
        platform: the tag that tells our things from others'.
    """

    traits = CloudTraits(list_lag_s=LIST_LAG_S, creates_idempotently=True, stops_billing_when_off=True)

    def __init__(
        self,
        account: AwsAccount,
        *,
        bootstrap: Bootstrap,
        images: ImageChoice = ImageChoice(),
        platform: str = PLATFORM_TAG,
    ) -> None:
        self._account = account
        self._calls = AwsCalls(account)
        self._bootstrap = bootstrap
        self._images = Images(self._calls, images)
        self._platform = platform
        self.ports = AwsNetwork(self._calls)
        self.volumes = AwsVolumes(self._calls, platform)
        self.offers = AwsOffers(self._calls)

    async def create_server(self, request: ServerRequest) -> Server:
        region = region_of(request.zone)
        if region not in self._account.regions:
            message = f"The account looks at {', '.join(self._account.regions)}; {request.zone} is in none of them."
            raise CloudRefusedError("MISSING_ZONE", message)
        existing = await self._named(region, request.name)
        if existing is not None:
            return existing
        place = await self.ports.place_in(region, request.zone)
        group_id = await self.ports.group_in(region, place.vpc_id)
        asked = _asked(request, await self._images.of(region, request.image), place, group_id, self._bootstrap(request))
        made = await self._run(region, request.name, asked)
        if not is_alive(made):
            raise _ended_at_once(made)
        return server_of(region, made)

    async def _run(self, region: str, name: str, asked: dict[str, Any]) -> dict[str, Any]:
        """A token stays its server's when that has ended, and EC2 says so for certain; the name then takes the next."""
        for life in range(MAX_LIVES):
            try:
                reply = await self._calls(region, "run_instances", ClientToken=client_token(name, life), **asked)
            except CloudRefusedError as refused:
                if not refused.message.startswith(USED_UP):
                    raise
            else:
                return dict(reply["Instances"][0])
        raise CloudRefusedError("PROVIDER_CREATE_FAILED", f"The name {name} was used {MAX_LIVES} times.")

    async def start_server(self, provider_instance_id: str) -> None:
        """A new one starts by itself; EC2 would call it busy, and us impatient."""
        if await self._state(provider_instance_id, "PROVIDER_START_FAILED") not in {"pending", "running"}:
            region, instance_id = split_id(provider_instance_id)
            await self._calls(region, "start_instances", InstanceIds=[instance_id])

    async def stop_server(self, provider_instance_id: str) -> None:
        """Switched off from outside it is kept, and its disks are paid for on."""
        await self._state(provider_instance_id, "PROVIDER_STOP_FAILED")
        region, instance_id = split_id(provider_instance_id)
        await self._calls(region, "stop_instances", InstanceIds=[instance_id])

    async def reinstall_server(self, provider_instance_id: str) -> None:
        """Puts a new boot disk, made of the image, in the place of the old one; the user data then runs again.

        EC2 does that to running servers only, so one that is off is started, and the caller asked to come again.
        """
        state = await self._state(provider_instance_id, "PROVIDER_REINSTALL_FAILED")
        region, instance_id = split_id(provider_instance_id)
        if state != "running":
            await self.start_server(provider_instance_id)
            raise StillBusyError(f"{provider_instance_id} is being started, to be reinstalled then")
        own = [{"Name": "instance-id", "Values": [instance_id]}]
        tasks = await self._calls(region, "describe_replace_root_volume_tasks", Filters=own)
        if not any(task["TaskState"] in REPLACING for task in tasks["ReplaceRootVolumeTasks"]):
            await self._calls(
                region, "create_replace_root_volume_task", InstanceId=instance_id, DeleteReplacedRootVolume=True
            )

    async def find_server(self, *, name: str = "", zone: str = "", provider_instance_id: str = "") -> Existence:
        try:
            if provider_instance_id:
                found = await self._identified(provider_instance_id)
            else:
                found = await self._searched(name, zone)
        except CloudRefusedError as refused:
            return Absent() if refused.kind == "not_found" else Unknown(refused.message)
        except CloudUnavailableError as unavailable:
            return Unknown(str(unavailable))
        return Present(found) if found else Absent()

    async def list_servers(self) -> Sequence[Server]:
        """Raises CloudUnavailableError, also for a refusal in any region: half a listing is none."""
        found: list[Server] = []
        for region in self._account.regions:
            try:
                found += await self._listed(region)
            except CloudRefusedError as refused:
                raise CloudUnavailableError(f"{region}: {refused.message}") from refused
        return found

    async def delete_server(self, provider_instance_id: str) -> None:
        region, instance_id = split_id(provider_instance_id)
        if not region:
            return
        try:
            await self._calls(region, "terminate_instances", InstanceIds=[instance_id])
        except CloudRefusedError as refused:
            if refused.kind != "not_found":
                raise

    async def _state(self, provider_instance_id: str, code: str) -> str:
        """What EC2 calls the state of a server; one that has ended would be called busy for an hour.

        Raises:
            CloudRefusedError: not_found, with `code`; CloudUnavailableError.
        """
        try:
            found = await self._alive(provider_instance_id)
        except CloudRefusedError as refused:
            raise CloudRefusedError(code, refused.message, refused.kind) from None
        if found is None:
            raise CloudRefusedError(code, f"There is no server {provider_instance_id}.", "not_found")
        return str(found["State"]["Name"])

    async def _alive(self, provider_instance_id: str) -> dict[str, Any] | None:
        region, instance_id = split_id(provider_instance_id)
        if not region:
            return None
        found = await self._calls(region, "describe_instances", InstanceIds=[instance_id])
        instances = [one for reservation in found["Reservations"] for one in reservation["Instances"]]
        return next((one for one in instances if is_alive(one)), None)

    async def _identified(self, provider_instance_id: str) -> Server | None:
        found = await self._alive(provider_instance_id)
        return server_of(split_id(provider_instance_id)[0], found) if found else None

    async def _searched(self, name: str, zone: str) -> Server | None:
        for region in (region_of(zone),) if zone else self._account.regions:
            found = await self._named(region, name)
            if found is not None and zone in {"", found.zone}:
                return found
        return None

    async def _named(self, region: str, name: str) -> Server | None:
        """The oldest, should a name ever stand for two."""
        named = await self._listed(region, {"Name": "tag:Name", "Values": [name]})
        return min(named, key=lambda server: (str(server.created_at), server.provider_instance_id), default=None)

    async def _listed(self, region: str, *filters: dict[str, Any]) -> list[Server]:
        ours = {"Name": f"tag:{PLATFORM_KEY}", "Values": [self._platform]}
        alive = {"Name": "instance-state-name", "Values": list(ALIVE_STATES)}
        found = await self._calls.all(region, "describe_instances", "Reservations", Filters=[ours, alive, *filters])
        return [server_of(region, one) for reservation in found for one in reservation["Instances"] if is_alive(one)]


def aws_cloud(credentials: Mapping[str, str], *, bootstrap: Bootstrap, endpoint_url: str = "") -> AwsCloud:
    """Of an organisation's credentials, as domain/provider_credentials.py names them; asks nobody.

    Raises:
        KeyError: a required one is missing.
    """
    return AwsCloud(aws_account(credentials, endpoint_url=endpoint_url), bootstrap=bootstrap)


def _asked(request: ServerRequest, image: Image, place: Place, group_id: str, user_data: str) -> dict[str, Any]:
    """RunInstances' parameters but for the token; the same for the same request, as EC2 wants it of one token."""
    tags = aws_tags(request.name, request.tags)
    disk: dict[str, Any] = {"VolumeType": VOLUME_TYPE, "DeleteOnTermination": True}
    size_gib = max(gib_of(request.disk_gb), image.least_gib)
    if size_gib:
        disk["VolumeSize"] = size_gib
    return {
        "MinCount": 1,
        "MaxCount": 1,
        "ImageId": image.image_id,
        "InstanceType": request.instance_type,
        "UserData": _fitted(user_data),
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {"HttpTokens": "required"},
        "BlockDeviceMappings": [{"DeviceName": image.root_device, "Ebs": disk}],
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": place.subnet_id,
                "Groups": [group_id],
                "AssociatePublicIpAddress": True,
                "DeleteOnTermination": True,
            }
        ],
        "TagSpecifications": [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")],
    }


def _fitted(user_data: str) -> str | bytes:
    """Cloud-init unpacks what is packed; time 0 keeps the same text the same bytes."""
    plain = user_data.encode()
    if len(plain) <= MAX_USER_DATA_BYTES:
        return user_data
    packed = gzip.compress(plain, mtime=0)
    if len(packed) > MAX_USER_DATA_BYTES:
        message = f"The first-boot script has {len(packed)} bytes; EC2 takes {MAX_USER_DATA_BYTES}."
        raise CloudRefusedError("PROVIDER_CREATE_FAILED", message)
    return packed


def _ended_at_once(instance: dict[str, Any]) -> CloudRefusedError:
    """EC2 may take a request and end its server in the same breath; its reason says whether for want of room."""
    reason = instance.get("StateReason", {})
    words = f"{reason.get('Code', '')}: {reason.get('Message', 'the server of this name has ended')}"
    if "InsufficientInstanceCapacity" in words:
        return CloudRefusedError("PROVIDER_OUT_OF_STOCK", words, "out_of_stock")
    return CloudRefusedError("PROVIDER_CREATE_FAILED", words)
