"""The agent travels as one file, the same bytes wherever it is built, and needs nobody else's room."""

import asyncio
import hashlib
import json
import sys
import zipfile
from pathlib import Path

from agent.build import build_zipapp, own_checksum
from tests.agent.stand_in import AgentProcess, get, stand_in

OTHER_ROOMS = ("domain", "projections", "handlers", "gateway", "web", "infra", "tests")

LIST_IMPORTS = """\
import json, sys
sys.path.insert(0, sys.argv[1])
import agent.loop, agent.__main__, agent.build
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_building_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = build_zipapp(tmp_path / "one.pyz")
    assert build_zipapp(tmp_path / "deep" / "two.pyz") == first
    assert (tmp_path / "one.pyz").read_bytes() == (tmp_path / "deep" / "two.pyz").read_bytes()


def test_the_checksum_from_sources_is_that_of_the_archive(tmp_path: Path) -> None:
    assert build_zipapp(tmp_path / "agent.pyz") == own_checksum()
    assert hashlib.sha256((tmp_path / "agent.pyz").read_bytes()).hexdigest() == own_checksum()


def test_the_archive_holds_the_agents_room_alone(tmp_path: Path) -> None:
    build_zipapp(tmp_path / "agent.pyz")
    names = zipfile.ZipFile(tmp_path / "agent.pyz").namelist()
    assert names == sorted(names)
    assert {name.partition("/")[0] for name in names} == {"__main__.py", "agent"}
    assert "agent/protocol.py" in names


async def test_the_archive_imports_no_other_room(tmp_path: Path) -> None:
    build_zipapp(tmp_path / "agent.pyz")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        "-c",
        LIST_IMPORTS,
        str(tmp_path / "agent.pyz"),
        stdout=asyncio.subprocess.PIPE,
        cwd=tmp_path,
    )
    output, _ = await process.communicate()
    imported = json.loads(output)
    assert "agent" in imported
    assert not set(OTHER_ROOMS) & set(imported)


async def test_the_archive_runs_in_isolation_with_its_engine_and_its_own_checksum(tmp_path: Path) -> None:
    checksum = build_zipapp(tmp_path / "agent.pyz")
    async with stand_in() as plane:
        agent = AgentProcess(plane.url, tmp_path / "state")
        agent.command = (sys.executable, "-I", str(tmp_path / "agent.pyz"))
        agent.folder = tmp_path
        async with agent:
            beat = await plane.until_beat(lambda beat: beat.status == "ready")
            status, info = await get(f"{agent.url}/info")
            assert await agent.end() == 0
    assert beat.agent_info.checksum == checksum
    assert status == 200
    assert json.loads(info)["checksum"] == checksum
    assert json.loads(info)["path"] == str(tmp_path / "agent.pyz")


async def test_words_it_does_not_know_are_answered_with_its_usage() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", "dance", stderr=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert b"python agent.pyz" in said
