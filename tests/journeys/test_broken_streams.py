"""A stream that a death cuts in the middle: the client is told, and its tokens are counted once at most."""

import os
import signal
from typing import Any

import pytest

from tests.journeys.platform import Platform, until
from tests.journeys.streamed import LONG_TEXT, Streamed, start_stream

pytestmark = pytest.mark.journey


@pytest.fixture
def key(platform: Platform) -> Any:
    return platform.json("key", "create", "for a broken stream")


def test_a_client_is_told_when_its_engine_died(platform: Platform, ready_instance: str, key: Any) -> None:
    streamed = _started(platform, key)
    for agent in platform.agents():
        agent.kill()
    streamed.join(timeout=60)
    assert LONG_TEXT.strip() not in streamed.content
    assert '"error"' in streamed.ending
    counted = until(lambda: _usage(platform, key), "the broken answer is counted")
    assert counted["total_requests"] == 1
    assert counted["failed_requests"] == 1
    platform.end_instances()  # their agents are only just coming back, which would trouble whoever comes next


def test_a_client_loses_its_connection_with_the_gateway_and_nothing_is_counted_twice(
    platform: Platform, ready_instance: str, key: Any
) -> None:
    streamed = _started(platform, key)
    os.kill(platform.pid_of("gateway"), signal.SIGKILL)
    streamed.join(timeout=60)
    assert streamed.error is not None
    until(lambda: start_stream(platform, key["api_key"]), "the next gateway streams").join(timeout=60)
    until(lambda: _answered(platform, key), "the second answer is counted")
    assert _answered(platform, key) == 1


def _started(platform: Platform, key: Any) -> Streamed:
    return until(lambda: start_stream(platform, key["api_key"]), "a stream begins")


def _answered(platform: Platform, key: Any) -> int:
    return (_usage(platform, key) or {"successful_requests": 0})["successful_requests"]


def _usage(platform: Platform, key: Any) -> dict[str, int] | None:
    reply = platform.rest("GET", "/usage?by=api_key_id")
    totals = reply.json() if reply.status_code == 200 else []
    return next((total for total in totals if total["of"] == key["key"]["id"]), None)
