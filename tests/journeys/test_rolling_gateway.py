"""`inventiv gateway restart`: a new process takes over while answers run, and nobody notices."""

import os
import signal

import pytest

from tests.journeys.platform import MODEL, Platform, until
from tests.journeys.streamed import LONG_TEXT, start_stream

pytestmark = pytest.mark.journey


def test_a_stream_runs_through_and_new_requests_are_answered(platform: Platform, ready_instance: str) -> None:
    old_pid = platform.pid_of("gateway")
    streamed = until(lambda: start_stream(platform, platform.key), f"{ready_instance} streams")
    replaced = platform.json("gateway", "restart", "--no-wait")
    assert (replaced["old_pid"], replaced["old_finished"]) == (old_pid, False)
    assert platform.pid_of("gateway") == replaced["pid"] != old_pid
    ask = {"model": MODEL, "messages": [{"role": "user", "content": "one more"}]}
    assert platform.gateway("POST", "/v1/chat/completions", key=platform.key, json=ask).status_code == 200
    assert f"gateway-{old_pid}" in platform.json("status")["finishing"]
    assert streamed.is_alive()
    streamed.join(timeout=60)
    assert (LONG_TEXT.strip() in streamed.content, streamed.ending) == (True, "[DONE]")
    until(lambda: platform.json("status")["finishing"] == {}, "the old process ends")
    platform.settled()


def test_the_command_tells_what_the_old_process_still_has_to_do(platform: Platform, ready_instance: str) -> None:
    streamed = until(lambda: start_stream(platform, platform.key), f"{ready_instance} streams")
    ran = platform.inventiv("gateway", "restart")
    streamed.join(timeout=60)
    assert (ran.code, streamed.ending) == (0, "[DONE]")
    words = ran.err.splitlines()
    assert words[0].startswith("New process ready")
    assert "Old process finishing 1 request." in words
    assert words[-1].endswith("has finished.")


def test_the_new_process_is_kept_alive_like_the_first(platform: Platform, ready_instance: str) -> None:
    new_pid = platform.json("gateway", "restart")["pid"]
    os.kill(new_pid, signal.SIGKILL)
    until(lambda: platform.children()["gateway"].pid not in {None, new_pid}, "another gateway runs")
    platform.settled()
    ask = {"model": MODEL, "messages": [{"role": "user", "content": ready_instance}]}
    assert platform.gateway("POST", "/v1/chat/completions", key=platform.key, json=ask).status_code == 200


def test_where_nothing_runs_it_says_what_to_do(own_platform: Platform) -> None:
    ran = own_platform.inventiv("gateway", "restart")
    assert ran.code == 8
    assert "inventiv up" in ran.err
    assert own_platform.inventiv("gateway", "restart", "--json").document["error"] == "not_running"
