"""The local provider: real processes that outlive the handlers, are never doubled, and are ended for certain."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from agent.build import build_zipapp
from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError, Present, Server, ServerRequest, Unknown
from infra.engine.locate import PreparedEngine
from infra.providers import local
from infra.providers.local import LocalCloud
from infra.providers.local_files import ServerFolder
from tests.infra.providers.local_clouds import new_local_cloud

WAIT_S = 60.0


def wanted(name: str = "inventiv-worker-1-1", **environment: str) -> ServerRequest:
    return ServerRequest(
        name=name,
        tags={},
        zone="local",
        instance_type="mock-local-instance",
        agent_environment={
            "INSTANCE_ID": "1",
            "WORKER_AUTH_TOKEN": "wb_secret",
            "WORKER_ENGINE": "simulated",
            **environment,
        },
    )


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[LocalCloud]:
    made = await new_local_cloud(tmp_path)
    yield made
    await made.stop_all()
    made.close()


def folder_of(server: Server, root: Path) -> ServerFolder:
    return ServerFolder(root / "servers", server.provider_instance_id)


def starts(folder: ServerFolder) -> list[int]:
    """Pids of the agents that were ever started."""
    path = folder.state / "starts"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def runs(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


async def until(holds: Callable[[], bool], what: str, meanwhile: LocalCloud | None = None) -> None:
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not holds():
        assert asyncio.get_running_loop().time() < deadline, what
        if meanwhile is not None:
            await meanwhile.keep_running()
        await asyncio.sleep(0.02)


async def started(cloud: LocalCloud, root: Path, request: ServerRequest | None = None) -> ServerFolder:
    server = await cloud.create_server(request or wanted())
    await cloud.start_server(server.provider_instance_id)
    folder = folder_of(server, root)
    await until(lambda: len(starts(folder)) == 1, "its agent runs")
    return folder


async def test_a_started_server_has_an_address_of_its_own(cloud: LocalCloud, tmp_path: Path) -> None:
    before = await cloud.create_server(wanted())
    await started(cloud, tmp_path)
    found = await cloud.find_server(name=before.name)
    assert before.ip_address == ""
    assert isinstance(found, Present)
    assert found.server.running
    assert found.server.ip_address.startswith("127.")
    assert not found.server.ip_address.startswith("127.0.0.")


async def test_the_agent_gets_its_environment_and_nothing_of_ours(
    cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INVENTIV_POSTGRES_URL", "postgresql://with-a-password")
    folder = await started(cloud, tmp_path)
    await until((folder.state / "environment").exists, "it wrote its environment down")
    environment = dict(line.split("=", 1) for line in (folder.state / "environment").read_text().splitlines())
    assert environment["INSTANCE_ID"] == "1"
    assert environment["WORKER_BIND_IP"].startswith("127.")
    assert "INVENTIV_POSTGRES_URL" not in environment
    assert "WORKER_AUTH_TOKEN" not in environment, "other users of this machine may look at a process's variables"
    assert environment["WORKER_AUTH_TOKEN_FILE"] == str(folder.token)
    assert folder.token.read_text() == "wb_secret"


async def test_no_secret_lies_open(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    assert "wb_secret" not in folder.record.read_text()
    assert folder.token.stat().st_mode & 0o077 == 0
    assert folder.path.stat().st_mode & 0o077 == 0


async def test_starting_twice_starts_one_agent(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    await asyncio.gather(*(cloud.start_server(folder.path.name) for _ in range(4)), cloud.keep_running())
    assert len(starts(folder)) == 1


async def test_the_real_agent_answers_at_its_servers_address(tmp_path: Path) -> None:
    build_zipapp(tmp_path / "agent.pyz")
    cloud = LocalCloud(tmp_path / "servers", agent_archive=tmp_path / "agent.pyz")
    server = await cloud.create_server(
        wanted(CONTROL_PLANE_URL="http://127.0.0.1:9", MODEL_ID="mock-echo-model", WORKER_ENGINE_ARGS="{}")
    )
    await cloud.start_server(server.provider_instance_id)
    found = await cloud.find_server(name=server.name)
    assert isinstance(found, Present)

    def answers() -> bool:
        try:
            with socket.create_connection((found.server.ip_address, 8080), timeout=1):
                return True
        except OSError:
            return False

    await until(answers, "it listens")
    await cloud.delete_server(server.provider_instance_id)
    assert not answers()


async def test_a_machine_whose_agent_switched_it_off_stays_off_until_it_is_started(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    folder = await started(cloud, tmp_path)
    environment = dict(line.split("=", 1) for line in (folder.state / "environment").read_text().splitlines())
    assert environment["WORKER_POWER_OFF_FILE"] == str(folder.powered_off)
    await asyncio.to_thread(folder.powered_off.touch)
    os.kill(starts(folder)[0], signal.SIGKILL)
    await until(lambda: not runs(starts(folder)[0]), "it ended")
    for _ in range(20):
        await cloud.keep_running()
    assert len(starts(folder)) == 1
    [server] = await cloud.list_servers()
    assert (server.running, server.ip_address) == (False, "")
    await cloud.start_server(server.provider_instance_id)
    await until(lambda: len(starts(folder)) == 2, "it was switched on")
    [server] = await cloud.list_servers()
    assert server.running
    os.kill(starts(folder)[1], signal.SIGKILL)
    await until(lambda: len(starts(folder)) == 3, "and is kept running again", meanwhile=cloud)


async def test_reinstalling_switches_a_machine_on_again(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    folder.powered_off.touch()
    await cloud.reinstall_server(folder.path.name)
    [server] = await cloud.list_servers()
    assert server.running


async def test_a_real_agent_that_is_cut_off_switches_its_local_machine_off(tmp_path: Path) -> None:
    build_zipapp(tmp_path / "agent.pyz")
    cloud = LocalCloud(tmp_path / "servers", agent_archive=tmp_path / "agent.pyz")
    told = {"CONTROL_PLANE_URL": "http://127.0.0.1:9", "MODEL_ID": "mock-echo-model", "WORKER_DEAD_MAN_S": "1.5"}
    server = await cloud.create_server(wanted(**told))
    await cloud.start_server(server.provider_instance_id)
    folder = folder_of(server, tmp_path)
    await until(folder.powered_off.exists, "it switched off", meanwhile=cloud)
    found = await cloud.find_server(name=server.name)
    assert isinstance(found, Present)
    assert not found.server.running
    await cloud.delete_server(server.provider_instance_id)
    cloud.close()


async def test_a_dead_agent_is_started_again(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    os.kill(starts(folder)[0], signal.SIGKILL)
    await until(lambda: len(starts(folder)) == 2, "it was started again", meanwhile=cloud)


async def test_an_agent_that_keeps_dying_is_started_ever_more_slowly(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path, wanted(DIES_AT_ONCE="1"))
    await until(lambda: len(starts(folder)) == 3, "it was tried again", meanwhile=cloud)
    began = asyncio.get_running_loop().time()
    await until(lambda: len(starts(folder)) == 4, "and again", meanwhile=cloud)
    assert asyncio.get_running_loop().time() - began > 2 * local.FIRST_PAUSE_S


async def test_an_agent_outlives_the_handlers_and_is_not_doubled_by_the_next(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    cloud.close()
    successor = LocalCloud(tmp_path / "servers", agent_archive=tmp_path / "agent.pyz")
    await successor.keep_running()
    successor.close()
    assert runs(starts(folder)[0])
    assert len(starts(folder)) == 1


async def test_an_agent_whose_start_was_never_written_down_is_found_again(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    folder.process.unlink()  # as after a kill between starting it and writing that down
    await cloud.keep_running()
    assert len(starts(folder)) == 1
    await cloud.delete_server(folder.path.name)
    assert not runs(starts(ServerFolder(tmp_path / "servers" / "deleted", deleted_name(tmp_path)))[0])


def deleted_name(root: Path) -> str:
    (only,) = (root / "servers" / "deleted").iterdir()
    return only.name


async def test_a_reused_pid_is_not_taken_for_the_agent(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    pid = starts(folder)[0]
    os.kill(pid, signal.SIGKILL)
    stranger = psutil.Process(os.getpid())
    folder.process.write_text(f'{{"pid": {stranger.pid}, "started_at": {stranger.create_time() - 5}}}')
    await until(lambda: len(starts(folder)) == 2, "a new agent was started", meanwhile=cloud)
    await cloud.delete_server(folder.path.name)
    assert stranger.is_running(), "and the stranger was left alone"


async def test_deleting_ends_an_agent_that_does_not_listen(
    cloud: LocalCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "STOP_GRACE_S", 0.2)
    folder = await started(cloud, tmp_path, wanted(IGNORES_SIGTERM="1"))
    await until((folder.state / "environment").exists, "it ignores the signal now")
    pid = starts(folder)[0]
    await cloud.delete_server(folder.path.name)
    assert not runs(pid)


async def test_a_deleted_server_is_not_started_again(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    await cloud.delete_server(folder.path.name)
    await cloud.keep_running()
    assert not folder.path.exists()


async def test_stopping_all_ends_the_agents_and_the_next_start_brings_them_back(
    cloud: LocalCloud, tmp_path: Path
) -> None:
    folder = await started(cloud, tmp_path)
    await cloud.stop_all()
    assert not runs(starts(folder)[0])
    cloud.close()
    successor = LocalCloud(tmp_path / "servers", agent_archive=tmp_path / "agent.pyz")
    await until(lambda: len(starts(folder)) == 2, "it is back", meanwhile=successor)
    successor.close()


async def test_one_process_at_a_time_keeps_the_agents_running(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    await cloud.keep_running()
    os.kill(starts(folder)[0], signal.SIGKILL)
    second = LocalCloud(tmp_path / "servers", agent_archive=tmp_path / "agent.pyz")
    for _ in range(5):
        await second.keep_running()
    assert len(starts(folder)) == 1, "the second one leaves it to the first"
    cloud.close()
    await until(lambda: len(starts(folder)) == 2, "until the first is gone", meanwhile=second)
    second.close()


@pytest.mark.parametrize("damage", ["", "{", '{"name": 1}'])
async def test_a_damaged_record_is_unknown_not_absent(cloud: LocalCloud, tmp_path: Path, damage: str) -> None:
    server = await cloud.create_server(wanted())
    folder_of(server, tmp_path).record.write_text(damage)
    assert isinstance(await cloud.find_server(name=server.name), Unknown)
    with pytest.raises(CloudUnavailableError):
        await cloud.list_servers()


async def test_without_its_folder_everything_is_unknown(cloud: LocalCloud, tmp_path: Path) -> None:
    (tmp_path / "servers").rename(tmp_path / "unmounted")
    assert isinstance(await cloud.find_server(name="anything"), Unknown)
    with pytest.raises(CloudUnavailableError):
        await cloud.list_servers()


async def test_a_server_with_a_damaged_record_can_be_deleted(cloud: LocalCloud, tmp_path: Path) -> None:
    folder = await started(cloud, tmp_path)
    pid = starts(folder)[0]
    folder.record.write_text("{")
    await cloud.delete_server(folder.path.name)
    assert not runs(pid)
    assert not folder.path.exists()


async def test_a_damaged_neighbour_stops_nobody(cloud: LocalCloud, tmp_path: Path) -> None:
    neighbour = await cloud.create_server(wanted("neighbour"))
    folder_of(neighbour, tmp_path).record.write_text("{")
    folder = await started(cloud, tmp_path)
    os.kill(starts(folder)[0], signal.SIGKILL)
    await until(lambda: len(starts(folder)) == 2, "it is kept running", meanwhile=cloud)


async def test_a_real_engine_that_is_not_prepared_is_refused_with_its_cure(cloud: LocalCloud) -> None:
    with pytest.raises(CloudRefusedError, match="just engine") as refused:
        await cloud.create_server(wanted(WORKER_ENGINE="vllm"))
    assert refused.value.code == "ENGINE_NOT_PREPARED"


async def test_a_prepared_engine_is_handed_to_the_agent(tmp_path: Path) -> None:
    engine = PreparedEngine(Path("/engine/bin/vllm"), Path("/engine/model"), {"A": "1"}, ("--enforce-eager",))
    plain = await new_local_cloud(tmp_path)
    cloud = LocalCloud(tmp_path / "servers", agent_archive=tmp_path / "agent.pyz", find_engine=lambda: engine)
    folder = await started(cloud, tmp_path, wanted(WORKER_ENGINE="vllm"))
    await until((folder.state / "environment").exists, "it wrote its environment down")
    environment = (folder.state / "environment").read_text()
    await plain.stop_all()
    assert "WORKER_VLLM_COMMAND=/engine/bin/vllm" in environment
    assert '"model":"/engine/model"' in environment
