"""A folder counts as prepared only when all of it is there and of this recipe."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from infra.engine import prepare as preparation
from infra.engine.locate import prepared_engine
from infra.engine.prepare import PreparationError, main, prepare
from infra.engine.recipe import Layout, Stamp, is_prepared


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    """As a preparation leaves it, without the gigabytes."""
    layout = Layout(tmp_path / ".engine")
    for file in (layout.vllm_command, layout.model / "config.json"):
        file.parent.mkdir(parents=True)
        file.touch()
    layout.stamp.write_bytes(msgspec.json.encode(Stamp()))
    return layout


def test_a_prepared_folder_is_found(layout: Layout) -> None:
    engine = prepared_engine(layout.folder)
    assert engine is not None
    assert engine.vllm_command == layout.vllm_command
    assert engine.engine_args()["model"] == str(layout.model)
    assert engine.environment["HF_HUB_OFFLINE"] == "1"
    assert "--enforce-eager" in engine.args


def test_where_nothing_was_prepared_nothing_is_found(tmp_path: Path) -> None:
    assert prepared_engine(tmp_path) is None


@pytest.mark.parametrize(
    "harm",
    [
        lambda layout: layout.stamp.unlink(),
        lambda layout: layout.stamp.write_text("{"),
        lambda layout: layout.stamp.write_bytes(msgspec.json.encode(Stamp(model=0))),
        lambda layout: layout.vllm_command.unlink(),
        lambda layout: (layout.model / "config.json").unlink(),
    ],
)
def test_a_folder_that_lacks_something_is_not_prepared(layout: Layout, harm: Callable[[Layout], object]) -> None:
    assert is_prepared(layout)
    harm(layout)
    assert not is_prepared(layout)


def test_preparing_a_prepared_folder_does_nothing(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "_steps", lambda _layout: pytest.fail("it began again"))
    prepare(layout.folder)


def test_a_step_that_fails_is_named_and_leaves_no_stamp(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        subprocess.run([sys.executable, "-c", "print('no room'); exit(4)"], check=True, stdout=-1, text=True)

    layout.stamp.write_bytes(msgspec.json.encode(Stamp(model=0)))
    monkeypatch.setattr(preparation, "_steps", lambda _layout: [("torch", fail)])
    with pytest.raises(PreparationError, match=r"torch: exit status 4\nno room"):
        prepare(layout.folder)
    assert not layout.stamp.exists()


def test_the_stamp_is_written_last(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    layout.stamp.unlink()
    monkeypatch.setattr(preparation, "_steps", lambda _layout: [("look", lambda: seen.append(layout.stamp.exists()))])
    prepare(layout.folder)
    assert seen == [False]
    assert is_prepared(layout)


def test_check_answers_with_its_exit_status(layout: Layout, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--dir", str(layout.folder), "--check"]) == 0
    assert main(["--dir", str(tmp_path / "elsewhere"), "--check"]) == 1
    assert capsys.readouterr().out.split("\n") == ["prepared", "not prepared", ""]


def test_the_recipe_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "infra.engine.prepare", "--dir", str(tmp_path), "--check"]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], env=dict(os.environ), check=False)
    assert done.returncode == 1
