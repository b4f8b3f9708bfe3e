"""An agent that changed without a new version is found, by the same words that CI runs."""

import subprocess
import sys
from datetime import date
from hashlib import sha256
from pathlib import Path

import pytest

import agent
from agent.build import archive_bytes, build_zipapp
from agent.version import AGENT_VERSION
from infra.agent_release import agent_release, read_versions
from infra.agent_version import VersionError, bump, check, main

TODAY = date(2026, 11, 22)


@pytest.fixture
def room(tmp_path: Path) -> Path:
    """A small agent at 1.2.3, as it should be."""
    made = tmp_path / "agent"
    made.mkdir()
    (made / "loop.py").write_text("print('hello')\n")
    (made / "version.py").write_text('"""Which."""\n\nAGENT_VERSION = "0"\nAGENT_BUILD_DATE = ""\n')
    (made / "CHECKSUM").write_text(f"1.2.2 2026-11-01 {'a' * 64}\n")
    bump(made, "", today=TODAY)
    return made


def test_the_agent_of_today_has_its_version() -> None:
    """What `just agent-version` says in CI."""
    assert check(Path(agent.__file__).parent).version == AGENT_VERSION


def test_a_changed_line_needs_a_new_version(room: Path) -> None:
    assert check(room).version == "1.2.3"
    (room / "loop.py").write_text("print('goodbye')\n")
    with pytest.raises(VersionError, match=r"changed since 1\.2\.3; run `just agent-version bump`"):
        check(room)
    bump(room, "", today=TODAY)
    assert check(room).version == "1.2.4"


def test_a_new_file_and_a_lost_one_need_a_new_version_too(room: Path) -> None:
    (room / "more.py").write_text("")
    with pytest.raises(VersionError, match="changed"):
        check(room)
    (room / "more.py").unlink()
    check(room)
    (room / "loop.py").unlink()
    with pytest.raises(VersionError, match="changed"):
        check(room)


def test_a_version_that_was_raised_by_hand_alone_is_found(room: Path) -> None:
    text = (room / "version.py").read_text()
    (room / "version.py").write_text(text.replace("1.2.3", "1.2.4"))
    with pytest.raises(VersionError, match=r"version\.py says 1\.2\.4"):
        check(room)


def test_bumping_keeps_every_version_before(room: Path) -> None:
    made = bump(room, "2.0.0", today=TODAY)
    assert [known.version for known in read_versions(room / "CHECKSUM")] == ["1.2.2", "1.2.3", "2.0.0"]
    assert 'AGENT_VERSION = "2.0.0"\nAGENT_BUILD_DATE = "2026-11-22"' in (room / "version.py").read_text()
    assert check(room) == made


@pytest.mark.parametrize("wanted", ["1.2.3", "1.2.2", "0.9.9", "1.2", "v2.0.0", "2.0.0\n", "²"])
def test_a_version_that_is_not_higher_or_no_version_is_refused(room: Path, wanted: str) -> None:
    before = (room / "version.py").read_text()
    with pytest.raises(VersionError):
        bump(room, wanted, today=TODAY)
    assert (room / "version.py").read_text() == before


def test_ci_fails_for_a_changed_agent(room: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check"], room) == 0
    (room / "loop.py").write_text("print('goodbye')\n")
    assert main(["check"], room) == 1
    assert "run `just agent-version bump`" in capsys.readouterr().err
    assert main(["bump"], room) == 0
    assert main(["check"], room) == 0
    assert main(["dance"], room) == 2


def test_the_recipe_of_the_checks_runs_it() -> None:
    recipes = (Path(agent.__file__).parents[1] / "justfile").read_text()
    [check_line] = [line for line in recipes.splitlines() if line.startswith("check:")]
    assert "agent-version" in check_line.split()
    assert 'agent-version *args="check":\n    {{run}} python -m infra.agent_version {{args}}' in recipes
    done = subprocess.run([sys.executable, "-m", "infra.agent_version", "get"], capture_output=True, check=True)
    assert done.stdout.decode().split()[0] == AGENT_VERSION


def test_what_is_served_is_what_the_agent_reports(tmp_path: Path) -> None:
    release = agent_release()
    assert release.archive == archive_bytes()
    assert release.sha256 == sha256(release.archive).hexdigest() == build_zipapp(tmp_path / "agent.pyz")
    assert release.version == AGENT_VERSION


def test_the_version_before_may_report_unless_others_are_named() -> None:
    known = [version.version for version in read_versions()]
    assert agent_release().versions_allowed == frozenset(known[-2:-1])
    assert agent_release(" 1.0.0, 0.9.0 ,").versions_allowed == {"1.0.0", "0.9.0"}


def test_a_damaged_list_of_versions_is_named(tmp_path: Path) -> None:
    (tmp_path / "CHECKSUM").write_text("1.0.0\n")
    with pytest.raises(ValueError, match="CHECKSUM has a line"):
        read_versions(tmp_path / "CHECKSUM")
