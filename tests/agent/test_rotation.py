"""The worker's next token: asked for, kept, used; and whatever line it dies at, the agent is left with a good one.

The control plane keeps the earlier token good until the next one is used (stand_in.py does as it does), so what has to
hold is: at every moment, the file holds one of the two.
"""

import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from agent.credentials import Credentials, CredentialStore
from agent.event_log import EventLog
from tests.agent.stand_in import INSTANCE, WORKER_TOKEN, AgentProcess, StandIn, eventually, stand_in
from tests.agent.test_report import Reporting, reporting, running

STORED = Credentials(INSTANCE, "w", WORKER_TOKEN)

DYING_AGENT = """
import os, signal, sys
step, at = 0, int(sys.argv.pop(1))
def dying(call):
    def step_on(*given, **named):
        global step
        step += 1
        if step == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*given, **named)
    return step_on
from agent import credentials
class Writes:
    def __getattr__(self, name):
        found = getattr(os, name)
        return dying(found) if name in {"open", "fdopen", "fsync", "close"} else found
from agent.credentials import CredentialStore
save = CredentialStore.save
def watched(self, kept):
    if kept.worker_token.startswith("wk_rotated"):
        credentials.os = Writes()
        credentials.Path.unlink = dying(credentials.Path.unlink)
        credentials.Path.replace = dying(credentials.Path.replace)
    save(self, kept)
CredentialStore.save = watched
from agent.__main__ import main
sys.exit(main([]))
"""
WRITES = 8
"""unlink, open, fdopen, fsync, replace, open, fsync, close: what one save asks of the system."""


@pytest.fixture
async def plane() -> AsyncIterator[StandIn]:
    async with stand_in() as control_plane:
        yield control_plane


def logged(given: Reporting) -> list[str]:
    return given.logged()


async def test_an_old_token_is_replaced_and_the_next_one_used_at_once(plane: StandIn, tmp_path: Path) -> None:
    async with reporting(plane.url, tmp_path, interval_s=60) as given, running(given.reporter):
        plane.wants_rotation = True
        plane.on_rotate = lambda: setattr(plane, "wants_rotation", False)
        await plane.until(lambda: plane.token == "wk_rotated_1")
        await eventually(lambda: given.worker.token == "wk_rotated_1")
        stored = given.store.load(INSTANCE)
        assert stored is not None
        assert stored.worker_token == "wk_rotated_1"
        assert "token_rotated" in logged(given)
    assert plane.rotations == 1


async def test_the_next_token_is_on_disk_before_it_is_used(plane: StandIn, tmp_path: Path) -> None:
    async with reporting(plane.url, tmp_path) as given:
        on_disk: list[str] = []

        def look() -> None:
            stored = given.store.load(INSTANCE)
            on_disk.append(stored.worker_token if stored else "")

        plane.on_beat = look
        plane.wants_rotation = True
        async with running(given.reporter):
            await plane.until(lambda: plane.rotations >= 5)
    used = [token.removeprefix("Bearer ") for token in plane.tokens if "rotated" in token]
    assert used
    assert all(f"wk_rotated_{number}" in on_disk for number in range(1, 5))
    assert not any("401" in event.message for event in given.log.read()[1])


@pytest.mark.parametrize("refusal", [(401, "unauthorized"), (409, "token_not_confirmed"), (503, "")])
async def test_a_refused_rotation_leaves_the_token_and_is_asked_again(
    plane: StandIn, tmp_path: Path, refusal: tuple[int, str]
) -> None:
    async with reporting(plane.url, tmp_path) as given:
        given.store.save(STORED)
        plane.wants_rotation = True
        plane.on_beat = lambda: plane.refusals.append(refusal) if len(plane.beats) < 2 else None
        async with running(given.reporter):
            await plane.until(lambda: plane.token == "wk_rotated_1")
        assert "token_rotation_failed" in logged(given)


async def test_a_token_that_could_not_be_kept_is_not_asked_for_twice(plane: StandIn, tmp_path: Path) -> None:
    """A third token would end the second, which the file may hold."""
    async with reporting(plane.url, tmp_path) as given:
        given.store.save(STORED)
        (tmp_path / "token.new").mkdir()
        plane.wants_rotation = True
        async with running(given.reporter):
            await plane.until(lambda: len(plane.beats) >= 5)
        stored = given.store.load(INSTANCE)
    assert plane.rotations == 1
    assert stored == STORED
    assert plane.token == WORKER_TOKEN


async def test_neither_token_is_ever_logged(plane: StandIn, tmp_path: Path) -> None:
    async with reporting(plane.url, tmp_path) as given:
        plane.wants_rotation = True
        async with running(given.reporter):
            await plane.until(lambda: plane.token == "wk_rotated_2")
        log: EventLog = given.log
        written = log.path.read_text()
    assert "wk_rotated_1" not in written.replace('"token_prefix":"wk_rotated_1"', "").replace(
        '"token_prefix":"wk_rotated_2"', ""
    )


class Mortal:
    """A worker's agent that can be killed at a chosen write of its next token, and started again."""

    def __init__(self, plane: StandIn, state: Path) -> None:
        self.plane = plane
        self.agent = AgentProcess(plane.url, state)
        self.whole = self.agent.command

    async def live_until_killed(self, command: tuple[str, ...]) -> bool:
        """False when it got through alive."""
        self.agent.command = command
        await self.agent.start()
        self.plane.wants_rotation = True
        await self.plane.until(lambda: self.plane.rotations > 0)
        try:
            await eventually(lambda: self.agent.process.returncode is not None or self.plane.token != WORKER_TOKEN)
        finally:
            self.plane.wants_rotation = False
        return self.agent.process.returncode == -signal.SIGKILL

    async def live_again(self) -> None:
        """Another life on the same folder, which must report."""
        self.agent.command = self.whole
        await self.agent.start()
        beats = len(self.plane.beats)
        await self.plane.until(lambda: len(self.plane.beats) > beats)
        assert await self.agent.end() == 0


@pytest.mark.parametrize("at", range(1, WRITES + 1))
async def test_killed_at_any_write_it_still_has_a_good_token(plane: StandIn, tmp_path: Path, at: int) -> None:
    mortal = Mortal(plane, tmp_path / "state")
    assert await mortal.live_until_killed((sys.executable, "-c", DYING_AGENT, str(at)))
    await mortal.live_again()
    assert len(plane.registrations) == 1


async def test_killed_at_no_write_it_lives(plane: StandIn, tmp_path: Path) -> None:
    """The control: one more than there are, so the list of writes is whole."""
    mortal = Mortal(plane, tmp_path / "state")
    assert not await mortal.live_until_killed((sys.executable, "-c", DYING_AGENT, str(WRITES + 1)))
    await mortal.agent.end(signal.SIGKILL)


def killing(agent: AgentProcess) -> Callable[[], None]:
    return lambda: agent.process.send_signal(signal.SIGKILL)


@pytest.mark.parametrize("moment", ["on_rotate", "on_beat"])
async def test_killed_before_the_reply_to_a_rotation_or_to_its_first_use_it_still_has_a_good_token(
    plane: StandIn, tmp_path: Path, moment: str
) -> None:
    mortal = Mortal(plane, tmp_path / "state")
    await mortal.agent.start()
    await plane.until(lambda: bool(plane.beats))
    kill = killing(mortal.agent)
    if moment == "on_rotate":
        plane.on_rotate = kill
    else:
        plane.on_beat = lambda: kill() if plane.next_token and plane.tokens[-1].endswith(plane.next_token) else None
    plane.wants_rotation = True
    await eventually(lambda: mortal.agent.process.returncode is not None)
    plane.on_rotate = plane.on_beat = lambda: None
    await mortal.live_again()
    assert len(plane.registrations) == 1


def test_the_store_is_what_the_agent_uses(tmp_path: Path) -> None:
    """A file of an agent without rotation is read as it is."""
    (tmp_path / "token.json").write_bytes(b'{"instance_id":"i","worker_id":"w","worker_token":"wk_old"}')
    assert CredentialStore(tmp_path / "token.json").load("i") == Credentials("i", "w", "wk_old")
