"""The disk forgets exactly what was not synced, and so do servers; skipped where nobody may mount."""

import os
from pathlib import Path

import pytest

from tests.chaos import power_cut
from tests.chaos.disks import Disk, why_not


@pytest.fixture
def folder(server_dir: Path) -> Path:
    if reason := why_not(server_dir):
        pytest.skip(reason)
    return server_dir


def test_a_cut_keeps_what_was_synced_and_nothing_else(folder: Path) -> None:
    with Disk(folder / "disk.img", folder / "disk") as disk:
        _write(disk.folder / "synced", sync=True)
        _write(disk.folder / "not", sync=False)
        disk.cut()
        with pytest.raises(OSError, match="Input/output error"):
            _write(disk.folder / "after", sync=True)
        disk.restore_power()
        found = {path.name: path.stat().st_size for path in disk.folder.iterdir() if path.is_file()}
    assert found.pop("synced") == 1
    assert not any(found.values())


def test_nothing_stays_mounted(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError), Disk(folder / "disk.img", folder / "disk"):
        raise ZeroDivisionError
    assert not os.path.ismount(folder / "disk")
    assert not (folder / "disk.img").exists()


async def test_a_cut_loses_nothing_acknowledged_unless_the_server_syncs_when_it_likes(folder: Path) -> None:
    figures = await power_cut.measure(folder, cuts=1, cluster_cuts=0, control_cuts=1)
    assert figures["power_cut_acked"]
    assert figures["power_cut_lost"] == 0
    assert figures["power_cut_control_lost"]


async def test_where_no_power_can_be_cut_that_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(power_cut, "why_not", lambda _folder: "only root may mount")
    assert set((await power_cut.measure(folder)).values()) == {None}


def _write(path: Path, *, sync: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        os.write(fd, b"x")
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
