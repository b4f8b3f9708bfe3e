"""Providers of a rehearsal: what would be changed is noted, what they would have to answer ends the look."""

from collections.abc import Awaitable, Callable

import pytest

from domain.ids import OrganizationId
from handlers.cloud_ports import Absent, Cloud, ServerRequest
from infra.replay.dry_clouds import Deed, DryClouds, DryShell, LookEnds

ACME = OrganizationId("acme")
REQUEST = ServerRequest(name="s-1", tags={}, zone="z1", instance_type="L4", agent_environment={})


async def rented(deeds: list[Deed]) -> Cloud:
    cloud = await DryClouds(deeds, {"scaleway"}).of(ACME, "scaleway")
    assert cloud is not None
    return cloud


CHANGES: dict[str, Callable[[Cloud], Awaitable[object]]] = {
    "create_server": lambda cloud: cloud.create_server(REQUEST),
    "start_server": lambda cloud: cloud.start_server("srv-1"),
    "stop_server": lambda cloud: cloud.stop_server("srv-1"),
    "reinstall_server": lambda cloud: cloud.reinstall_server("srv-1"),
    "delete_server": lambda cloud: cloud.delete_server("srv-1"),
    "resize_volume": lambda cloud: cloud.volumes.resize_volume("vol-1", 200),  # type: ignore[union-attr] # rented
    "create_volume": lambda cloud: cloud.volumes.create_volume(name="v", zone="z1", size_gb=1, tags={}),  # type: ignore[union-attr] # rented
    "attach_volume": lambda cloud: cloud.volumes.attach_volume("vol-1", "srv-1"),  # type: ignore[union-attr] # rented
    "delete_volume": lambda cloud: cloud.volumes.delete_volume("vol-1"),  # type: ignore[union-attr] # rented
    "open_ports": lambda cloud: cloud.ports.open_ports("srv-1", (22,)),  # type: ignore[union-attr] # rented
}
QUESTIONS: tuple[Callable[[Cloud], Awaitable[object]], ...] = (
    lambda cloud: cloud.find_server(provider_instance_id="srv-1"),
    lambda cloud: cloud.list_servers(),
    lambda cloud: cloud.volumes.list_volumes("srv-1"),  # type: ignore[union-attr] # rented
    lambda cloud: cloud.volumes.list_own_volumes(),  # type: ignore[union-attr] # rented
    lambda cloud: cloud.volumes.find_volume("vol-1"),  # type: ignore[union-attr] # rented
)


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_is_noted_and_not_done(name: str) -> None:
    deeds: list[Deed] = []
    with pytest.raises(LookEnds):
        await CHANGES[name](await rented(deeds))
    assert [(deed.kind, deed.name) for deed in deeds] == [("call", name)]


@pytest.mark.parametrize("question", QUESTIONS)
async def test_a_question_ends_the_look_and_leaves_no_deed(question: Callable[[Cloud], Awaitable[object]]) -> None:
    deeds: list[Deed] = []
    with pytest.raises(LookEnds):
        await question(await rented(deeds))
    assert deeds == []


async def test_no_server_is_known_by_name_so_that_one_sees_what_would_be_created() -> None:
    assert await (await rented([])).find_server(name="s-1") == Absent()


async def test_a_script_is_not_run() -> None:
    deeds: list[Deed] = []
    with pytest.raises(LookEnds):
        await DryShell(deeds).run(ACME, "scaleway", "127.8.0.1", "rm -rf /", timeout_s=1)
    assert deeds == [Deed("call", "run_by_ssh", "127.8.0.1")]


@pytest.mark.parametrize("provider", ["local", "bare_metal"])
async def test_what_a_provider_does_not_have_is_not_asked_for_in_a_rehearsal_either(provider: str) -> None:
    cloud = await DryClouds([], {provider}).of(ACME, provider)
    assert cloud is not None
    assert (cloud.volumes, cloud.ports) == (None, None)
