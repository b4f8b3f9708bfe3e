"""Gateway-like processes on one data folder, killed one after the other at random: each request is booked once."""

import itertools
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec

from domain.usage import UsageRecord
from gateway.meter import Meter, Posting
from infra.account_folders import take_accounts
from tests.infra.nursery import BOUND_S, Nursery, whole_lines
from tests.infra.test_running_journal import draft, usage
from tests.projections.examples import usage_record

KILLS = 50
OPEN_REQUESTS = 20
FINAL_TOKENS = 1_000
"""More than any draft tells, so that the one cannot be taken for the other."""


async def _no_stream(_: Sequence[Posting]) -> None:
    raise ConnectionError("away for the whole test")


def live(root: str, said: str, life: str, mode: str) -> None:
    """Opens requests, tells of their chunks, ends them, writes its spool; says each before and after it is done."""
    accounts, draws = take_accounts(Path(root)), random.Random(life)
    meter = Meter(accounts.spool, _no_stream, accounts.journal if mode == "journal" else None)
    running: dict[str, int] = {}
    told: Counter[str] = Counter()
    out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def say(word: str, request: str, count: int = 0) -> None:
        os.write(out, json.dumps([word, request, count]).encode() + b"\n")

    for number in itertools.count():
        if len(running) < OPEN_REQUESTS:
            request = f"{life}-{number}"
            say("opens", request)
            running[request] = meter.open(msgspec.json.encode(draft(request)))
            say("opened", request)
        request = draws.choice(list(running))
        if draws.random() < 0.1:
            say("ends", request)
            meter.record(
                msgspec.json.encode(usage_record(request, completion_tokens=FINAL_TOKENS)), running.pop(request)
            )
            say("ended", request)
        else:
            told[request] += 1
            say("tells", request, told[request])
            meter.progress(running[request], usage(5, told[request]))
            say("told", request, told[request])
        if number % 50 == 49:
            meter._write()  # as every 50 ms


class Witness:
    """What the killed said: which requests must be booked, with how many tokens at least and at most."""

    def __init__(self) -> None:
        self.must: set[str] = set()
        self.bounds: dict[str, tuple[int, int]] = {}

    def hears(self, said: Path) -> None:
        for line in whole_lines(said):
            word, request, count = json.loads(line)
            least, most = self.bounds.get(request, (0, 0))
            if word == "opened":
                self.must.add(request)
            if word in {"ends", "ended"}:
                count = FINAL_TOKENS
            self.bounds[request] = (count, most) if word in {"told", "ended"} else (least, max(count, most))


def killed(folder: Path, kills: int, mode: str) -> Witness:
    """So many processes have lived and died on the folder."""
    witness = Witness()
    with Nursery(live) as nursery:
        for life in range(kills):
            said = folder / f"said-{life}"
            pid = nursery.born(folder / "gateway", said, life, mode)
            bytes_wanted, deadline = random.Random(life).randrange(1, 50_000), time.monotonic() + BOUND_S
            while not said.exists() or said.stat().st_size < bytes_wanted:
                assert time.monotonic() < deadline
            os.kill(pid, signal.SIGKILL)
            assert nursery.ended() == -signal.SIGKILL
            witness.hears(said)
    return witness


def booked(folder: Path) -> list[UsageRecord]:
    """What the next gateway on the folder publishes."""
    accounts = take_accounts(folder / "gateway")
    lines: list[bytes] = []
    while batch := accounts.spool.oldest(100):
        lines += batch
        accounts.spool.remove(len(batch))
    accounts.close()
    return [msgspec.json.decode(line, type=UsageRecord) for line in lines]


def test_every_request_is_booked_exactly_once_with_what_had_come(tmp_path: Path) -> None:
    witness = killed(tmp_path, KILLS, "journal")
    records = booked(tmp_path)
    assert max(Counter(record.request_id for record in records).values()) == 1
    assert witness.must <= {record.request_id for record in records} <= set(witness.bounds)
    for record in records:
        least, most = witness.bounds[record.request_id]
        assert least <= record.completion_tokens <= most
        assert (record.outcome == "completed") == (record.completion_tokens == FINAL_TOKENS)
    assert {record.outcome for record in records} == {"completed", "gateway_died"}


def test_without_the_journal_running_requests_are_missing(tmp_path: Path) -> None:
    witness = killed(tmp_path, 3, "none")
    assert witness.must - {record.request_id for record in booked(tmp_path)}
