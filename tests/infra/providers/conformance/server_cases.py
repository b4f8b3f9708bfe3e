"""Laws of servers: made once, found, started, stopped, deleted; each call may be repeated."""

import asyncio

from msgspec.structs import replace

from handlers.cloud_ports import Absent, CloudRefusedError, Present
from handlers.server_tags import owner_of
from tests.infra.providers.conformance.double import (
    CannotProduceError,
    Double,
    FixedSigner,
    deleted,
    eventually,
    made,
    refusal_of,
    running,
    trouble_of,
    until,
    wanted,
)

SECOND = "0190d3f0-0000-7000-8000-000000000002"


async def a_created_server_is_found_by_its_name_and_by_its_id(double: Double) -> None:
    cloud = double.new_cloud()
    server = await made(double, cloud)
    for found in (
        await cloud.find_server(name=server.name),
        await cloud.find_server(name=server.name, zone=double.zone),
        await cloud.find_server(provider_instance_id=server.provider_instance_id),
    ):
        assert isinstance(found, Present), found
        assert found.server.provider_instance_id == server.provider_instance_id
        assert found.server.name == wanted(double).name


async def creating_twice_creates_once(double: Double) -> None:
    first = await made(double, double.new_cloud())
    second = await made(double, double.new_cloud())
    assert first.provider_instance_id == second.provider_instance_id
    assert len(await double.new_cloud().list_servers()) == 1


async def creating_again_after_the_start_changes_nothing(double: Double) -> None:
    cloud = double.new_cloud()
    server = await running(double, cloud)
    again = await eventually(double, lambda: cloud.create_server(wanted(double)))
    assert again.provider_instance_id == server.provider_instance_id
    found = await cloud.find_server(provider_instance_id=server.provider_instance_id)
    assert isinstance(found, Present)
    assert found.server.running


async def creating_at_the_same_time_creates_once(double: Double) -> None:
    clouds = [double.new_cloud() for _ in range(3)]
    request = wanted(double)
    await asyncio.gather(*(cloud.create_server(request) for cloud in clouds), return_exceptions=True)
    for cloud in clouds:  # each handler goes on until it has its answer
        await made(double, cloud)
    ids = {(await made(double, cloud)).provider_instance_id for cloud in clouds}
    assert len(ids) == 1, "each handler means the same server"
    assert {one.provider_instance_id for one in await clouds[0].list_servers()} == ids


async def a_creation_whose_answer_is_lost_is_found_again(double: Double) -> None:
    cloud = double.new_cloud()
    await double.trouble("lost_answer")
    await trouble_of(lambda: cloud.create_server(wanted(double)))
    await double.heal()
    await double.pass_time()
    server = await made(double, double.new_cloud())
    assert [one.provider_instance_id for one in await cloud.list_servers()] == [server.provider_instance_id]


async def a_server_boots_the_image_that_was_asked_for(double: Double) -> None:
    cloud = double.new_cloud()
    if double.booted_image is None:
        raise CannotProduceError("this provider has no images to choose from")
    own, other = wanted(double, SECOND), replace(wanted(double), image=double.other_image)
    assert await double.booted_image((await made(double, cloud, own)).provider_instance_id) != double.other_image
    assert await double.booted_image((await made(double, cloud, other)).provider_instance_id) == double.other_image


async def an_image_that_is_not_there_is_refused(double: Double) -> None:
    cloud = double.new_cloud()
    if double.booted_image is None:
        raise CannotProduceError("this provider has no images to choose from")
    refused = await refusal_of(lambda: cloud.create_server(replace(wanted(double), image=double.no_image)))
    assert refused.message
    assert list(await cloud.list_servers()) == []


async def two_names_are_two_servers(double: Double) -> None:
    cloud = double.new_cloud()
    first = await made(double, cloud)
    second = await made(double, cloud, wanted(double, SECOND))
    assert first.provider_instance_id != second.provider_instance_id
    assert {one.name for one in await cloud.list_servers()} == {first.name, second.name}


async def a_server_keeps_its_signed_tags(double: Double) -> None:
    cloud = double.new_cloud()
    await running(double, cloud)
    (listed,) = await cloud.list_servers()
    assert dict(listed.tags) | dict(wanted(double).tags) == dict(listed.tags)
    assert owner_of(listed.tags, FixedSigner()) is not None


async def what_was_never_created_is_absent(double: Double) -> None:
    cloud = double.new_cloud()
    assert await cloud.find_server(name="nobody") == Absent()
    assert await cloud.find_server(name="nobody", zone=double.zone) == Absent()
    assert await cloud.find_server(provider_instance_id=double.no_server_id) == Absent()
    assert list(await cloud.list_servers()) == []


async def a_started_server_runs_and_starting_it_twice_is_fine(double: Double) -> None:
    cloud = double.new_cloud()
    server = await running(double, cloud)
    await eventually(double, lambda: cloud.start_server(server.provider_instance_id))
    found = await cloud.find_server(provider_instance_id=server.provider_instance_id)
    assert isinstance(found, Present)
    assert found.server.running


async def a_stopped_server_does_not_run_and_can_be_started_again(double: Double) -> None:
    cloud = double.new_cloud()
    server = await running(double, cloud)

    async def runs() -> bool:
        found = await cloud.find_server(provider_instance_id=server.provider_instance_id)
        assert isinstance(found, Present), found
        return found.server.running

    async def rests() -> bool:
        return not await runs()

    for _ in range(2):
        await eventually(double, lambda: cloud.stop_server(server.provider_instance_id))
        await until(double, rests, "a stopped server does not run")
    await eventually(double, lambda: cloud.start_server(server.provider_instance_id))
    await until(double, runs, "a stopped server runs again when it is started")


async def a_deleted_server_is_absent_and_deleting_twice_is_fine(double: Double) -> None:
    cloud = double.new_cloud()
    server = await running(double, cloud)
    for _ in range(2):
        await deleted(double, cloud, server.provider_instance_id)
        assert await cloud.find_server(name=server.name) == Absent()


async def deleting_what_never_was_is_fine(double: Double) -> None:
    await double.new_cloud().delete_server(double.no_server_id)


async def a_name_can_be_used_again_after_its_server_was_deleted(double: Double) -> None:
    cloud = double.new_cloud()
    server = await made(double, cloud)
    await deleted(double, cloud, server.provider_instance_id)
    again = await made(double, cloud)
    assert isinstance(await cloud.find_server(provider_instance_id=again.provider_instance_id), Present)


async def a_server_that_does_not_exist_can_be_neither_started_nor_stopped_nor_reinstalled(double: Double) -> None:
    cloud = double.new_cloud()
    for act in (cloud.start_server, cloud.stop_server, cloud.reinstall_server):
        refused = await refusal_of(lambda act=act: act(double.no_server_id))  # type: ignore[misc] # mypy cannot infer a lambda with a default
        assert refused.kind == "not_found", act.__name__


async def reinstalling_keeps_the_server_or_is_refused_by_its_code(double: Double) -> None:
    cloud = double.new_cloud()
    server = await running(double, cloud)
    try:
        await eventually(double, lambda: cloud.reinstall_server(server.provider_instance_id))
    except CloudRefusedError as refused:
        assert refused.code == "PROVIDER_REINSTALL_FAILED"  # noqa: PT017 - a refusal is allowed, another code is not
    await until(double, lambda: _runs_again(double, server.provider_instance_id), "the server runs after it")
    assert [one.provider_instance_id for one in await cloud.list_servers()] == [server.provider_instance_id]


async def a_server_of_somebody_else_is_not_seen_even_under_our_name(double: Double) -> None:
    if double.plant_stranger is None:
        raise CannotProduceError("this double has no strangers in its account")
    cloud = double.new_cloud()
    await double.plant_stranger(wanted(double).name)
    await double.pass_time()
    assert list(await cloud.list_servers()) == []
    assert await cloud.find_server(name=wanted(double).name) == Absent()
    server = await made(double, cloud)
    assert [one.provider_instance_id for one in await cloud.list_servers()] == [server.provider_instance_id]


async def _runs_again(double: Double, provider_instance_id: str) -> bool:
    found = await double.new_cloud().find_server(provider_instance_id=provider_instance_id)
    return isinstance(found, Present) and found.server.running


CASES = (
    a_created_server_is_found_by_its_name_and_by_its_id,
    creating_twice_creates_once,
    creating_again_after_the_start_changes_nothing,
    creating_at_the_same_time_creates_once,
    a_creation_whose_answer_is_lost_is_found_again,
    a_server_boots_the_image_that_was_asked_for,
    an_image_that_is_not_there_is_refused,
    two_names_are_two_servers,
    a_server_keeps_its_signed_tags,
    what_was_never_created_is_absent,
    a_started_server_runs_and_starting_it_twice_is_fine,
    a_stopped_server_does_not_run_and_can_be_started_again,
    a_deleted_server_is_absent_and_deleting_twice_is_fine,
    deleting_what_never_was_is_fine,
    a_name_can_be_used_again_after_its_server_was_deleted,
    a_server_that_does_not_exist_can_be_neither_started_nor_stopped_nor_reinstalled,
    reinstalling_keeps_the_server_or_is_refused_by_its_code,
    a_server_of_somebody_else_is_not_seen_even_under_our_name,
)
