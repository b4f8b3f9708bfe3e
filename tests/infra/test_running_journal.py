"""What runs when a gateway dies: each request is found again, with the counts that were told last, and none twice."""

import itertools
import json
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from domain.ids import DeploymentId, OfferingId, OrganizationId, ShareId
from domain.model import MAX_CODE_LENGTH
from domain.usage import UsageRecord
from infra import running_journal
from infra.running_journal import MAX_OPENING_BYTES, MAX_TAIL_BYTES, RunningJournal, left_running
from tests.infra.nursery import BOUND_S, Nursery, whole_lines
from tests.projections.examples import usage_record

UUID = "0190b6a4-0000-7000-8000-000000000000"
KILLS = 50


def draft(request_id: str = "r1", **changes: Any) -> UsageRecord:
    none = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "finish_reason": None}
    return usage_record(request_id, **{**none, "outcome": "gateway_died", "counted_by": "gateway", **changes})


def encoded(record: UsageRecord) -> bytes:
    return msgspec.json.encode(record)


def usage(prompt: int, completion: int) -> bytes:
    return b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}' % (
        prompt,
        completion,
        prompt + completion,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "running"


@pytest.fixture
def journal(path: Path) -> RunningJournal:
    return RunningJournal(path)


def counts(path: Path, request_id: str = "r1") -> tuple[int, int, int, str]:
    found = left_running(path)[request_id]
    return found.prompt_tokens, found.completion_tokens, found.cached_tokens, found.counted_by


def test_an_open_request_is_found_as_it_was_opened(path: Path, journal: RunningJournal) -> None:
    journal.open(encoded(draft()))
    assert left_running(path) == {"r1": draft()}


def test_a_freed_request_is_gone(path: Path, journal: RunningJournal) -> None:
    slot = journal.open(encoded(draft("r1")))
    journal.open(encoded(draft("r2")))
    journal.free(slot)
    assert set(left_running(path)) == {"r2"}


def test_the_last_progress_counts(path: Path, journal: RunningJournal) -> None:
    slot = journal.open(encoded(draft()))
    for n in range(1, 8):
        journal.progress(slot, usage(11, n))
        assert counts(path) == (11, n, 0, "engine")


def test_chunks_since_the_engines_last_word_count_one_token_each(path: Path, journal: RunningJournal) -> None:
    slot = journal.open(encoded(draft()))
    journal.progress(slot, b'"chunks":3')
    assert counts(path) == (0, 3, 0, "gateway")
    journal.progress(slot, usage(11, 2) + b',"chunks":4')
    assert counts(path) == (11, 6, 0, "gateway")


def test_cached_tokens_are_read_in_each_engines_words(path: Path, journal: RunningJournal) -> None:
    slot = journal.open(encoded(draft()))
    journal.progress(
        slot, b'"usage":{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4}}'
    )
    assert counts(path) == (9, 1, 4, "engine")
    journal.progress(slot, b'"usage":{"input_tokens":9,"output_tokens":2,"cache_read_input_tokens":4}')
    assert counts(path)[1:] == (2, 4, "engine")


def test_a_new_request_in_a_used_slot_does_not_inherit_progress(path: Path, journal: RunningJournal) -> None:
    slot = journal.open(encoded(draft("r1")))
    journal.progress(slot, usage(1, 1))
    journal.progress(slot, usage(1, 2))
    journal.free(slot)
    assert journal.open(encoded(draft("r2"))) == slot
    assert left_running(path) == {"r2": draft("r2")}


def test_a_progress_that_was_not_written_to_its_end_leaves_the_one_before(path: Path, journal: RunningJournal) -> None:
    slot = journal.open(encoded(draft()))
    journal.progress(slot, usage(1, 7))
    journal.progress(slot, usage(1, 8))
    content = path.read_bytes()
    for cut in range(1, len(usage(1, 8)), 7):  # the store of the tail died in its middle
        at = content.index(usage(1, 8)) + cut
        path.write_bytes(content[:at] + bytes(MAX_TAIL_BYTES - cut + 8) + content[at + MAX_TAIL_BYTES - cut + 8 :])
        assert counts(path) == (1, 7, 0, "engine")


def test_an_opening_that_was_not_written_to_its_end_is_no_request(
    path: Path, journal: RunningJournal, caplog: pytest.LogCaptureFixture
) -> None:
    journal.open(encoded(draft("r1")))
    journal.open(encoded(draft("r2")))
    content = bytearray(path.read_bytes())
    content[content.index(b"r1")] = ord("x")  # what a power cut may leave: a state without its opening
    path.write_bytes(content)
    assert set(left_running(path)) == {"r2"}


def test_a_request_that_ended_in_the_same_moment_has_its_final_record(path: Path, journal: RunningJournal) -> None:
    final = usage_record("r1", completion_tokens=40)
    slot = journal.open(encoded(draft("r1")))
    journal.progress(slot, usage(1, 39))
    journal.open(encoded(final))
    assert left_running(path) == {"r1": final}


def test_of_two_attempts_the_later_one_stands(path: Path, journal: RunningJournal) -> None:
    journal.open(encoded(draft("r1", attempts=2)))
    journal.open(encoded(draft("r1", attempts=1)))
    assert left_running(path)["r1"].attempts == 2


def test_when_no_slot_is_left_nothing_is_taken(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = RunningJournal(path)
    slots = [journal.open(b"x") for _ in range(running_journal.SLOTS)]
    assert (len(set(slots)), journal.has_room, journal.open(b"x")) == (running_journal.SLOTS, False, -1)
    journal.free(slots[5])
    assert (journal.has_room, journal.open(b"x")) == (True, slots[5])


def test_the_longest_record_fits_and_a_longer_one_is_refused(journal: RunningJournal) -> None:
    longest = draft(
        UUID,
        organization_id=OrganizationId(UUID),
        api_key_id=UUID,
        deployment_id=DeploymentId(UUID),
        instance_id=UUID,
        model_code="m" * MAX_CODE_LENGTH,
        endpoint="/v1/audio/transcriptions",
        finish_reason="content_filter",
        queue_ms=123_456.789,
        inter_token_ms=123_456.789,
        ttft_ms=123_456.789,
        duration_ms=3_600_000.123,
        input_audio_seconds=123_456.789,
        prompt_tokens=10**9,
        completion_tokens=10**9,
        cached_tokens=10**9,
        output_images=10**3,
        provider_organization_id=OrganizationId(UUID),
        offering_id=OfferingId(UUID),
        share_id=ShareId(UUID),
        input_eur_micros_per_million=10**12,
        output_eur_micros_per_million=10**12,
    )
    assert journal.open(encoded(longest)) >= 0
    assert journal.open(b"x" * (MAX_OPENING_BYTES + 1)) == -1


def test_too_long_a_tail_leaves_the_one_before_and_so_does_none(path: Path, journal: RunningJournal) -> None:
    slot = journal.open(encoded(draft()))
    journal.progress(slot, usage(1, 7))
    journal.progress(slot, b"")
    journal.progress(slot, b'"usage":{"completion_tokens":8,"note":"' + b"x" * MAX_TAIL_BYTES + b'"}')
    assert counts(path) == (1, 7, 0, "engine")


def test_progress_without_a_slot_does_nothing(path: Path, journal: RunningJournal) -> None:
    journal.progress(-1, usage(1, 7))
    assert left_running(path) == {}


def test_its_room_on_the_disk_is_taken_at_the_start(path: Path, journal: RunningJournal) -> None:
    assert path.stat().st_blocks * 512 >= running_journal.FILE_BYTES
    assert path.stat().st_mode & 0o077 == 0


def test_few_pages_are_touched_by_many_requests_one_after_the_other(journal: RunningJournal) -> None:
    used = set()
    for _ in range(10_000):
        slot = journal.open(encoded(draft()))
        used.add(slot)
        journal.free(slot)
    assert len(used) == 1


@pytest.mark.parametrize("content", [b"", b"something else", bytes(running_journal.FILE_BYTES)])
def test_what_is_no_journal_holds_no_requests(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert left_running(path) == {}


def test_a_clean_end_leaves_no_file_and_an_unclean_one_does(path: Path) -> None:
    RunningJournal(path).close()
    assert not path.exists()
    journal = RunningJournal(path)
    journal.open(encoded(draft()))
    journal.close()
    assert left_running(path) == {"r1": draft()}


def live(path: str, said: str, covered: str, seed: str) -> None:
    """A gateway's life until it is killed; says before and after each step what it does, by write(2)."""
    journal, draws = RunningJournal(Path(path)), random.Random(seed)
    running: dict[str, int] = {}
    told: dict[str, int] = {}
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(**word: object) -> None:
        os.write(out, json.dumps(word).encode() + b"\n")

    for number in itertools.count():
        if len(running) < 20:
            request = f"r{number}"
            say(opens=request)
            running[request] = journal.open(encoded(draft(request))) if covered == "covered" else -1
            told[request] = 0
            say(opened=request)
        request = draws.choice(list(running))
        if draws.random() < 0.1:
            say(ends=request)
            slot = running.pop(request)
            if slot >= 0:
                journal.free(slot)
        else:
            told[request] += 1
            say(tells=request, count=told[request])
            journal.progress(running[request], usage(5, told[request]))
            say(told=request, count=told[request])


class Witness:
    """What a killed child said: which requests must be found, which may be, and between which counts."""

    def __init__(self, said: Path) -> None:
        self.must: set[str] = set()
        self.may: set[str] = set()
        self.least: dict[str, int] = {}
        self.most: dict[str, int] = {}
        for line in whole_lines(said):
            word = json.loads(line)
            match word:
                case {"opens": request}:
                    self.may.add(request)
                case {"opened": request}:
                    self.must.add(request)
                    self.least[request] = self.most[request] = 0
                case {"ends": request}:
                    self.must.discard(request)
                case {"tells": request, "count": count}:
                    self.most[request] = count
                case {"told": request, "count": count}:
                    self.least[request] = count
                case _:
                    raise AssertionError(word)


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    with Nursery(live) as made:
        yield made


def killed(nursery: Nursery, path: Path, number: int, covered: str = "covered") -> Witness:
    """At a random point of its life."""
    said = path.with_name(f"said-{number}")
    pid = nursery.born(path, said, covered, number)
    bytes_wanted, deadline = random.Random(number).randrange(1, 60_000), time.monotonic() + BOUND_S
    while not said.exists() or said.stat().st_size < bytes_wanted:
        assert time.monotonic() < deadline
    os.kill(pid, signal.SIGKILL)
    assert nursery.ended() == -signal.SIGKILL
    return Witness(said)


def test_killed_at_any_point_every_running_request_is_found_with_its_last_counts(nursery: Nursery, path: Path) -> None:
    for number in range(KILLS):
        witness = killed(nursery, path, number)
        found = left_running(path)
        assert witness.must <= set(found) <= witness.may
        for request in witness.must:
            assert witness.least[request] <= found[request].completion_tokens <= witness.most[request]


def test_without_the_journal_running_requests_are_lost(nursery: Nursery, path: Path) -> None:
    witness = killed(nursery, path, 1, "uncovered")
    assert witness.must
    assert left_running(path) == {}
