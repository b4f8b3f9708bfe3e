"""The data folder: one `up` at a time, remembered ports, and a --fresh that touches only what is ours."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from infra.embedded.child import EmbeddedServerError
from infra.processes import data_folder
from infra.processes.data_folder import Claim, Ports, choose_ports, claim, end_leftovers, forget, mark
from infra.processes.running import (
    ChildView,
    Platform,
    is_alive,
    last_platform,
    read_platform,
    remove_platform,
    write_platform,
)
from tests.conftest import some_port


def claimed(folder: Path) -> Claim:
    found = claim(folder)
    assert found is not None
    return found


@pytest.fixture
def ours(tmp_path: Path) -> Claim:
    taken = claimed(tmp_path / "data")
    mark(taken, now=0)
    return taken


def platform_of(folder: Path, *, pid: int, created_at: float, child: ChildView | None = None) -> Platform:
    return Platform(
        pid=pid,
        created_at=created_at,
        state="running",
        data_dir=str(folder),
        secrets_dir=str(folder / "secrets"),
        api_url="http://127.0.0.1:1",
        gateway_url="http://127.0.0.1:2",
        nats_url="nats://127.0.0.1:3",
        nats_monitor_url="http://127.0.0.1:4",
        postgres_url="postgresql://127.0.0.1:5",
        admin_username="admin",
        admin_password_file=str(folder / "secrets" / "admin_password"),
        roles={"web": child} if child else {},
    )


def my_start() -> float:
    return float(psutil.Process().create_time())


def test_a_folder_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first = claimed(tmp_path / "data")
    assert claim(tmp_path / "data") is None
    first.release()
    assert claim(tmp_path / "data") is not None


def test_a_folder_that_cannot_be_made_is_an_error_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedServerError, match="--data-dir"):
        claim(tmp_path / "file" / "data")


def test_a_folder_keeps_its_id(ours: Claim) -> None:
    assert mark(ours, now=1) == mark(ours, now=2)


def test_forgetting_deletes_what_is_ours_and_nothing_else(ours: Claim) -> None:
    (ours.data_dir / "nats" / "store").mkdir(parents=True)
    (ours.data_dir / "holiday.jpg").touch()
    before = mark(ours, now=0)
    assert forget(ours)
    assert sorted(path.name for path in ours.data_dir.iterdir()) == ["holiday.jpg", "up.lock"]
    assert mark(ours, now=0).id != before.id


def test_forgetting_an_empty_folder_is_no_error(tmp_path: Path) -> None:
    assert not forget(claimed(tmp_path / "data"))


def test_a_strangers_folder_is_not_forgotten(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with pytest.raises(EmbeddedServerError, match="will not delete"):
        forget(claimed(tmp_path))
    assert (tmp_path / "postgres").exists()


def test_a_taken_port_moves_to_the_next_free_one_and_says_so(ours: Claim) -> None:
    said: list[str] = []
    with socket.socket() as neighbour:
        neighbour.bind(("127.0.0.1", 0))
        neighbour.listen()
        taken = neighbour.getsockname()[1]
        chosen = choose_ports(ours, Ports(api=taken, gateway=some_port()), said.append)
    assert chosen.api > taken
    assert f"Port {taken} is taken; the API listens on {chosen.api}." in said


def test_the_ports_of_last_time_are_preferred(ours: Claim) -> None:
    wanted = Ports(api=some_port(), gateway=some_port(), postgres=some_port())
    first = choose_ports(ours, wanted, print)
    assert choose_ports(ours, Ports(), print) == first


def test_no_two_of_our_ports_are_the_same(ours: Claim) -> None:
    port = some_port()
    chosen = choose_ports(ours, Ports(api=port, gateway=port, nats=port, nats_monitor=port, postgres=port), print)
    assert len({chosen.api, chosen.gateway, chosen.nats, chosen.nats_monitor, chosen.postgres}) == 5


def test_a_new_folder_is_marked_with_its_number_of_nats_nodes_and_keeps_it(tmp_path: Path) -> None:
    taken = claimed(tmp_path / "data")
    assert mark(taken, now=0, nats_nodes=3).nats_nodes == 3
    assert mark(taken, now=0, nats_nodes=3) == mark(taken, now=0)
    with pytest.raises(EmbeddedServerError, match="began with --nats-nodes 3 and cannot go on with 1: leave"):
        mark(taken, now=0, nats_nodes=1)


def test_a_folder_from_before_clusters_has_one_node(ours: Claim) -> None:
    marker = ours.data_dir / data_folder.MARKER
    marker.write_text(marker.read_text().replace(',"nats_nodes":1', ""))
    assert mark(ours, now=0).nats_nodes == 1


@pytest.mark.parametrize("nodes", [2, 4])
def test_an_even_number_of_nodes_is_refused(tmp_path: Path, nodes: int) -> None:
    with pytest.raises(EmbeddedServerError, match="choose 1, 3 or 5"):
        mark(claimed(tmp_path / "data"), now=0, nats_nodes=nodes)


def test_each_node_has_three_ports_of_its_own_and_keeps_them(ours: Claim) -> None:
    chosen = choose_ports(ours, Ports(nats=some_port(), nats_monitor=some_port()), print, nats_nodes=3)
    first, second, third = chosen.nats_nodes
    assert (first.client, first.monitor) == (chosen.nats, chosen.nats_monitor)
    every = [port for node in (first, second, third) for port in (node.client, node.monitor, node.route)]
    assert len({*every, chosen.api, chosen.gateway, chosen.postgres}) == 12
    assert choose_ports(ours, Ports(), print, nats_nodes=3) == chosen


def test_what_a_dead_up_wrote_does_not_count(ours: Claim) -> None:
    write_platform(platform_of(ours.data_dir, pid=os.getpid(), created_at=1.0))
    assert read_platform(ours.data_dir) is None
    assert last_platform(ours.data_dir) is not None
    write_platform(platform_of(ours.data_dir, pid=os.getpid(), created_at=my_start()))
    assert read_platform(ours.data_dir) is not None
    remove_platform(ours.data_dir)
    assert read_platform(ours.data_dir) is None


def test_what_runs_is_written_for_its_owner_alone(ours: Claim) -> None:
    write_platform(platform_of(ours.data_dir, pid=1, created_at=1.0))
    assert (ours.data_dir / "run" / "platform.json").stat().st_mode & 0o077 == 0


def test_children_that_outlived_a_killed_up_are_ended(ours: Claim, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_folder, "LEFTOVER_WAIT_S", 0.1)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as orphan:
        created_at = psutil.Process(orphan.pid).create_time()
        view = ChildView(pid=orphan.pid, created_at=created_at, state="running", restarts=0)
        write_platform(platform_of(ours.data_dir, pid=1, created_at=1.0, child=view))
        end_leftovers(ours)
        orphan.wait(timeout=10)
    assert not is_alive(orphan.pid, created_at)
    assert last_platform(ours.data_dir) is None


def test_a_stranger_with_the_same_pid_is_left_alone(ours: Claim) -> None:
    view = ChildView(pid=os.getpid(), created_at=1.0, state="running", restarts=0)
    write_platform(platform_of(ours.data_dir, pid=1, created_at=1.0, child=view))
    began = time.monotonic()
    end_leftovers(ours)
    assert time.monotonic() - began < data_folder.LEFTOVER_WAIT_S
