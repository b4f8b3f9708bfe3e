"""A request's draft is the record that would be written if nothing more became of it; its account is the record."""

from datetime import timedelta
from typing import Any

import msgspec

from domain.usage import UsageRecord
from gateway.account import Openings, Progress, draft_of, ending_of, opening_of
from gateway.wire import ROUTES, Ask
from tests.examples import ACME
from tests.gateway.records import TABLE, account, counts, inference, record
from tests.gateway.routing import MODEL
from tests.given import NOON

WORKER, OTHER = TABLE.ready(ACME, MODEL)


def read(line: bytes) -> UsageRecord:
    return msgspec.json.decode(line, type=UsageRecord)


def test_a_draft_names_the_request_and_counts_nothing() -> None:
    told = read(draft_of(opening_of(inference(), WORKER)))
    nothing: dict[str, Any] = {"prompt_tokens": 0, "completion_tokens": 0, "cached_tokens": 0, "finish_reason": None}
    times: dict[str, Any] = {"ttft_ms": None, "duration_ms": 0.0, "inter_token_ms": None}
    died: dict[str, Any] = {"outcome": "gateway_died", "status_code": 499, "counted_by": "gateway"}
    assert told == record(request_id="r-1", **nothing, **times, **died)


def test_an_account_reads_as_its_record() -> None:
    for changes in ({}, {"outcome": "client_left", "ttft_ms": None}, {"output_images": 2, "queue_ms": 1.5}):
        told = account(**changes)
        assert read(told.line()) == told.record() == record(request_id="r-1", **changes)


def test_openings_share_what_requests_have_in_common() -> None:
    openings: Openings = {}
    plain = Ask(model=MODEL)
    wishes: list[dict[str, Any]] = [
        {},
        {"request_id": "r-2"},
        {"at": NOON + timedelta(milliseconds=250)},
        {"ask": plain},
        {"route": ROUTES["/v1/completions"]},
    ]
    for worker in (WORKER, OTHER):
        for changes in wishes:
            asked = inference(openings, **changes)
            told = read(draft_of(opening_of(asked, worker)))
            assert (told.request_id, told.at, told.streamed) == (asked.request_id, asked.at, asked.ask.stream)
            assert (told.endpoint, told.instance_id) == (asked.route.path, worker.instance_id)
    assert len(openings) == 6


def test_times_are_told_from_the_first_byte_of_the_request() -> None:
    asked = inference(started_s=10.0)
    progress = Progress(status=200, attempts=2, queue_s=0.5, first_content_s=11.0)
    told = ending_of(asked, counts(completion_tokens=5), progress, outcome="completed", now_s=13.0)
    assert (told.ttft_ms, told.duration_ms, told.queue_ms, told.attempts) == (1000.0, 3000.0, 500.0, 2)
    assert told.inter_token_ms == 500.0


def test_one_token_has_nothing_between() -> None:
    progress = Progress(status=200, first_content_s=11.0)
    told = ending_of(inference(), counts(completion_tokens=1), progress, outcome="completed", now_s=13.0)
    assert told.inter_token_ms is None


def test_a_plain_answer_has_no_time_between_tokens() -> None:
    progress = Progress(status=200, first_content_s=11.0)
    asked = inference(ask=Ask(model=MODEL))
    assert ending_of(asked, counts(), progress, outcome="completed", now_s=13.0).inter_token_ms is None
