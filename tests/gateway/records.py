"""Accounts and usage records for specifications of what is made of them."""

from typing import Any

import msgspec

from domain.api_key import key_hash
from domain.ids import ApiKeyId, InstanceId
from domain.instance_events import InstanceRequested
from domain.limits import UNLIMITED
from domain.usage import UsageRecord
from gateway.account import Account, Ending, Inference, Openings, opening_of
from gateway.counts import Counts
from gateway.limits import Limits
from gateway.resolution import resolve
from gateway.shared_counts import SharedCounts
from gateway.spend import SpendBook
from gateway.trace import Trace
from gateway.wire import ROUTES, Ask
from tests.examples import ACME, example
from tests.gateway.routing import CLEAR_KEY, MODEL, key, ready, routing
from tests.given import NOON

FACTS: dict[str, Any] = {
    "request_id": "r1",
    "organization_id": ACME,
    "api_key_id": ApiKeyId("k1"),
    "deployment_id": example(InstanceRequested).deployment_id,
    "instance_id": InstanceId("i1"),
    "model_code": MODEL,
    "endpoint": "/v1/chat/completions",
    "at": NOON,
    "streamed": True,
    "outcome": "completed",
    "status_code": 200,
    "finish_reason": "stop",
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "cached_tokens": 16,
    "counted_by": "engine",
    "ttft_ms": 30.0,
    "duration_ms": 400.0,
    "queue_ms": 0.0,
    "inter_token_ms": 20.0,
}
TABLE = routing(key(), ready("i1"), ready("i2"))


def record(**changes: Any) -> UsageRecord:
    return UsageRecord(**{**FACTS, **changes})


def counts(**changes: Any) -> Counts:
    return msgspec.convert(msgspec.structs.asdict(record(**changes)), Counts)


def ending(**changes: Any) -> Ending:
    return msgspec.convert(msgspec.structs.asdict(record(**changes)), Ending)


def inference(openings: Openings | None = None, **changes: Any) -> Inference:
    """A request with the one key of TABLE."""
    known = TABLE.find_key(key_hash(CLEAR_KEY))
    assert known is not None
    target = resolve(TABLE, ACME, MODEL, NOON)
    limits = Limits(SharedCounts("test"), SpendBook(), now_s=lambda: 0.0)
    given: dict[str, Any] = {
        "request_id": "r-1",
        "key": known,
        "target": target,
        "route": ROUTES["/v1/chat/completions"],
        "ask": Ask(model=MODEL, stream=True),
        "given": {},
        "at": NOON,
        "started_s": 1.0,
        "max_tokens": None,
        "grant": limits.admit(known, UNLIMITED, tokens=0, now=NOON, now_s=0.0),
        "trace": Trace(b"00-%b-2222222222222222-00" % (b"1" * 32)),
        "place": (target.organization_id, target.model_code),
        "openings": {} if openings is None else openings,
    }
    return Inference(**{**given, **changes})


def account(**changes: Any) -> Account:
    """Of a request to the first worker of TABLE; `changes` are of its record's ending."""
    asked, worker = inference(), TABLE.ready(ACME, MODEL)[0]
    return Account(asked, worker.model_code, opening_of(asked, worker), counts(**changes), ending(**changes))
