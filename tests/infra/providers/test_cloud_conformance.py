"""What every provider must do, whatever it is made of. A further adapter joins by a further entry in CLOUDS."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from handlers.cloud_ports import Absent, Cloud, CloudRefusedError, Present, ServerRequest
from tests.infra.providers.local_clouds import new_local_cloud

CLOUDS: dict[str, Callable[[Path], Awaitable[Cloud]]] = {"local": new_local_cloud}


@pytest.fixture(params=CLOUDS)
async def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Cloud:
    return await CLOUDS[request.param](tmp_path)


def wanted(name: str = "inventiv-worker-1-1") -> ServerRequest:
    return ServerRequest(
        name=name,
        tags={"platform": "inventiv-agents", "instance": name},
        zone="local",
        instance_type="mock-local-instance",
        agent_environment={"INSTANCE_ID": "1", "WORKER_AUTH_TOKEN": "wb_secret", "WORKER_ENGINE": "simulated"},
    )


async def test_a_created_server_is_found_by_its_name_and_by_its_id(cloud: Cloud) -> None:
    server = await cloud.create_server(wanted())
    assert await cloud.find_server(name=server.name) == Present(server)
    assert await cloud.find_server(provider_instance_id=server.provider_instance_id) == Present(server)


async def test_creating_twice_creates_once(cloud: Cloud) -> None:
    first = await cloud.create_server(wanted())
    second = await cloud.create_server(wanted())
    assert first == second
    assert [s.provider_instance_id for s in await cloud.list_servers()] == [first.provider_instance_id]


async def test_two_names_are_two_servers(cloud: Cloud) -> None:
    first = await cloud.create_server(wanted("one"))
    second = await cloud.create_server(wanted("two"))
    assert first.provider_instance_id != second.provider_instance_id
    assert {s.name for s in await cloud.list_servers()} == {"one", "two"}


async def test_a_server_keeps_its_tags(cloud: Cloud) -> None:
    await cloud.create_server(wanted())
    (listed,) = await cloud.list_servers()
    assert listed.tags == wanted().tags


async def test_what_was_never_created_is_absent(cloud: Cloud) -> None:
    assert await cloud.find_server(name="nobody") == Absent()
    assert await cloud.find_server(provider_instance_id="local-0000000000000000") == Absent()
    assert list(await cloud.list_servers()) == []


async def test_a_deleted_server_is_absent_and_deleting_twice_is_fine(cloud: Cloud) -> None:
    server = await cloud.create_server(wanted())
    for _ in range(2):
        await cloud.delete_server(server.provider_instance_id)
        assert await cloud.find_server(provider_instance_id=server.provider_instance_id) == Absent()
        assert await cloud.find_server(name=server.name) == Absent()


async def test_a_name_can_be_used_again_after_its_server_was_deleted(cloud: Cloud) -> None:
    server = await cloud.create_server(wanted())
    await cloud.delete_server(server.provider_instance_id)
    assert isinstance(await cloud.find_server(name=(await cloud.create_server(wanted())).name), Present)


async def test_a_server_that_does_not_exist_cannot_be_reinstalled(cloud: Cloud) -> None:
    with pytest.raises(CloudRefusedError):
        await cloud.reinstall_server("local-0000000000000000")


async def test_a_server_that_does_not_exist_cannot_be_started(cloud: Cloud) -> None:
    with pytest.raises(CloudRefusedError):
        await cloud.start_server("local-0000000000000000")
