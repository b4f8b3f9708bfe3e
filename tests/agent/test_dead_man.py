"""When a machine that nobody answers is due to be switched off: over restarts, boots and clocks that jump."""

from pathlib import Path

import pytest

from agent.dead_man import CHANCE_AFTER_BOOT_S, CHANCE_S, BootClock, DeadMan

BOUND_S = 600.0


class Hands(BootClock):
    """A clock that a spec moves; `jump` is somebody setting the time of day."""

    def __init__(self) -> None:
        self.boot, self.since_boot_s, self.day_s = "first", 1000.0, 1_800_000_000.0

    def boot_id(self) -> str:
        return self.boot

    def boottime_s(self) -> float:
        return self.since_boot_s

    def wall_s(self) -> float:
        return self.day_s

    def pass_s(self, seconds: float) -> None:
        self.since_boot_s += seconds
        self.day_s += seconds

    def jump(self, seconds: float) -> None:
        self.day_s += seconds

    def reboot(self, after_s: float = 0.0) -> None:
        self.boot, self.since_boot_s = f"{self.boot}'", 5.0
        self.day_s += after_s


@pytest.fixture
def clock() -> Hands:
    return Hands()


class Machine:
    def __init__(self, folder: Path, clock: Hands, bound_s: float = BOUND_S) -> None:
        self._folder = folder
        self._clock = clock
        self._bound_s = bound_s

    def agent(self, instance_id: str = "i") -> DeadMan:
        """A life of the agent."""
        path = self._folder / "last-heard.json"
        return DeadMan(path, instance_id=instance_id, bound_s=self._bound_s, clock=self._clock)


@pytest.fixture
def machine(tmp_path: Path, clock: Hands) -> Machine:
    return Machine(tmp_path, clock)


def test_silence_for_the_bound_is_due_and_for_less_it_is_not(machine: Machine, clock: Hands) -> None:
    agent = machine.agent()
    agent.heard()
    agent.missed()
    clock.pass_s(BOUND_S - 1)
    assert not agent.is_due()
    clock.pass_s(1)
    assert agent.is_due()


def test_an_answer_begins_it_anew(machine: Machine, clock: Hands) -> None:
    agent = machine.agent()
    for _ in range(10):
        clock.pass_s(BOUND_S - 1)
        agent.missed()
        assert not agent.is_due()
        agent.heard()
    clock.pass_s(2 * BOUND_S)
    assert not agent.is_due(), "it was not asked since"


def test_a_machine_that_never_heard_anything_counts_from_its_first_start(machine: Machine, clock: Hands) -> None:
    machine.agent()
    clock.pass_s(BOUND_S / 2)
    agent = machine.agent()
    agent.missed()
    clock.pass_s(BOUND_S / 2 - 1)
    assert not agent.is_due()
    clock.pass_s(1)
    assert agent.is_due()


@pytest.mark.parametrize("lives", [1, 8, 600])
def test_an_agent_that_keeps_dying_does_not_put_it_off(machine: Machine, clock: Hands, lives: int) -> None:
    agent = machine.agent()
    agent.heard()
    for _ in range(lives):
        clock.pass_s(BOUND_S / lives)
        agent = machine.agent()
        agent.missed()
    for _ in range(lives):
        clock.pass_s(CHANCE_S / lives)
        agent = machine.agent()
        agent.missed()
    assert agent.is_due()


def test_a_restart_after_a_long_rest_may_ask_first(machine: Machine, clock: Hands) -> None:
    machine.agent().heard()
    for _ in range(2):
        clock.pass_s(50 * BOUND_S)
        agent = machine.agent()
        agent.missed()
        clock.pass_s(CHANCE_S - 1)
        assert not agent.is_due()
        agent.heard()
        agent.missed()
        clock.pass_s(CHANCE_S)
        assert not agent.is_due()


@pytest.mark.parametrize("jump_s", [-1e9, -3600, 3600, 1e9])
def test_setting_the_clock_changes_nothing_within_a_boot(machine: Machine, clock: Hands, jump_s: float) -> None:
    agent = machine.agent()
    agent.heard()
    agent.missed()
    clock.jump(jump_s)
    clock.pass_s(BOUND_S / 2)
    restarted = machine.agent()
    restarted.missed()
    clock.pass_s(BOUND_S / 2 - 1)
    assert not agent.is_due()
    assert not restarted.is_due()
    clock.pass_s(1)
    assert agent.is_due()
    assert restarted.is_due()


def test_a_reboot_counts_by_the_time_of_day_and_gives_a_first_chance(machine: Machine, clock: Hands) -> None:
    machine.agent().heard()
    clock.reboot(after_s=BOUND_S)
    agent = machine.agent()
    agent.missed()
    clock.pass_s(CHANCE_AFTER_BOOT_S - 1)
    assert not agent.is_due()
    clock.pass_s(1)
    assert agent.is_due()


def test_a_clock_that_went_back_over_a_reboot_counts_from_the_boot(machine: Machine, clock: Hands) -> None:
    machine.agent().heard()
    clock.reboot(after_s=-1e9)
    agent = machine.agent()
    agent.missed()
    clock.pass_s(BOUND_S - 1)
    assert not agent.is_due()
    clock.pass_s(1)
    assert agent.is_due()


def test_a_second_life_within_the_new_boot_goes_on_by_the_boot_clock(machine: Machine, clock: Hands) -> None:
    machine.agent().heard()
    clock.reboot(after_s=BOUND_S / 2)
    machine.agent()
    clock.jump(1e9)
    clock.pass_s(BOUND_S / 4)
    agent = machine.agent()
    agent.missed()
    clock.pass_s(BOUND_S / 4 - 1)
    assert not agent.is_due()
    clock.pass_s(1)
    assert agent.is_due()


def test_where_no_boot_has_a_name_each_start_counts_as_a_boot(machine: Machine, clock: Hands) -> None:
    clock.boot = ""
    machine.agent().heard()
    clock.pass_s(BOUND_S)
    agent = machine.agent()
    agent.missed()
    assert not agent.is_due()
    clock.pass_s(CHANCE_AFTER_BOOT_S)
    assert agent.is_due()


def test_another_instance_on_the_same_machine_begins_anew(machine: Machine, clock: Hands) -> None:
    machine.agent("first").heard()
    clock.pass_s(BOUND_S)
    agent = machine.agent("second")
    agent.missed()
    assert not agent.is_due()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"instance_id": "i"}'])
def test_a_file_that_cannot_be_read_counts_as_none(machine: Machine, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "last-heard.json").write_bytes(content)
    agent = machine.agent()
    agent.missed()
    assert not agent.is_due()


def test_a_disk_that_is_full_does_not_end_the_agent(machine: Machine, tmp_path: Path) -> None:
    (tmp_path / "last-heard.new").mkdir()
    machine.agent().heard()


def test_what_was_forgotten_after_switching_off_is_not_held_against_the_next_life(
    machine: Machine, clock: Hands
) -> None:
    first = machine.agent()
    clock.pass_s(BOUND_S)
    first.forget()
    agent = machine.agent()
    agent.missed()
    assert not agent.is_due()


def test_without_a_bound_it_is_never_due_and_writes_nothing(tmp_path: Path, clock: Hands) -> None:
    agent = Machine(tmp_path, clock, bound_s=0.0).agent()
    agent.missed()
    clock.pass_s(1e9)
    assert not agent.is_due()
    assert list(tmp_path.iterdir()) == []


def test_not_every_answer_is_written(machine: Machine, clock: Hands, tmp_path: Path) -> None:
    agent = machine.agent()
    written = set()
    for _ in range(100):
        clock.pass_s(0.5)
        agent.heard()
        written.add((tmp_path / "last-heard.json").read_bytes())
    assert 5 <= len(written) <= 12
