"""The steps of an instance that ask its provider; each is safe to repeat, and answers with what was found.

    create, list volumes, resize, start, find address, open ports        delete server, look; delete volume, look

**At most one server per intent, even when a create takes effect late.** A create is asked for only by the look that
wrote its intent, right after it: so once. A later look, which cannot know whether the call was made, only looks for the
server, by the attempt's fixed name in its zone. When it is not there although every answer had to be (CREATE_SETTLES_S,
and the provider's listing lag, after the intent), the attempt is abandoned, and the next one has a number, and so a
name, of its own: should the server appear after all, it belongs to no attempt, and keep_servers_matching_records
deletes it. Where the provider itself makes one server of two calls, the create is simply repeated.
Refused: an event that says "the create was called", which a kill between call and event would belie.
"""

from datetime import timedelta
from typing import assert_never

from domain.instance_commands import (
    GONE_CONFIRMATION_S,
    FailStartup,
    InstanceCommand,
    RecordAddress,
    RecordPortsOpened,
    RecordServerCreated,
    RecordServerCreateFailed,
    RecordServerGone,
    RecordServerReinstalled,
    RecordServerStarted,
    RecordServerStartFailed,
    RecordVolume,
    RecordVolumeDeleted,
    RecordVolumeResized,
    RecordVolumeResizeFailed,
    RecordVolumes,
    RequestReplacement,
)
from domain.instance_state import CREATE_UNANSWERED, RATE_LIMITED
from domain.instance_steps import (
    GONE_RECHECK_S,
    CloudStep,
    CreateServer,
    DeleteServer,
    DeleteVolume,
    FindAddress,
    ListVolumes,
    OpenPorts,
    ReinstallServer,
    ResizeBootVolume,
    StartServer,
)
from handlers.agent_environment import agent_environment, worker_settings
from handlers.cloud_ports import Absent, Cloud, CloudRefusedError, CloudTraits, Present, Server, ServerRequest, Volume
from handlers.instance_look import (
    Look,
    ProviderTroubleError,
    asked,
    code_of,
    insisted,
    known_volume,
    look_for_server,
)
from handlers.outcome import Park, RetryAfter, pause_s
from handlers.provider_words import said
from handlers.server_tags import owner_of, tags_of

Finding = InstanceCommand | RetryAfter | Park

CREATE_SETTLES_S = 30.0
"""A create that was answered by nobody has taken effect by then, or never will; adapters give up a call at 20 s."""
SETTLE_PAUSE_S = 5.0
"""Between two looks for a server whose creation nobody answered."""
ADDRESS_PAUSES_S = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 55.0, 89.0, 144.0)
"""Between two looks for an address: SPEC 2.5's list, with quicker looks first for providers that have it at once."""
RESIZE_LIMIT_S = 120
"""From the intent; a volume that has not grown by then stays as it is (not fatal, SPEC 4.2)."""
RESIZE_PAUSE_S = 5.0


async def take_in_cloud(step: CloudStep, look: Look, cloud: Cloud) -> Finding:
    """Raises ProviderTroubleError: the look is taken again later."""
    match step:
        case CreateServer():
            return await _create(look, cloud)
        case ListVolumes():
            return await _list_volumes(step, look, cloud)
        case ResizeBootVolume():
            return await _resize(step, look, cloud)
        case StartServer():
            return await _start(step, cloud)
        case FindAddress():
            return await _find_address(step, look, cloud)
        case OpenPorts():
            return await _open_ports(step, look, cloud)
        case ReinstallServer():
            return await _reinstall(step, cloud)
        case DeleteServer():
            return await _delete(step, look, cloud)
        case DeleteVolume():
            return await _delete_volume(step, look, cloud)
        case _:
            assert_never(step)


async def _create(look: Look, cloud: Cloud) -> Finding:
    if not look.intended_now:
        found = await look_for_server(cloud, name=look.state.server_name, zone=look.place.zone)
        if isinstance(found, Present):
            return _created(found.server, look)
        if not cloud.traits.creates_idempotently:
            return _abandon(look, cloud.traits)
    try:
        server = await asked("create_server", cloud.create_server(await _server_request(look)))
    except CloudRefusedError as refused:
        if not look.intended_now and (left_s := _unsettled_s(look, cloud.traits)) > 0:
            # This call made none, for certain; what the one before it did is not known yet.
            return RetryAfter(min(left_s, SETTLE_PAUSE_S), said(refused.message))
        code = code_of(refused, "PROVIDER_CREATE_FAILED")
        return _not_created(code, said(refused.message), look)
    except ProviderTroubleError as trouble:
        # Turned away at the door, the attempt has no server, and needs none; unless a call before this one made it.
        if trouble.kind == "rate_limited" and look.intended_now:
            trouble.finding = _not_created(RATE_LIMITED, trouble.message, look)
        raise
    return _created(server, look)


def _created(server: Server, look: Look) -> RecordServerCreated:
    return RecordServerCreated(provider_instance_id=server.provider_instance_id, attempt=look.state.attempt)


def _not_created(code: str, words: str, look: Look) -> RecordServerCreateFailed:
    return RecordServerCreateFailed(code=code, message=words, attempt=look.state.attempt)


def _abandon(look: Look, traits: CloudTraits) -> Finding:
    if (left_s := _unsettled_s(look, traits)) > 0:
        return RetryAfter(min(left_s, SETTLE_PAUSE_S), "nobody knows yet whether the server was created")
    words = f"No answer to the creation of {look.state.server_name}, and it was not found since."
    return _not_created(CREATE_UNANSWERED, words, look)


def _unsettled_s(look: Look, traits: CloudTraits) -> float:
    """For how long an attempt's server may still appear although a look by its name does not find it."""
    if traits.creates_idempotently and not traits.list_lag_s:  # answers at once, and tells what is
        return 0.0
    settles_at = (look.state.intended_at or look.now) + timedelta(seconds=CREATE_SETTLES_S + traits.list_lag_s)
    return (settles_at - look.now).total_seconds()


async def _server_request(look: Look) -> ServerRequest:
    settings = await worker_settings(look)
    return ServerRequest(
        name=look.state.server_name,
        tags=tags_of(look.owner, look.doors.signer),
        zone=look.place.zone,
        instance_type=look.place.instance_type,
        agent_environment=await agent_environment(look),
        disk_gb=look.request.disk_gb,
        image=settings.chosen("WORKER_BOOT_IMAGE"),
    )


async def _list_volumes(step: ListVolumes, look: Look, cloud: Cloud) -> Finding:
    """All of them; a volume that is neither its boot volume nor carries our tags is somebody's, and is kept."""
    if cloud.volumes is None:
        return RecordVolumes(volumes=())
    try:
        found = await asked("list_volumes", cloud.volumes.list_volumes(step.provider_instance_id))
    except CloudRefusedError as refused:
        if look.is_clearing:
            if refused.kind in {"not_found", "permanent"}:  # no reason to leave the server behind
                return RecordVolumes(volumes=())
            raise insisted("list_volumes", refused) from refused
        if refused.kind == "not_found":
            return _gone(look, cloud.traits)
        code = code_of(refused, "PROVIDER_VOLUME_ATTACH_FAILED")
        return RecordServerStartFailed(code=code, message=said(refused.message))
    return RecordVolumes(volumes=tuple(_recorded(volume, look) for volume in found))


def _recorded(volume: Volume, look: Look) -> RecordVolume:
    owner = owner_of(volume.tags, look.doors.signer)
    return RecordVolume(
        provider_volume_id=volume.provider_volume_id,
        volume_type=volume.volume_type,
        size_gb=volume.size_gb,
        is_boot=volume.is_boot,
        delete_on_terminate=volume.is_boot or (owner is not None and owner.instance_id == look.trigger.id),
    )


async def _resize(step: ResizeBootVolume, look: Look, cloud: Cloud) -> Finding:
    volume_id = step.provider_volume_id
    if cloud.volumes is None:
        return _not_resized(volume_id, "", "This provider has no volumes.")
    try:
        await asked("resize_volume", cloud.volumes.resize_volume(volume_id, step.size_gb))
        found = known_volume(await asked("find_volume", cloud.volumes.find_volume(volume_id)))
    except CloudRefusedError as refused:
        return _not_resized(volume_id, refused.code, said(refused.message))
    if isinstance(found, Volume) and found.size_gb >= step.size_gb:
        return RecordVolumeResized(provider_volume_id=volume_id, size_gb=found.size_gb)
    begun_at = look.state.intended_at or look.now
    if look.now < begun_at + timedelta(seconds=RESIZE_LIMIT_S):
        return RetryAfter(RESIZE_PAUSE_S, "the boot volume has not grown yet")
    return _not_resized(volume_id, "", f"It did not grow within {RESIZE_LIMIT_S} s.")


def _not_resized(volume_id: str, code: str, message: str) -> RecordVolumeResizeFailed:
    code = code or "PROVIDER_VOLUME_RESIZE_FAILED"
    return RecordVolumeResizeFailed(provider_volume_id=volume_id, code=code, message=message)


async def _start(step: StartServer, cloud: Cloud) -> Finding:
    try:
        await asked("start_server", cloud.start_server(step.provider_instance_id))
    except CloudRefusedError as refused:
        code = code_of(refused, "PROVIDER_START_FAILED")
        return RecordServerStartFailed(code=code, message=said(refused.message))
    return RecordServerStarted()


async def _find_address(step: FindAddress, look: Look, cloud: Cloud) -> Finding:
    found = await look_for_server(cloud, server_id=step.provider_instance_id)
    if isinstance(found, Absent):
        return _gone(look, cloud.traits)
    if found.server.ip_address:
        return RecordAddress(ip_address=found.server.ip_address)
    pause = ADDRESS_PAUSES_S[min(look.trigger.attempt, len(ADDRESS_PAUSES_S) - 1)]
    return RetryAfter(pause, "the server has no address yet")


async def _open_ports(step: OpenPorts, look: Look, cloud: Cloud) -> Finding:
    ports = (await worker_settings(look)).exposed_ports
    if ports and cloud.ports is not None:
        try:
            await asked("open_ports", cloud.ports.open_ports(step.provider_instance_id, ports))
        except CloudRefusedError as refused:
            return FailStartup(code=code_of(refused, "PROVIDER_SECURITY_GROUP_FAILED"), message=said(refused.message))
    return RecordPortsOpened(ports=ports)


async def _reinstall(step: ReinstallServer, cloud: Cloud) -> Finding:
    """Where the provider cannot make a server new, a new server comes to the same."""
    try:
        await asked("reinstall_server", cloud.reinstall_server(step.provider_instance_id))
    except CloudRefusedError as refused:
        if refused.kind == "permanent":
            return RequestReplacement(reason=f"Its provider does not reinstall: {said(refused.message)}")
        return FailStartup(code=code_of(refused, "PROVIDER_REINSTALL_FAILED"), message=said(refused.message))
    return RecordServerReinstalled()


async def _delete(step: DeleteServer, look: Look, cloud: Cloud) -> Finding:
    """Deletes, then looks. A server found by name is recorded first, so that everybody knows what is being deleted."""
    if not step.provider_instance_id:
        return await _find_to_delete(step, look, cloud)
    try:
        await asked("delete_server", cloud.delete_server(step.provider_instance_id))
    except CloudRefusedError as refused:
        if refused.kind != "not_found":
            raise insisted("delete_server", refused) from refused
    found = await look_for_server(cloud, server_id=step.provider_instance_id)
    if isinstance(found, Absent):
        return _gone(look, cloud.traits)
    return RetryAfter(max(GONE_RECHECK_S, pause_s(look.trigger.attempt)), "the server is still being deleted")


async def _find_to_delete(step: DeleteServer, look: Look, cloud: Cloud) -> Finding:
    found = await look_for_server(cloud, name=step.server_name, zone=look.place.zone)
    if isinstance(found, Present):
        return _created(found.server, look)
    if (left_s := _unsettled_s(look, cloud.traits)) > 0:
        return RetryAfter(min(left_s, SETTLE_PAUSE_S), "the server may still be being created")
    return _gone(look, cloud.traits)


def _gone(look: Look, traits: CloudTraits) -> RecordServerGone:
    lag_s = max(GONE_CONFIRMATION_S, traits.list_lag_s)
    return RecordServerGone(confirm_after_s=lag_s, attempt=look.state.attempt)


async def _delete_volume(step: DeleteVolume, look: Look, cloud: Cloud) -> Finding:
    if cloud.volumes is None:  # it was found there: this must not be forgotten
        return Park(f"Volume {step.provider_volume_id} is at a provider that has no volumes here.")
    try:
        await asked("delete_volume", cloud.volumes.delete_volume(step.provider_volume_id))
    except CloudRefusedError as refused:
        if refused.kind != "not_found":
            raise insisted("delete_volume", refused) from refused
    try:
        found = known_volume(await asked("find_volume", cloud.volumes.find_volume(step.provider_volume_id)))
    except CloudRefusedError as refused:
        raise insisted("find_volume", refused) from refused
    if isinstance(found, Absent):
        return RecordVolumeDeleted(provider_volume_id=step.provider_volume_id)
    return RetryAfter(max(GONE_RECHECK_S, pause_s(look.trigger.attempt)), "the volume is still being deleted")
