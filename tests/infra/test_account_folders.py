"""Each gateway has a folder of its own; what a dead one owes is taken over, whoever else dies meanwhile."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.usage import UsageRecord
from infra import account_folders
from infra.account_folders import Accounts, take_accounts
from infra.running_journal import RunningJournal
from infra.spool import FileSpool, SpoolInUseError, locked
from tests.infra.nursery import Nursery
from tests.infra.test_running_journal import draft, encoded, usage
from tests.projections.examples import usage_record


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "gateway"


def published(accounts: Accounts) -> list[UsageRecord]:
    """What would leave for the stream, in order."""
    lines: list[bytes] = []
    while batch := accounts.spool.oldest(3):
        lines += batch
        accounts.spool.remove(len(batch))
    return [msgspec.json.decode(line, type=UsageRecord) for line in lines]


def die_with_accounts(root: str, number: str) -> None:
    """A gateway that dies in folder `number` with two records, one of them still in its slot, and a running request."""
    folder = Path(root) / number
    spool = FileSpool(folder)
    journal = RunningJournal(folder / account_folders.JOURNAL)
    spool.append([encoded(usage_record(f"done-{number}")), encoded(usage_record(f"just-done-{number}"))])
    journal.open(encoded(draft(f"just-done-{number}")))
    slot = journal.open(encoded(draft(f"running-{number}")))
    journal.progress(slot, usage(5, 17))
    os.kill(os.getpid(), signal.SIGKILL)


def owed_by(number: str) -> dict[str, UsageRecord]:
    running = draft(f"running-{number}", prompt_tokens=5, completion_tokens=17, counted_by="engine")
    done = {name: usage_record(name) for name in (f"done-{number}", f"just-done-{number}")}
    return {**done, f"running-{number}": running}


@pytest.fixture
def dead() -> Iterator[Callable[..., None]]:
    """dead(root, number): a gateway has lived and died there."""
    with Nursery(die_with_accounts) as nursery:

        def dies(root: Path, number: str) -> None:
            nursery.born(root, number)
            assert nursery.ended() == -signal.SIGKILL

        yield dies


def test_two_living_processes_never_share_a_folder(root: Path) -> None:
    first, second = take_accounts(root), take_accounts(root)
    assert (first.folder.name, second.folder.name) == ("0", "1")
    first.close()
    third = take_accounts(root)
    assert third.folder.name == "0"
    second.close()
    third.close()


def test_there_is_a_bound_to_how_many_live(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_folders, "MAX_PROCESSES", 2)
    held = [take_accounts(root), take_accounts(root)]
    with pytest.raises(SpoolInUseError, match="2 gateways"):
        take_accounts(root)
    for one in held:
        one.close()


async def test_what_the_last_owner_of_the_folder_left_is_published_by_the_next(
    root: Path, dead: Callable[..., None]
) -> None:
    dead(root, "0")
    accounts = take_accounts(root)
    assert await accounts.adopt() == 0
    assert {record.request_id: record for record in published(accounts)} == owed_by("0")
    accounts.close()


async def test_what_a_dead_gateway_left_is_adopted_by_one_that_lives(root: Path, dead: Callable[..., None]) -> None:
    accounts = take_accounts(root)
    accounts.spool.append([encoded(usage_record("own"))])
    assert [record.request_id for record in published(accounts)] == ["own"]
    dead(root, "1")
    dead(root, "3")
    assert await accounts.adopt() == 2
    records = published(accounts)
    assert {record.request_id: record for record in records} == owed_by("1") | owed_by("3")
    assert len(records) == 6
    assert await accounts.adopt() == 0
    assert accounts.spool.size_bytes == 0
    accounts.close()


async def test_what_is_left_of_a_clean_end_is_adopted_too(root: Path) -> None:
    accounts, ending = take_accounts(root), take_accounts(root)
    ending.spool.append([encoded(usage_record("unpublished"))])
    assert await accounts.adopt() == 0
    ending.close()
    assert await accounts.adopt() == 1
    assert [record.request_id for record in published(accounts)] == ["unpublished"]
    accounts.close()


async def test_the_one_folder_of_old_is_adopted(root: Path) -> None:
    old = FileSpool(root / "spool")
    old.append([encoded(usage_record("old"))])
    accounts = take_accounts(root)
    assert await accounts.adopt() == 0  # an old gateway still writes there
    old.close()
    assert await accounts.adopt() == 1
    assert [record.request_id for record in published(accounts)] == ["old"]
    accounts.close()


async def test_adopted_records_come_before_the_next_of_our_own_and_after_those_already_shown(root: Path) -> None:
    accounts = take_accounts(root)
    accounts.spool.append([b"1", b"2", b"3"])
    assert accounts.spool.oldest(2) == [b"1", b"2"]
    dead_spool = FileSpool(root / "5")
    dead_spool.append([b"adopted"])
    dead_spool.close()
    await accounts.adopt()
    accounts.spool.append([b"4"])
    accounts.spool.remove(2)
    seen: list[bytes] = []
    while batch := accounts.spool.oldest(10):
        seen += batch
        accounts.spool.remove(len(batch))
    assert seen == [b"3", b"adopted", b"4"]
    assert accounts.spool.size_bytes == 0
    accounts.close()


async def test_a_disk_that_refuses_leaves_everything_where_it_was(
    root: Path, dead: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    accounts = take_accounts(root)
    dead(root, "1")

    def full(_: object) -> None:
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(accounts.spool, "append", full)
        with pytest.raises(OSError, match="no space left"):
            await accounts.adopt()
    assert await accounts.adopt() == 1
    assert {record.request_id for record in published(accounts)} == set(owed_by("1"))
    accounts.close()


async def test_a_gateway_that_just_looks_leaves_no_lock_behind(root: Path, dead: Callable[..., None]) -> None:
    accounts = take_accounts(root)
    dead(root, "1")
    await accounts.adopt()
    os.close(locked(root / "1"))
    accounts.close()


STEPS = {os: ("write", "fsync", "open", "posix_fallocate", "unlink", "rename"), Path: ("unlink", "rename")}
"""What changes something on the disk."""


def adopt_and_die(root: str, step: str) -> None:
    """Killed just before the step of that number; ends by itself when there are fewer."""
    left = int(step)

    def mortal(wrapped: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return wrapped(*args, **kwargs)

        return call

    for owner, names in STEPS.items():
        for name in names:
            setattr(owner, name, mortal(getattr(owner, name)))
    asyncio.run(take_accounts(Path(root)).adopt())


async def test_killed_at_any_step_of_taking_over_the_next_one_finishes_it(
    tmp_path: Path, dead: Callable[..., None]
) -> None:
    statuses = []
    with Nursery(adopt_and_die) as adopters:
        for step in range(100):
            root = tmp_path / str(step) / "gateway"
            for number in ("0", "1", "spool"):
                dead(root, number)
            adopters.born(root, step)
            statuses.append(adopters.ended())
            accounts = take_accounts(root)
            await accounts.adopt()
            first: dict[str, UsageRecord] = {}
            for record in published(accounts):
                first.setdefault(record.request_id, record)
            assert first == owed_by("0") | owed_by("1") | owed_by("spool")
            accounts.close()
            if statuses[-1] == 0:
                break
    assert (statuses[:-1], statuses[-1]) == ([-signal.SIGKILL] * (len(statuses) - 1), 0)
    assert len(statuses) > 15
    assert len(statuses) < 100
