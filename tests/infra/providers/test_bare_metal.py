"""An owner's hosts as servers: who holds one stands on it; late and doubled calls harm nobody; slots are kept."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from domain.host import Slot
from handlers.cloud_ports import Absent, CloudRefusedError, CloudUnavailableError, Present, Unknown
from infra.providers.bare_metal_script import NoAnswerError, deed_script, holding_of
from infra.providers.bootstrap.script import PHASES
from tests.infra.providers.bare_metal_hosts import CLOSED, Fleet, fleet, wanted
from tests.infra.providers.bootstrap.host import ControlPlane, PrefixHost, control_plane, runs
from tests.infra.providers.bootstrap.host import until as wait_until
from tests.infra.ssh_hosts import SshHost, silent_server


@pytest.fixture
async def hosts(tmp_path: Path) -> AsyncIterator[Fleet]:
    async with fleet(tmp_path) as hosts:
        yield hosts


def machine_of(hosts: Fleet, provider_instance_id: str) -> SshHost:
    return hosts.machines[provider_instance_id.partition("/")[0]]


def place(machine: SshHost) -> Path:
    return machine.files.root / "var/lib/inventiv-host"


async def until(holds: Callable[[], object], what: str) -> None:
    """In a thread, for what it waits for happens in processes, and the hosts serve in this loop."""
    await asyncio.to_thread(wait_until, holds, what)


async def test_a_host_that_one_platform_holds_is_taken_for_every_other(hosts: Fleet) -> None:
    """The other one knows the same hosts, and nothing of the first."""
    ours, theirs = hosts.new_cloud(), hosts.new_cloud()
    taken = {(await ours.create_server(wanted(f"ours-{n}"))).provider_instance_id.partition("/")[0] for n in range(2)}
    assert taken == set(hosts.machines)
    with pytest.raises(CloudRefusedError) as refused:
        await theirs.create_server(wanted("theirs"))
    assert (refused.value.code, refused.value.kind) == ("PROVIDER_OUT_OF_STOCK", "out_of_stock")
    assert "2 are held" in refused.value.message


async def test_many_at_once_share_the_hosts_and_no_host_twice(hosts: Fleet) -> None:
    clouds = [hosts.new_cloud() for _ in range(5)]
    wishes = (cloud.create_server(wanted(f"wish-{number}")) for number, cloud in enumerate(clouds))
    answers = await asyncio.gather(*wishes, return_exceptions=True)
    servers = [answer for answer in answers if not isinstance(answer, BaseException)]
    assert len({server.provider_instance_id.partition("/")[0] for server in servers}) == len(servers) == 2
    assert all(isinstance(answer, CloudRefusedError) for answer in answers if isinstance(answer, BaseException))


async def test_a_late_delete_does_not_reach_the_next_one_on_the_host(hosts: Fleet) -> None:
    cloud = hosts.new_cloud()
    hosts.hosts = hosts.hosts[:1]
    first = await cloud.create_server(wanted("first"))
    await cloud.delete_server(first.provider_instance_id)
    second = await cloud.create_server(wanted("second"))
    assert second.provider_instance_id.partition("/")[0] == first.provider_instance_id.partition("/")[0]
    await cloud.delete_server(first.provider_instance_id)
    assert isinstance(await cloud.find_server(provider_instance_id=second.provider_instance_id), Present)
    assert await cloud.find_server(provider_instance_id=first.provider_instance_id) == Absent()
    with pytest.raises(CloudRefusedError):
        await cloud.start_server(first.provider_instance_id)


async def test_one_silent_host_hides_what_it_holds_and_nothing_else(hosts: Fleet) -> None:
    cloud = hosts.new_cloud()
    silent, talking = [await cloud.create_server(wanted(f"wish-{n}")) for n in range(2)]
    machine_of(hosts, silent.provider_instance_id).trouble = "down"
    with pytest.raises(CloudUnavailableError, match=r"^host host-\d: "):
        await cloud.list_servers()
    assert isinstance(await cloud.find_server(provider_instance_id=talking.provider_instance_id), Present)
    assert isinstance(await cloud.find_server(name=talking.name), Present)
    assert isinstance(await cloud.find_server(provider_instance_id=silent.provider_instance_id), Unknown)
    assert isinstance(await cloud.find_server(name=silent.name), Unknown)
    assert isinstance(await cloud.find_server(name="nobody"), Unknown)
    await cloud.delete_server(talking.provider_instance_id)
    assert await cloud.find_server(provider_instance_id=talking.provider_instance_id) == Absent()


async def test_while_a_host_is_silent_no_other_is_taken_in_its_place(hosts: Fleet) -> None:
    """It may hold this very name already: then one wish would have two servers."""
    cloud = hosts.new_cloud()
    next(iter(hosts.machines.values())).trouble = "down"
    with pytest.raises(CloudUnavailableError):
        await cloud.create_server(wanted())
    hosts.hosts = hosts.hosts[1:]
    assert (await cloud.create_server(wanted())).name == wanted().name


async def test_a_host_outside_its_slots_is_not_taken(hosts: Fleet) -> None:
    cloud = hosts.new_cloud()
    closed, open_ = hosts.hosts
    hosts.change(closed.id, slots=CLOSED)
    server = await cloud.create_server(wanted())
    assert server.provider_instance_id.startswith(open_.id)
    with pytest.raises(CloudRefusedError, match="1 outside their slots"):
        await cloud.create_server(wanted("second"))


async def test_a_host_whose_slot_ends_soon_is_not_taken(hosts: Fleet) -> None:
    hosts.change_all(slots=(Slot(day=0, start_minute=0, end_minute=12 * 60 + 14),))
    with pytest.raises(CloudRefusedError, match="2 outside their slots"):
        await hosts.new_cloud().create_server(wanted())
    hosts.change_all(slots=(Slot(day=0, start_minute=0, end_minute=12 * 60 + 15),))
    await hosts.new_cloud().create_server(wanted())


async def test_a_withdrawn_host_is_asked_no_more(hosts: Fleet) -> None:
    cloud = hosts.new_cloud()
    server = await cloud.create_server(wanted())
    hosts.hosts = [host for host in hosts.hosts if not server.provider_instance_id.startswith(host.id)]
    asked = len(machine_of(hosts, server.provider_instance_id).commands)
    assert await cloud.find_server(provider_instance_id=server.provider_instance_id) == Absent()
    await cloud.delete_server(server.provider_instance_id)
    assert list(await cloud.list_servers()) == []
    assert len(machine_of(hosts, server.provider_instance_id).commands) == asked


async def test_which_hosts_there_are_may_be_unknown(hosts: Fleet) -> None:
    async def away() -> list[object]:
        raise TimeoutError("the read model is being built")

    cloud = hosts.new_cloud()
    server = await cloud.create_server(wanted())
    hosts.listed = away  # type: ignore[method-assign, assignment]  # the read side of this test breaks down
    blind = hosts.new_cloud()
    assert isinstance(await blind.find_server(provider_instance_id=server.provider_instance_id), Unknown)
    with pytest.raises(CloudUnavailableError):
        await blind.list_servers()


async def test_offers_say_what_is_free(hosts: Fleet) -> None:
    cloud = hosts.new_cloud()
    hosts.change(hosts.hosts[1].id, gpu_count=2, price_eur_micros_per_hour=5)

    async def stock() -> dict[str, str]:
        return {offer.instance_type: offer.stock for offer in await cloud.list_offers()}

    assert await stock() == {"host:1x24": "available", "host:2x24": "available"}
    await cloud.create_server(wanted())
    assert await stock() == {"host:1x24": "out", "host:2x24": "available"}
    hosts.machines[hosts.hosts[1].id].trouble = "down"
    assert await stock() == {"host:1x24": "out", "host:2x24": "out"}


async def test_a_worker_runs_after_the_start_and_is_gone_after_the_delete(hosts: Fleet) -> None:
    with control_plane() as plane:
        cloud = hosts.new_cloud()
        server = await cloud.create_server(wanted(url=plane.url))
        machine = machine_of(hosts, server.provider_instance_id)
        await cloud.start_server(server.provider_instance_id)
        found = await cloud.find_server(name=server.name)
        assert isinstance(found, Present)
        assert (found.server.running, found.server.ip_address) == (True, "127.0.0.1")
        await _until_started(plane, machine.files)
        agent = machine.files.starts()[0]
        assert machine.files.agent_environment()["WORKER_ADVERTISE_IP"] == "127.0.0.1"
        await cloud.delete_server(server.provider_instance_id)
        assert not runs(agent)
        assert {path.name for path in place(machine).iterdir()} == {"lock"}
        assert not (machine.files.etc / "environment").exists()
        assert (machine.files.etc / "host.env").exists()


async def test_a_stopped_worker_starts_again_as_the_same(hosts: Fleet) -> None:
    with control_plane() as plane:
        cloud = hosts.new_cloud()
        server = await cloud.create_server(wanted(url=plane.url))
        machine = machine_of(hosts, server.provider_instance_id)
        await cloud.start_server(server.provider_instance_id)
        await _until_started(plane, machine.files)
        await cloud.stop_server(server.provider_instance_id)
        assert not runs(machine.files.starts()[0])
        await cloud.start_server(server.provider_instance_id)
        await until(lambda: len(machine.files.starts()) == 2, "the same state, a second start")


async def test_a_reinstalled_worker_forgets_what_it_was(hosts: Fleet) -> None:
    with control_plane() as plane:
        cloud = hosts.new_cloud()
        server = await cloud.create_server(wanted(url=plane.url))
        machine = machine_of(hosts, server.provider_instance_id)
        await cloud.start_server(server.provider_instance_id)
        await _until_started(plane, machine.files)
        (machine.files.base / "state/credentials").write_text("the old one's")
        await cloud.reinstall_server(server.provider_instance_id)
        await until(lambda: plane.phases.count(("done", True)) == 2, "a second installation")
        assert not (machine.files.base / "state/credentials").exists()
        assert machine.files.agent_environment()["INSTANCE_ID"] == wanted().name


async def test_a_delete_ends_an_installation_that_is_under_way(hosts: Fleet) -> None:
    """Its first report hangs; nothing of it may be left to start an agent afterwards."""
    with silent_server() as port:
        cloud = hosts.new_cloud()
        created = await cloud.create_server(wanted(url=f"http://127.0.0.1:{port}"))
        machine = machine_of(hosts, created.provider_instance_id)
        await cloud.start_server(created.provider_instance_id)
        await until((machine.files.etc / "header").exists, "the first report is on its way")
        bootstrap = int((place(machine) / "bootstrap.pid").read_text())
        assert runs(bootstrap)
        await cloud.delete_server(created.provider_instance_id)
        await until(lambda: not runs(bootstrap), "the installation's end")
        assert await cloud.find_server(provider_instance_id=created.provider_instance_id) == Absent()


async def test_what_a_wish_says_never_becomes_a_command(hosts: Fleet) -> None:
    evil = "x'; touch hit; echo '$(touch hit)`touch hit`"
    cloud = hosts.new_cloud()
    server = await cloud.create_server(wanted(evil, HF_TOKEN=evil))
    assert server.name == evil
    await cloud.start_server(server.provider_instance_id)
    await cloud.delete_server(server.provider_instance_id)
    assert not [path for machine in hosts.machines.values() for path in machine.files.root.rglob("hit")]


async def test_the_record_is_for_root_s_eyes(hosts: Fleet) -> None:
    server = await hosts.new_cloud().create_server(wanted())
    held = place(machine_of(hosts, server.provider_instance_id)) / "held"
    assert held.stat().st_mode & 0o077 == 0
    assert json.loads(held.read_text().splitlines()[1])["environment"]["WORKER_AUTH_TOKEN"] == "wb_inventiv-worker-1-1"


async def test_a_damaged_record_makes_the_host_unknown(hosts: Fleet) -> None:
    cloud = hosts.new_cloud()
    server = await cloud.create_server(wanted())
    (place(machine_of(hosts, server.provider_instance_id)) / "held").write_text("torn\n{\n")
    assert isinstance(await cloud.find_server(provider_instance_id=server.provider_instance_id), Unknown)
    with pytest.raises(CloudUnavailableError, match="cannot be read"):
        await cloud.list_servers()


def test_a_shell_that_did_not_finish_said_nothing() -> None:
    for output in ("", "inventiv-key 1\n", "Welcome\n"):
        with pytest.raises(NoAnswerError):
            holding_of(output)
    assert holding_of("Welcome\ninventiv-told\n") is None


def test_a_deed_says_nothing_of_another_s(tmp_path: Path) -> None:
    host = PrefixHost(tmp_path)
    for deed in ("start", "stop", "reinstall", "delete"):
        run = host.run(deed_script(deed, "0123456789abcdef", bootstrap="touch hit"))
        assert (run.returncode, run.stdout) == (0, "inventiv-told\n"), run.stderr
    assert not list(tmp_path.rglob("hit"))


async def _until_started(plane: ControlPlane, files: PrefixHost) -> None:
    await until(lambda: plane.phases[-1:] == [("done", True)], "the installation's end")
    assert [phase for phase, _ in plane.phases] == list(PHASES)
    await until((files.base / "state/environment").exists, "the agent's own account")
