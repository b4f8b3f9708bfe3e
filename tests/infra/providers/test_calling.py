"""A provider's SDK is called in threads, within bounds, and nothing but the door's two errors comes out."""

import asyncio
import threading
import time

import pytest

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError
from infra.providers.calling import MOST_WAITING, MOST_WORDS, THREADS, Caller, StillBusyError, words_of

SECRET = "11111111-2222-4333-8444-555555555555"


class ForeignError(Exception):
    pass


def translate(operation: str, error: Exception) -> CloudRefusedError | CloudUnavailableError | None:
    if isinstance(error, ForeignError):
        return CloudRefusedError("PROVIDER_CREATE_FAILED", f"{operation}: {error}", "quota")
    return None


def failing(error: Exception) -> None:
    raise error


async def test_an_answer_comes_from_another_thread() -> None:
    assert await Caller("cloud", translate)("look", threading.get_ident) != threading.get_ident()


async def test_a_foreign_error_comes_out_as_what_it_means() -> None:
    with pytest.raises(CloudRefusedError, match="create_server: no more") as refused:
        await Caller("cloud", translate)("create_server", lambda: failing(ForeignError("no more")))
    assert (refused.value.code, refused.value.kind) == ("PROVIDER_CREATE_FAILED", "quota")


@pytest.mark.parametrize("error", [KeyError("servers"), ValueError("no JSON"), OSError("reset"), RuntimeError("?")])
async def test_what_nobody_knows_the_meaning_of_is_no_refusal(error: Exception) -> None:
    with pytest.raises(CloudUnavailableError) as unavailable:
        await Caller("cloud", translate)("look", lambda: failing(error))
    assert (unavailable.value.kind, unavailable.value.retry_after_s) == ("transient", 0.0)


async def test_a_call_is_given_up_when_its_time_is_over() -> None:
    release = threading.Event()
    try:
        started = time.monotonic()
        with pytest.raises(CloudUnavailableError, match="no answer in"):
            await Caller("cloud", translate, total_s=0.05)("look", lambda: release.wait(20))
        assert time.monotonic() - started < 10
    finally:
        release.set()


async def test_a_call_that_was_given_up_while_it_waited_never_runs() -> None:
    release, ran = threading.Event(), threading.Event()
    caller = Caller("cloud", translate, total_s=0.05)
    try:
        hanging = [asyncio.ensure_future(caller("look", lambda: release.wait(20))) for _ in range(THREADS)]
        await asyncio.gather(*hanging, return_exceptions=True)
        with pytest.raises(StillBusyError, match="no thread was free"):
            await caller("create_server", ran.set)
    finally:
        release.set()
    assert await Caller("cloud", translate)("look", lambda: True)
    assert not ran.is_set()


async def test_an_account_with_too_many_open_calls_is_told_so_at_once() -> None:
    release = threading.Event()
    caller = Caller("cloud", translate)
    calls = [asyncio.ensure_future(caller("look", lambda: release.wait(20))) for _ in range(THREADS + MOST_WAITING)]
    try:
        await asyncio.sleep(0)
        with pytest.raises(StillBusyError, match="are open"):
            await caller("look", lambda: True)
    finally:
        release.set()
        await asyncio.gather(*calls)
    assert await caller("look", lambda: True)


@pytest.mark.parametrize(
    "error",
    [
        ForeignError(f"bad key {SECRET}"),
        RuntimeError(f"bad header {SECRET}"),
        CloudRefusedError("CODE", f"bad key {SECRET}", "auth"),
        CloudUnavailableError(f"bad key {SECRET}", "rate_limited", 7),
        StillBusyError(f"bad key {SECRET}", 7),
    ],
)
async def test_no_credential_comes_out_in_any_message(error: Exception) -> None:
    with pytest.raises((CloudRefusedError, CloudUnavailableError)) as raised:
        await Caller("cloud", translate, [SECRET])("look", lambda: failing(error))
    assert SECRET not in str(raised.value)
    assert "***" in str(raised.value)
    assert raised.value.__cause__ is None, "a traceback would print it"


async def test_cleaning_a_message_keeps_what_it_means() -> None:
    caller = Caller("cloud", translate, [SECRET])
    with pytest.raises(StillBusyError) as busy:
        await caller("look", lambda: failing(StillBusyError("still stopping", 7)))
    with pytest.raises(CloudUnavailableError) as limited:
        await caller("look", lambda: failing(CloudUnavailableError("slow down", "rate_limited", 9)))
    assert busy.value.retry_after_s == 7
    assert (limited.value.kind, limited.value.retry_after_s) == ("rate_limited", 9)


def test_words_are_one_line_of_at_most_500_characters() -> None:
    assert words_of("a\n  b\tc") == "a b c"
    assert len(words_of("x" * 10_000)) == MOST_WORDS
    assert words_of("in eu of it", ["eu"]) == "in eu of it", "short values are no secrets"
