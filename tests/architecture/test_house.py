"""The shape of the house itself: its rooms, their names, and what no file may hold."""

import ast
import importlib
import re
import subprocess
from importlib.metadata import distributions, packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
ROOMS = ("domain", "projections", "handlers", "gateway", "agent", "web", "infra")
FILE_LINES = 400
FUNCTION_LINES = 60


def committed_files() -> list[Path]:
    """What git tracks or would track; skips where the source came without git."""
    listing = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for line in done.stdout.splitlines() if (path := ROOT / line).is_file()]


def python_files() -> list[Path]:
    return [path for path in committed_files() if path.suffix == ".py"]


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_is_ours_and_not_a_stranger_of_the_same_name(room: str) -> None:
    module = importlib.import_module(room)
    assert module.__file__ is not None
    assert Path(module.__file__).parent.parent == ROOT


@pytest.mark.parametrize("room", ROOMS)
def test_no_other_installed_distribution_brings_a_room_of_that_name(room: str) -> None:
    assert set(packages_distributions().get(room, [])) <= {"inventiv-agents"}
    assert any(d.metadata["Name"] == "inventiv-agents" for d in distributions())


@pytest.mark.parametrize("room", ROOMS)
def test_each_room_says_what_it_is_and_how_to_add_one(room: str) -> None:
    text = (ROOT / room / "README.md").read_text(encoding="utf-8")
    assert "how to add" in text.lower()


def test_no_file_names_a_package_registry_or_a_machine_path() -> None:
    registry = re.compile(r"pypi\.o" + r"rg|pythonhosted\.o" + r"rg|registry\.npmjs\.o" + r"rg|deb\.debian\.o" + r"rg")
    machine = re.compile(r"(^|[^A-Za-z0-9_.])/(work|farm|root)/[A-Za-z.]")
    for path in committed_files():
        text = path.read_text(encoding="utf-8", errors="ignore")
        assert not registry.search(text), path
        assert not machine.search(text), path


def test_files_and_functions_stay_readable() -> None:
    for path in python_files():
        text = path.read_text(encoding="utf-8")
        if "tests" not in path.relative_to(ROOT).parts:
            assert text.count("\n") <= FILE_LINES, f"{path} is over {FILE_LINES} lines; split it by idea"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                limit = FUNCTION_LINES if node.name != "evolve" else 2 * FUNCTION_LINES
                assert length <= limit, f"{path}:{node.lineno} {node.name} has {length} lines"


def test_only_one_file_reads_the_environment() -> None:
    readers = re.compile(r"\bos\.environ\b|\bgetenv\(|from os import .*environ")
    for path in python_files():
        place = path.relative_to(ROOT)
        if place.parts[0] in {"tests", "agent"} or place == Path("infra/environment.py"):
            continue
        assert not readers.search(path.read_text(encoding="utf-8")), place


def test_nobody_reads_an_address_that_a_host_header_shaped() -> None:
    """`request.url` is put together from the Host header, which the client writes; use `request.scope["path"]`."""
    for path in python_files():
        if path.relative_to(ROOT).parts[0] in {"web", "gateway"}:
            assert not re.search(r"\brequest\.(url|base_url)\b", path.read_text(encoding="utf-8")), path
